package main

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/template"
	"time"

	"github.com/elector-io/elector/elector"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// The files of a report.
const (
	reportFile   = "benchmarks.md"
	gracefulFile = "handover-graceful.svg"
	crashFile    = "handover-crash.svg"
)

//go:embed report.md.tmpl
var reportText string

var reportTemplate = template.Must(template.New(reportFile).Parse(reportText))

// report is what the template shows.
type report struct {
	Date     string
	Took     string
	Machine  measure.Machine
	Rows     []measure.Row
	Latency  []latencyRow
	N        int
	Verbs    []verbRow
	Window   string
	Replicas int
	Sidecars []sidecarRow
	Age      string
	Storms   []stormRow
	Graceful string
	Crash    string

	Locks, MassReplicas, MassRounds int
	Mass                            []massRow
}

// massRow is a line of the table of many locks.
type massRow struct{ Who, P50, P95, Max, Writes, Conflicts, Rest, Dialled, Memory string }

type latencyRow struct {
	Figure, Who         string
	N                   int
	Mean, P50, P95, Max string
}

type verbRow struct{ Verb, OurLeader, OurStandby, PeerLeader, PeerStandby string }

type sidecarRow struct{ Who, Role, Binary, Resident, Anonymous, Peak, CPU string }

func (r results) report() report {
	t := r.traffic[ours]
	p := report{
		Date: r.began.UTC().Format(time.DateOnly), Took: r.ended.Sub(r.began).Round(time.Second).String(), Machine: r.machine,
		Rows: r.rows(), N: len(r.start[ours]), Verbs: r.verbs(), Window: t.window.Round(time.Second).String(), Replicas: t.standbys + 1,
		Age: r.footprints[ours].standby.age.Round(time.Second).String(), Storms: r.storms.report(), Graceful: gracefulFile, Crash: crashFile,
	}
	add := func(figure string, of [2]measure.Sample) {
		for _, who := range implementations {
			s := of[who]
			p.Latency = append(p.Latency, latencyRow{
				figure, who.String(), len(s), measure.Duration(s.Mean()), measure.Duration(s.P50()), measure.Duration(s.P95()), measure.Duration(s.Max()),
			})
		}
	}
	for _, l := range r.graceful {
		add(fmt.Sprintf("graceful handover, %d replicas", l.replicas), l.of)
	}
	for _, l := range r.crash {
		add(fmt.Sprintf("crash takeover, %d replicas", l.replicas), l.of)
	}
	add("start to first claim", r.start)
	add("demotion", r.demotion)
	for _, who := range implementations {
		f := r.footprints[who]
		for _, one := range []struct {
			role string
			usage
		}{{"leader", f.leader}, {"standby", f.standby}} {
			m := one.memory
			p.Sidecars = append(p.Sidecars, sidecarRow{
				who.String(), one.role, measure.Megabytes(float64(f.binary)), measure.Megabytes(float64(m.Resident)), measure.Megabytes(float64(m.Anonymous)),
				measure.Megabytes(float64(m.Peak)), measure.Duration(one.perHour()),
			})
		}
	}
	for _, who := range implementations {
		p.Mass = append(p.Mass, r.mass[who].row(who))
	}
	m := r.mass[ours]
	p.Locks, p.MassReplicas, p.MassRounds = m.locks, massReplicas, m.rounds
	return p
}

// verbs lists every verb that anybody used at rest.
func (r results) verbs() []verbRow {
	used := counts{}
	for _, t := range r.traffic {
		used.plus(t.leader)
		used.plus(t.standby)
	}
	var rows []verbRow
	for _, verb := range slices.Sorted(maps.Keys(used)) {
		row := verbRow{Verb: verb}
		leader, standby := r.traffic[ours].perSecond(verb)
		row.OurLeader, row.OurStandby = measure.PerSecond(leader), measure.PerSecond(standby)
		leader, standby = r.traffic[peer].perSecond(verb)
		row.PeerLeader, row.PeerStandby = measure.PerSecond(leader), measure.PerSecond(standby)
		rows = append(rows, row)
	}
	return rows
}

func (r results) charts() map[string]chart {
	return map[string]chart{
		gracefulFile: {title: "Graceful handover: share done within a time", log: true, lines: r.graceful},
		crashFile: {
			title: "Crash takeover: share done within a time", lines: r.crash,
			mark: elector.DefaultLeaseDuration, markName: "lease-duration",
		},
	}
}

// page is all that is written of a run.
func (r results) page() measure.Page {
	p := measure.Page{Text: reportTemplate, Data: r.report(), Files: map[string]func(io.Writer) error{}, Rows: r.rows(), Columns: []string{"ELECTOR", "CLIENT-GO", "RATIO"}}
	for name, c := range r.charts() {
		p.Files[name] = c.writeSVG
	}
	return p
}
