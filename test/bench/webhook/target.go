package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// The targets: what an administrator would not notice.
const (
	addedLimit   = 3 * time.Millisecond
	reviewLimit  = 3 * time.Millisecond
	handlerLimit = 150 * time.Microsecond
	largeLimit   = 500 * time.Microsecond
	grantLimit   = 60 * time.Millisecond // out of reach: report.md.tmpl says why
	// maxAllocations are of a usual review, minRate is of reviews per second.
	maxAllocations, minRate = 680, 4000
	// lastGrantLimit is from the answer to the last create.
	lastGrantLimit = 2 * time.Second
	// residentLimit is of each replica, in bytes.
	residentLimit = 60_000_000
)

// rows lists the figures that matter most, with their targets.
func (r results) rows() []measure.Row {
	leader, standby := r.storm.leader(), r.storm.standby()
	pods := len(r.storm.latency)
	return []measure.Row{
		durationRow("added to a pod's create by the webhook, p50", r.creates.added.P50(), addedLimit),
		durationRow(fmt.Sprintf("review over HTTPS at %d/s, p99", pace), r.paced.due.P99(), reviewLimit),
		durationRow("handler alone, CPU time of a review of "+kilobytes(r.handler.bytes)+", p50", r.handler.cpu50, handlerLimit),
		durationRow("handler alone, CPU time of a review of "+kilobytes(r.large.bytes)+", p50", r.large.cpu50, largeLimit),
		newRow("handler alone, allocations of a review of "+kilobytes(r.handler.bytes), strconv.Itoa(r.handler.allocations)).
			Want(fmt.Sprintf("<= %d", maxAllocations), r.handler.allocations <= maxAllocations, strconv.Itoa(r.handler.allocations-maxAllocations)),
		newRow(fmt.Sprintf("reviews over %d connections", fullConnections), fmt.Sprintf("%.0f/s", r.full.rate())).
			Want(fmt.Sprintf(">= %d/s", minRate), r.full.rate() >= minRate, fmt.Sprintf("%.0f/s", minRate-r.full.rate())),
		newRow("CPU time of a review, both replicas, TLS included", measure.Duration(r.full.cpu())),
		newRow("`inject.Add`", measure.Duration(r.injection.took)),
		newRow("`inject.Add`, allocations", strconv.FormatInt(r.injection.allocations, 10)),
		durationRow("first grant of a lock, quiet cluster, p50", r.quiet.P50(), grantLimit),
		newRow(fmt.Sprintf("grants of %d pods created at once, p95", pods), measure.Duration(r.storm.latency.P95())),
		durationRow(fmt.Sprintf("grants of %d pods created at once, the last after the last create", pods), r.storm.total-r.storm.created, lastGrantLimit),
		residentRow(fmt.Sprintf("resident memory with %d pods, leader", pods), leader),
		residentRow(fmt.Sprintf("resident memory with %d pods, standby", pods), standby),
		newRow(fmt.Sprintf("most that a replica took, with %d pods more, and while started beside them", r.many.pods), measure.Megabytes(float64(r.many.peak()))),
		newRow("replicas ready that started beside them", measure.Duration(r.many.ready)),
	}
}

func kilobytes(n int) string { return fmt.Sprintf("%.0f KB", float64(n)/1e3) }

func resident(u usage) string { return measure.Megabytes(float64(u.after.Resident)) }

// newRow is a figure without a target.
func newRow(figure, value string) measure.Row {
	return measure.Row{Figure: figure, Values: []string{value}}
}

// durationRow judges a duration that must be below limit.
func durationRow(figure string, d, limit time.Duration) measure.Row {
	return newRow(figure, measure.Duration(d)).Want("< "+limit.String(), d < limit, measure.Duration(d-limit))
}

// residentRow judges the memory of a replica.
func residentRow(figure string, u usage) measure.Row {
	over := u.after.Resident - residentLimit
	return newRow(figure, resident(u)).Want("<= "+measure.Megabytes(residentLimit), over <= 0, measure.Megabytes(float64(over)))
}
