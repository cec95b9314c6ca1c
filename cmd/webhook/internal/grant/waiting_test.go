package grant

import (
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/elector-io/elector/elector"
)

// TestWaiting holds that a wait is counted once, from the first pod's arrival, and only when it ended with a grant.
func TestWaiting(t *testing.T) {
	web := lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}
	latency := newLatency()
	w := waiting{latency: latency, since: map[lock]time.Time{}}
	count := func() (uint64, float64) {
		t.Helper()
		var m dto.Metric
		must(t, latency.Write(&m))
		return m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
	}
	before, sum := count()
	w.begin([]lock{web})
	w.since[web] = w.since[web].Add(-time.Minute)
	w.begin([]lock{web}) // a second replica
	w.end(web, true)
	w.end(web, true) // repaired: nobody waited
	w.begin([]lock{web})
	w.end(web, false) // it was there already, or is refused
	after, total := count()
	if after-before != 1 || total-sum < 60 {
		t.Errorf("counted %d waits of %.1f s, want one of a minute", after-before, total-sum)
	}
}
