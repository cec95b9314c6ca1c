package inject

import (
	"testing"
	"time"

	"github.com/elector-io/elector/elector"
)

func TestLeastForGrace(t *testing.T) {
	t.Parallel()
	usual := elector.DefaultSettings()
	short := elector.Settings{LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond}
	tests := map[string]struct {
		reason             string
		grace              time.Duration
		usual              elector.Settings
		lease, renew, want time.Duration // want is the least claim
	}{
		"default": {"what nobody chose fits as it is", 2 * time.Second, usual, 15 * time.Second, 10 * time.Second, 7334 * time.Millisecond},
		"5s":      {"the design's", 5 * time.Second, usual, 23 * time.Second, 15 * time.Second, 12 * time.Second},
		"30s":     {"the design's", 30 * time.Second, usual, 78 * time.Second, 52 * time.Second, 49334 * time.Millisecond},
		"1h":      {"the most", time.Hour, usual, 8111 * time.Second, 5407 * time.Second, 5404334 * time.Millisecond},
		"500ms":   {"the least", 500 * time.Millisecond, usual, 12 * time.Second, 8 * time.Second, 5167 * time.Millisecond},
		"exactly": {"no second more", 1500 * time.Millisecond, usual, 14 * time.Second, 9 * time.Second, 6500 * time.Millisecond},
		"1ms":     {"a millisecond more takes a second", 1501 * time.Millisecond, usual, 15 * time.Second, 10 * time.Second, 6835 * time.Millisecond},
		"short":   {"another retry-period and proportion of the cluster's", 2 * time.Second, short, 8 * time.Second, 5 * time.Second, 3867 * time.Millisecond},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := leastFor(test.grace, test.usual.RetryPeriod, test.usual)
			if got.LeaseDuration != test.lease || got.RenewDeadline != test.renew || got.RetryPeriod != test.usual.RetryPeriod {
				t.Errorf("%s: %s/%s/%s, want %s/%s/%s", test.reason, got.LeaseDuration, got.RenewDeadline, got.RetryPeriod, test.lease, test.renew, test.usual.RetryPeriod)
			}
			if claim := leastClaim(got, test.grace); claim != test.want {
				t.Errorf("%s: the least claim is %s, want %s", test.reason, claim, test.want)
			}
		})
	}
}

// TestLeastForGraceIsLeast tries every grace there may be in steps, with several retry-periods.
func TestLeastForGraceIsLeast(t *testing.T) {
	t.Parallel()
	for _, retry := range []time.Duration{100 * time.Millisecond, 333333333, time.Second, 2 * time.Second, 7 * time.Second} {
		for grace := minStopGrace; grace <= maxStopGrace; grace += max(777*time.Millisecond, grace/50) {
			s := leastFor(grace, retry, elector.DefaultSettings())
			s.Lock = "web"
			if err := s.Validate(""); err != nil {
				t.Fatalf("grace %s, retry %s: %v", grace, retry, err)
			}
			if !hasRoom(s, grace) {
				t.Fatalf("grace %s, retry %s: %s/%s have no room for it", grace, retry, s.LeaseDuration, s.RenewDeadline)
			}
			if claim := leastClaim(s, grace); claim > s.RenewDeadline-s.RetryPeriod {
				t.Fatalf("grace %s, retry %s: a claim of %s never has %s left when a renewal came late by a try", grace, retry, s.RenewDeadline, claim)
			}
			s.RenewDeadline -= time.Second
			if hasRoom(s, grace) {
				t.Fatalf("grace %s, retry %s: %s have room, too", grace, retry, s.RenewDeadline)
			}
		}
	}
}
