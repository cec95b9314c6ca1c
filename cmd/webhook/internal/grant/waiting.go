package grant

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// newLatency begins when the manager hears of the pod, because a Pod's creation is
// dated in whole seconds.
func newLatency() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "elector_webhook_grant_latency_seconds",
		Help:    "Time from hearing of an injected pod until its ServiceAccount was granted the lock, where it was not before.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	})
}

// newRevoked counts what was taken back from pods that contend.
func newRevoked() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "elector_webhook_revoked_locks_total",
		Help: "Locks that were granted until their object turned out to be somebody else's, by mode.",
	}, []string{"mode"})
}

// waiting notes since when pods wait for grants, by lock.
type waiting struct {
	latency prometheus.Observer

	mu    sync.Mutex
	since map[lock]time.Time
}

// begin notes that new pods contend for the locks.
func (w *waiting) begin(locks []lock) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range locks {
		if _, ok := w.since[l]; !ok {
			w.since[l] = time.Now()
		}
	}
}

// end notes that the lock's grants are as they should be.
func (w *waiting) end(l lock, granted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	begun, ok := w.since[l]
	delete(w.since, l)
	if ok && granted {
		w.latency.Observe(time.Since(begun).Seconds())
	}
}
