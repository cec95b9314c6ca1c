package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// row is one figure and what is wanted of it.
type row struct {
	Figure, Value string
	// Wanted is empty for figures without a target, and so is Verdict.
	Wanted, Verdict string
	missed          bool
}

// The targets: what an administrator would not notice.
const (
	addedLimit   = 3 * time.Millisecond
	reviewLimit  = time.Millisecond
	handlerLimit = time.Millisecond
	grantLimit   = 100 * time.Millisecond
)

// rows lists the figures that matter most, with their targets.
func (r results) rows() []row {
	leader, standby := r.storm.leader(), r.storm.standby()
	pods := len(r.storm.latency)
	return []row{
		durationRow("added to a pod's create by the webhook, p50", r.creates.added.P50(), addedLimit),
		durationRow(fmt.Sprintf("review over HTTPS at %d/s, p99", pace), r.paced.due.P99(), reviewLimit),
		durationRow("handler alone, CPU time of a review, p99", r.handler.cpu99, handlerLimit),
		{Figure: fmt.Sprintf("reviews over %d connections", fullConnections), Value: fmt.Sprintf("%.0f/s", r.full.rate())},
		{Figure: "CPU time of a review, both replicas, TLS included", Value: measure.Duration(r.full.cpu())},
		{Figure: "`inject.Pod`", Value: measure.Duration(r.injection.took)},
		{Figure: "`inject.Pod`, allocations", Value: strconv.FormatInt(r.injection.allocations, 10)},
		durationRow("first grant of a lock, quiet cluster, p50", r.quiet.P50(), grantLimit),
		{Figure: fmt.Sprintf("grants of %d pods created at once, p95", pods), Value: measure.Duration(r.storm.latency.P95())},
		{Figure: fmt.Sprintf("grants of %d pods created at once, the last", pods), Value: measure.Duration(r.storm.total)},
		{Figure: fmt.Sprintf("resident memory with %d pods, leader", pods), Value: resident(leader)},
		{Figure: fmt.Sprintf("resident memory with %d pods, standby", pods), Value: resident(standby)},
	}
}

func resident(u usage) string { return measure.Megabytes(float64(u.after.Resident)) }

// durationRow judges a duration that must be below limit.
func durationRow(figure string, d, limit time.Duration) row {
	r := row{Figure: figure, Value: measure.Duration(d), Wanted: "< " + limit.String(), Verdict: "met"}
	if d >= limit {
		r.Verdict, r.missed = "missed by "+measure.Duration(d-limit), true
	}
	return r
}
