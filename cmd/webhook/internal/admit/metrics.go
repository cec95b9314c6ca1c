package admit

import "github.com/prometheus/client_golang/prometheus"

const (
	outcomeChanged   = "changed"
	outcomeUnchanged = "unchanged"
	outcomeDenied    = "denied"
	outcomeFailed    = "failed"
)

// admissions counts answers. The reason of a denial is the annotation at fault, so
// there are no more of them than annotations.
var admissions = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "elector_webhook_admissions_total",
	Help: "Admission reviews answered, by kind of object, outcome (changed, unchanged, denied, failed) and, for denials, the annotation at fault.",
}, []string{"kind", "outcome", "reason"})

// Metrics are those of this package, for a process to register.
func Metrics() prometheus.Collector { return admissions }
