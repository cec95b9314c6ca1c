package main

import (
	"fmt"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// The targets.
const (
	// breakMargin is what a handover may take when unready-for is over. The least is what restarts and probes need to tell that the leader does
	// not work.
	breakMargin = 2 * time.Second
	// statefulLimit is how many leader changes a rollout of a StatefulSet may take: its controller goes by ordinals.
	statefulLimit = 2
	// switchLimit is how long a switchover may take, as a share of client-go's time for the next leader when a pod is deleted.
	switchShare = 1.0 / 5
)

// rows lists the figures that matter most, with their targets.
func (r results) rows() []measure.Row {
	var rows []measure.Row
	for _, b := range r.breaks {
		limit := b.wait + breakMargin
		rows = append(rows, newRow("broken leader to next leader's app, "+b.figure+", p95", b.knows.P95().Seconds(), measure.Seconds, "≤ "+limit.String(), limit.Seconds()))
	}
	theirs := r.switchovers[len(r.switchovers)-1].knows.P95().Seconds()
	for i, s := range r.switchovers {
		wanted, limit := "", 0.0
		if i == 0 {
			wanted, limit = "≤ 1/5 of client-go's", theirs*switchShare
		}
		rows = append(rows,
			newRow(s.figure+", p50", s.knows.P50().Seconds(), measure.Seconds, "", 0),
			newRow(s.figure+", p95", s.knows.P95().Seconds(), measure.Seconds, wanted, limit))
	}
	for i, m := range r.managed {
		figure := fmt.Sprintf("leader changes in %d rollouts, %s of %d", len(m.changes), m.kind, m.replicas)
		if m.kind == deployment {
			rows = append(rows, newRow(figure, float64(m.total()), number, "= "+number(float64(len(m.changes))), float64(len(m.changes))))
		} else {
			rows = append(rows, newRow(figure+", the most in one", float64(m.most()), number, "≤ "+number(statefulLimit), statefulLimit))
		}
		rows = append(rows, newRow("without the manager", float64(r.bare[i].total()), number, "", 0))
	}
	return append(rows,
		newRow("writes by the manager per 1,000 elected pods at rest", r.rest.writesPerThousand(), perHour, "0", 0),
		newRow("CPU time of the manager per 1,000 elected pods at rest", r.rest.perThousand(), cores, "", 0),
	)
}

func number(n float64) string  { return fmt.Sprintf("%.0f", n) }
func perHour(n float64) string { return fmt.Sprintf("%.0f per hour", n) }

// cores shows a share of one core.
func cores(share float64) string { return fmt.Sprintf("%.2f %% of a core", share*100) }

// newRow judges a figure that must not be above limit, unless wanted is empty.
func newRow(figure string, value float64, format func(float64) string, wanted string, limit float64) measure.Row {
	return measure.Row{Figure: figure, Values: []string{format(value)}}.Want(wanted, value <= limit, format(value-limit))
}
