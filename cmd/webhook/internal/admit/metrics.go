package admit

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

const (
	outcomeChanged   = "changed"
	outcomeUnchanged = "unchanged"
	outcomeDenied    = "denied"
	outcomeFailed    = "failed"
)

// admissions counts answers, in controller-runtime's registry with the
// manager's other metrics. The reason of a denial is the annotation at fault, so
// there are no more of them than annotations.
var admissions = sync.OnceValue(func() *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "elector_webhook_admissions_total",
		Help: "Admission reviews answered, by kind of object, outcome (changed, unchanged, denied, failed) and, for denials, the annotation at fault.",
	}, []string{"kind", "outcome", "reason"})
	metrics.Registry.MustRegister(v)
	return v
})
