package measure

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSample(t *testing.T) {
	type summary struct{ Mean, P50, P95, P99, Max time.Duration }
	upTo := func(n int) Sample {
		var s Sample
		for i := n; i > 0; i-- {
			s = append(s, time.Duration(i)*time.Millisecond)
		}
		return s
	}
	for name, tc := range map[string]struct {
		reason string
		sample Sample
		want   summary
	}{
		"empty": {
			reason: "a figure that was not measured is zero, not a crash",
		},
		"one": {
			reason: "every quantile of one measurement is that measurement",
			sample: upTo(1),
			want:   summary{time.Millisecond, time.Millisecond, time.Millisecond, time.Millisecond, time.Millisecond},
		},
		"even": {
			reason: "a quantile is a measurement, so the median of two is the lower one",
			sample: upTo(2),
			want:   summary{1500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 2 * time.Millisecond, 2 * time.Millisecond},
		},
		"hundred": {
			reason: "five of a hundred are above the 95th percentile, one above the 99th",
			sample: upTo(100),
			want:   summary{50500 * time.Microsecond, 50 * time.Millisecond, 95 * time.Millisecond, 99 * time.Millisecond, 100 * time.Millisecond},
		},
		"twenty": {
			reason: "19 of 20 are exactly 95 %",
			sample: upTo(20),
			want:   summary{10500 * time.Microsecond, 10 * time.Millisecond, 19 * time.Millisecond, 20 * time.Millisecond, 20 * time.Millisecond},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := summary{tc.sample.Mean(), tc.sample.P50(), tc.sample.P95(), tc.sample.P99(), tc.sample.Max()}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestSampleKeepsItsOrder(t *testing.T) {
	s := Sample{3, 1, 2}
	_ = s.P95()
	if diff := cmp.Diff(Sample{3, 1, 2}, s); diff != "" {
		t.Errorf("asking for a quantile sorted the sample (-want +got):\n%s", diff)
	}
}
