package elector

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseSettings(t *testing.T) {
	tests := map[string]struct {
		reason string
		given  map[string]string
		want   Settings
		err    string
	}{
		"defaults": {
			reason: "a lock name alone is enough",
			given:  map[string]string{"lock": "web"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second},
		},
		"all": {
			reason: "every setting is read",
			given:  map[string]string{"lock": "a.b-c", "mode": "leader-for-life", "lease-duration": "1m", "renew-deadline": "40s", "retry-period": "500ms"},
			want:   Settings{Lock: "a.b-c", Mode: ModeLeaderForLife, LeaseDuration: time.Minute, RenewDeadline: 40 * time.Second, RetryPeriod: 500 * time.Millisecond},
		},
		"unknown mode": {
			reason: "a typing error is refused, not taken for the default",
			given:  map[string]string{"lock": "web", "mode": "primary"},
			err:    `--mode "primary" is not allowed: use lease or leader-for-life`,
		},
		"capital in lock": {
			reason: "the API server would refuse the object",
			given:  map[string]string{"lock": "Web"},
			err:    `--lock "Web" is not allowed: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
		},
		"no lock": {
			reason: "two workloads must not share a nameless lock",
			given:  map[string]string{},
			err:    `--lock "" is not allowed: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
		},
		"long lock": {
			reason: "the value is cut so that the sentence stays readable",
			given:  map[string]string{"lock": strings.Repeat("a", 254)},
			err:    `--lock "` + strings.Repeat("a", 80) + `…" is not allowed: a name has at most 253 characters, this one has 254`,
		},
		"not whole": {
			reason: "the Lease stores seconds: 1.9s would become 1s and let two lead",
			given:  map[string]string{"lock": "web", "lease-duration": "1.5s"},
			err:    `--lease-duration "1.5s" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`,
		},
		"longest lease": {
			reason: "a day is not too long",
			given:  map[string]string{"lock": "web", "lease-duration": "24h"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: 24 * time.Hour, RenewDeadline: 16 * time.Hour, RetryPeriod: 3*time.Hour + 12*time.Minute},
		},
		"longer lease": {
			reason: "a typing error would freeze the workload",
			given:  map[string]string{"lock": "web", "lease-duration": "24h0m1s"},
			err:    `--lease-duration "24h0m1s" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`,
		},
		"shortest of all": {
			reason: "every limit is allowed, but for that of retries, which have to fit in",
			given:  map[string]string{"lock": "web", "lease-duration": "1s", "renew-deadline": "121ms", "retry-period": "100ms"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: time.Second, RenewDeadline: 121 * time.Millisecond, RetryPeriod: 100 * time.Millisecond},
		},
		"no lease": {
			reason: "nobody could lead",
			given:  map[string]string{"lock": "web", "lease-duration": "0s"},
			err:    `--lease-duration "0s" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`,
		},
		"no deadline": {
			reason: "nobody could lead",
			given:  map[string]string{"lock": "web", "renew-deadline": "0s"},
			err:    `--renew-deadline "0s" is not allowed: it must be above 0s and below --lease-duration (15s)`,
		},
		"shortest deadline": {
			reason: "it is one, but no retry fits in",
			given:  map[string]string{"lock": "web", "renew-deadline": "1ns", "retry-period": "2s"},
			err:    `--renew-deadline "1ns" is not allowed: it must be above 120ms, so that a retry fits in`,
		},
		"retry just too long": {
			reason: "it has to fit in, not just to end in time",
			given:  map[string]string{"lock": "web", "lease-duration": "1m", "renew-deadline": "6s", "retry-period": "5s"},
			err:    `--retry-period "5s" is not allowed: 1.2 times it must be below --renew-deadline (6s), so that a retry fits in`,
		},
		"retry just too short": {
			reason: "retries must not become a load",
			given:  map[string]string{"lock": "web", "retry-period": "99ms"},
			err:    `--retry-period "99ms" is not allowed: it must be at least 100ms`,
		},
		"longest lock": {
			reason: "the API server would take it",
			given:  map[string]string{"lock": strings.Repeat("a", 253)},
			want:   Settings{Lock: strings.Repeat("a", 253), Mode: ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second},
		},
		"longest shown": {
			reason: "what is as long as is shown is not cut",
			given:  map[string]string{"lock": strings.Repeat("é", 80)},
			err:    `--lock "` + strings.Repeat("é", 80) + `" is not allowed: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
		},
		"no unit": {
			reason: "15 is not a duration",
			given:  map[string]string{"lock": "web", "lease-duration": "15"},
			err:    `--lease-duration "15" is not allowed: use whole seconds with their unit, from 1s to 24h, such as 15s or 1m`,
		},
		"no unit of ours": {
			reason: "Go's durations have no days",
			given:  map[string]string{"lock": "web", "lease-duration": "1d"},
			err:    `--lease-duration "1d" is not allowed: use whole seconds with their unit, from 1s to 24h, such as 15s or 1m`,
		},
		"no unit of the deadline": {
			reason: "the advice is one that is taken there",
			given:  map[string]string{"lock": "web", "renew-deadline": "10"},
			err:    `--renew-deadline "10" is not allowed: use a duration with its unit, such as 10s or 1500ms`,
		},
		"no unit of the period": {
			reason: "the advice is one that is taken there",
			given:  map[string]string{"lock": "web", "retry-period": "2"},
			err:    `--retry-period "2" is not allowed: use a duration with its unit, such as 2s or 500ms`,
		},
		"short duration alone": {
			reason: "nobody wrote the deadline that would be too long for it",
			given:  map[string]string{"lock": "web", "lease-duration": "8s"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: 8 * time.Second, RenewDeadline: 5333 * time.Millisecond, RetryPeriod: 1066 * time.Millisecond},
		},
		"shortest duration alone": {
			reason: "what follows is allowed at this end",
			given:  map[string]string{"lock": "web", "lease-duration": "1s"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: time.Second, RenewDeadline: 666 * time.Millisecond, RetryPeriod: 133 * time.Millisecond},
		},
		"longest duration alone": {
			reason: "and at that one",
			given:  map[string]string{"lock": "web", "lease-duration": "24h"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: 24 * time.Hour, RenewDeadline: 16 * time.Hour, RetryPeriod: 192 * time.Minute},
		},
		"deadline alone": {
			reason: "the retry follows, the lease does not: it is what others wait for",
			given:  map[string]string{"lock": "web", "renew-deadline": "2s"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 400 * time.Millisecond},
		},
		"short deadline alone": {
			reason: "a retry that nobody wrote is not blamed",
			given:  map[string]string{"lock": "web", "renew-deadline": "130ms"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: 130 * time.Millisecond, RetryPeriod: 100 * time.Millisecond},
		},
		"too short deadline": {
			reason: "no retry would fit in, whoever chose it",
			given:  map[string]string{"lock": "web", "renew-deadline": "120ms"},
			err:    `--renew-deadline "120ms" is not allowed: it must be above 120ms, so that a retry fits in`,
		},
		"duration and period": {
			reason: "only what is not given follows",
			given:  map[string]string{"lock": "web", "lease-duration": "30s", "retry-period": "1s"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: 30 * time.Second, RenewDeadline: 20 * time.Second, RetryPeriod: time.Second},
		},
		"as it was written": {
			reason: "60s is not 1m to somebody who looks for it in a manifest",
			given:  map[string]string{"lock": "web", "lease-duration": "60s", "renew-deadline": "90s"},
			err:    `--renew-deadline "90s" is not allowed: it must be above 0s and below --lease-duration (60s)`,
		},
		"negative duration alone": {
			reason: "what follows from it is not blamed",
			given:  map[string]string{"lock": "web", "lease-duration": "-15s"},
			err:    `--lease-duration "-15s" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`,
		},
		"endless duration alone": {
			reason: "nor when it is beyond all proportion",
			given:  map[string]string{"lock": "web", "lease-duration": "2000000h"},
			err:    `--lease-duration "2000000h" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`,
		},
		"deadline above duration": {
			reason: "a claim must end before a standby takes over",
			given:  map[string]string{"lock": "web", "renew-deadline": "20s"},
			err:    `--renew-deadline "20s" is not allowed: it must be above 0s and below --lease-duration (15s)`,
		},
		"deadline equals duration": {
			reason: "no drift would be tolerated at all",
			given:  map[string]string{"lock": "web", "renew-deadline": "15s"},
			err:    `--renew-deadline "15s" is not allowed: it must be above 0s and below --lease-duration (15s)`,
		},
		"retry too long": {
			reason: "no retry would fit into the claim",
			given:  map[string]string{"lock": "web", "retry-period": "9s"},
			err:    `--retry-period "9s" is not allowed: 1.2 times it must be below --renew-deadline (10s), so that a retry fits in`,
		},
		"retry too short": {
			reason: "retries must not become a load",
			given:  map[string]string{"lock": "web", "retry-period": "-1s"},
			err:    `--retry-period "-1s" is not allowed: it must be at least 100ms`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseSettings("--", func(f string) (string, bool) { v, ok := tc.given[f]; return v, ok })
			if tc.err != "" {
				var fe *FieldError
				if !errors.As(err, &fe) || err.Error() != tc.err {
					t.Fatalf("%s:\n got %v\nwant %s", tc.reason, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if got != tc.want {
				t.Fatalf("%s:\n got %+v\nwant %+v", tc.reason, got, tc.want)
			}
		})
	}
}

// A cluster's own defaults are kept in proportion, and whatever whole lease-duration is given alone is accepted.
func TestFollowingDurations(t *testing.T) {
	for name, base := range map[string]Settings{
		"the defaults":    DefaultSettings(),
		"patient":         {Mode: ModeLease, LeaseDuration: time.Minute, RenewDeadline: 50 * time.Second, RetryPeriod: 10 * time.Second},
		"seldom retrying": {Mode: ModeLease, LeaseDuration: 30 * time.Second, RenewDeadline: 25 * time.Second, RetryPeriod: 20 * time.Second},
		"often retrying":  {Mode: ModeLease, LeaseDuration: 24 * time.Hour, RenewDeadline: time.Hour, RetryPeriod: 100 * time.Millisecond},
		"early":           {Mode: ModeLease, LeaseDuration: 24 * time.Hour, RenewDeadline: time.Second, RetryPeriod: 200 * time.Millisecond},
	} {
		base.Lock = "web"
		if err := base.Validate(""); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, lease := range []string{"1s", "2s", "7s", "8s", "15s", "59s", "60s", "3599s", "23h59m59s", "24h"} {
			got, err := base.Parse("", func(field string) (string, bool) { return lease, field == FieldLeaseDuration })
			if err != nil {
				t.Errorf("%s, %s: %v", name, lease, err)
				continue
			}
			was, is := base.RenewDeadline.Seconds()/base.LeaseDuration.Seconds(), got.RenewDeadline.Seconds()/got.LeaseDuration.Seconds()
			if is > was+1e-9 && got.RenewDeadline > 2*minRetryPeriod {
				t.Errorf("%s, %s: a renew-deadline of %s tolerates less drift than the defaults", name, lease, got.RenewDeadline)
			}
		}
	}
}

func TestShort(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "15s": 15 * time.Second, "1m": time.Minute, "10m": 10 * time.Minute, "1m30s": 90 * time.Second, "24h": 24 * time.Hour, "1h10m": 70 * time.Minute, "1h0m5s": time.Hour + 5*time.Second, "1.5s": 1500 * time.Millisecond,
	} {
		if got := short(d); got != want {
			t.Errorf("%v is shown as %q, want %q", d, got, want)
		}
	}
}
