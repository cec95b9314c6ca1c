package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/elector-io/elector/elector"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// The targets. Where client-go's own figure is not the measure, they are what the settings or a small container allow.
const (
	gracefulShareOf2  = 1.0 / 20
	gracefulShareOf10 = 1.0 / 5
	crashLimit        = elector.DefaultLeaseDuration + 300*time.Millisecond
	demotionLimit     = 100 * time.Millisecond
	watchEvery        = 5 * time.Minute
	writesLimit       = 0.35 // per second
	controlShare      = 0.45 // of what client-go costs the API server and etcd
	massLimit         = time.Second
	binaryLimit       = 10e6  // bytes
	residentLimit     = 12e6  // bytes
	leaderLimit       = 3.0e6 // bytes of anonymous memory
	standbyLimit      = 2.5e6 // bytes of anonymous memory
)

// rows lists the figures that matter most, with their targets.
func (r results) rows() []measure.Row {
	var rows []measure.Row
	for _, l := range r.graceful {
		wanted, limit := "", 0.0
		theirs := l.of[peer].P95().Seconds()
		switch l.replicas {
		case 2:
			wanted, limit = "≤ 1/20 of client-go's", theirs*gracefulShareOf2
		case 10:
			wanted, limit = "≤ 1/5 of client-go's", theirs*gracefulShareOf10
		}
		rows = append(rows, p95Row(fmt.Sprintf("graceful handover, %d replicas, p95", l.replicas), l.of, wanted, limit))
	}
	for _, l := range r.crash {
		rows = append(rows, p95Row(fmt.Sprintf("crash takeover, %d replicas, p95", l.replicas), l.of, "≤ 15.3 s", crashLimit.Seconds()))
	}
	rows = append(rows,
		p95Row("demotion after losing the lock, p95", r.demotion, "≤ 100 ms", demotionLimit.Seconds()),
		p95Row("start to first claim, p95", r.start, "", 0),
	)
	rows = slices.Concat(rows, r.trafficRows(), r.massRows(), r.footprintRows())
	return append(rows, r.storms.rows()...)
}

func p95Row(figure string, of [2]measure.Sample, wanted string, limit float64) measure.Row {
	return newRow(figure, of[ours].P95().Seconds(), of[peer].P95().Seconds(), measure.Seconds, wanted, limit)
}

func (r results) trafficRows() []measure.Row {
	var others, watches, writes [2]float64
	for who, t := range r.traffic {
		for verb, n := range t.standby {
			if verb == "list" {
				n = max(0, n-t.standby["watch"]) // each watch begins with a list
			}
			if verb != "watch" {
				others[who] += float64(n) / t.window.Seconds() / float64(t.standbys)
			}
		}
		watches[who] = float64(t.standby["watch"])
		for _, verb := range []string{"create", "update", "patch", "delete"} {
			n, _ := t.perSecond(verb)
			writes[who] += n
		}
	}
	t := r.traffic[ours]
	allowed := float64(t.standbys) * float64(t.window/watchEvery) // each was watching already when the window opened
	number := func(n float64) string { return fmt.Sprintf("%.0f", n) }
	watchFigure := fmt.Sprintf("watches begun anew by %d standbys at rest in %s", t.standbys, t.window.Round(time.Second))
	return []measure.Row{
		newRow("standby at rest, requests but watches", others[ours], others[peer], measure.PerSecond, "0/s", 0),
		newRow(watchFigure, watches[ours], watches[peer], number, "≤ 1 each per 5 min", allowed),
		newRow("leader at rest, writes", writes[ours], writes[peer], measure.PerSecond, "≤ 0.35/s", writesLimit),
	}
}

func (r results) massRows() []measure.Row {
	a, b := r.mass[ours], r.mass[peer]
	many := fmt.Sprintf("%d locks", a.locks)
	number := func(n float64) string { return fmt.Sprintf("%.0f", n) }
	return []measure.Row{
		newRow(many+" at rest, API server and etcd", a.rest.control(), b.rest.control(), percent, "≤ 0.45 of client-go's", controlShare*b.rest.control()),
		newRow(many+" at rest, API server's memory for each candidate", a.memory(), b.memory(), kilobytes, "≤ client-go's", b.memory()),
		p95Row(many+", all leaders leave at once, p95", [2]measure.Sample{a.alone.handover, b.alone.handover}, "≤ 1 s", massLimit.Seconds()),
		p95Row(many+", the same with a list of who goes next", [2]measure.Sample{a.listed.handover, b.alone.handover}, "≤ 1 s", massLimit.Seconds()),
		p95Row(many+", leaders leave one after the other, p95", [2]measure.Sample{a.drained.handover, b.drained.handover}, "", 0),
		newRow(many+", claims lost when the API server restarts", float64(a.outage.lost), float64(b.outage.lost), number, "0", 0),
		p95Row(many+", renewed after the API server is ready again, p95", [2]measure.Sample{a.outage.renewed, b.outage.renewed}, "", 0),
	}
}

func (r results) footprintRows() []measure.Row {
	a, b := r.footprints[ours], r.footprints[peer]
	return []measure.Row{
		newRow("sidecar, binary", float64(a.binary), float64(b.binary), measure.Megabytes, "≤ 10 MB", binaryLimit),
		newRow("sidecar, resident memory of a leader", float64(a.leader.memory.Resident), float64(b.leader.memory.Resident), measure.Megabytes, "≤ 12 MB", residentLimit),
		newRow("sidecar, resident memory of a standby", float64(a.standby.memory.Resident), float64(b.standby.memory.Resident), measure.Megabytes, "≤ 12 MB", residentLimit),
		newRow("sidecar, anonymous memory of a leader", float64(a.leader.memory.Anonymous), float64(b.leader.memory.Anonymous), measure.Megabytes, "≤ 3.0 MB", leaderLimit),
		newRow("sidecar, anonymous memory of a standby", float64(a.standby.memory.Anonymous), float64(b.standby.memory.Anonymous), measure.Megabytes, "≤ 2.5 MB", standbyLimit),
		newRow("sidecar, what one more leader costs a node", float64(a.leader.memory.Cost()), float64(b.leader.memory.Cost()), measure.Megabytes, "", 0),
		newRow("sidecar, what one more standby costs a node", float64(a.standby.memory.Cost()), float64(b.standby.memory.Cost()), measure.Megabytes, "", 0),
		newRow("sidecar, CPU time of a leader per hour", a.leader.perHour().Seconds(), b.leader.perHour().Seconds(), measure.Seconds, "", 0),
		newRow("sidecar, CPU time of a standby per hour", a.standby.perHour().Seconds(), b.standby.perHour().Seconds(), measure.Seconds, "", 0),
	}
}

// newRow judges mine against limit, unless wanted is empty.
func newRow(figure string, mine, theirs float64, format func(float64) string, wanted string, limit float64) measure.Row {
	r := measure.Row{Figure: figure, Values: []string{format(mine), format(theirs), ratio(mine, theirs)}}
	return r.Want(wanted, mine <= limit, format(mine-limit))
}

// ratio tells how mine compares: "1/20" is a twentieth of theirs.
func ratio(mine, theirs float64) string {
	switch {
	case theirs == 0:
		return "-"
	case mine == 0:
		return "0"
	case theirs/mine >= 10:
		return fmt.Sprintf("1/%.0f", theirs/mine)
	case theirs/mine >= 1.5:
		return fmt.Sprintf("1/%.1f", theirs/mine)
	}
	return fmt.Sprintf("%.2f", mine/theirs)
}
