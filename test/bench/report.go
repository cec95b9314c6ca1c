package main

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
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

	Locks, MassReplicas, MassRounds, Drained int
	MassWindow                               string
	Least                                    leastRow
	Quiet                                    []quietRow
	Departures                               []departuresRow
	Outages                                  []outageRow
}

// quietRow, departuresRow and outageRow are lines of the tables of many locks.
type (
	quietRow      struct{ Who, Server, Etcd, Own, Bytes, Connections, Memory, Stacks, Goroutines string }
	departuresRow struct{ Who, How, P50, P95, Max, Writes, Conflicts, Dialled, Server, Etcd, Own string }
	outageRow     struct{ Who, Down, RenewedP50, RenewedP95, RenewedMax, BackP50, BackP95, BackMax, Burst, Peak, Lost string }
)

// leastRow is what a handover costs at least, and how it compares.
type leastRow struct {
	Writes                        int
	Server, Etcd, Handover        string
	Soonest, Ours, Listed, Theirs string
	WithinSecond                  int
}

type latencyRow struct {
	Figure, Who         string
	N                   int
	Mean, P50, P95, Max string
}

type verbRow struct{ Verb, OurLeader, OurStandby, PeerLeader, PeerStandby string }

type sidecarRow struct{ Who, Role, Binary, Resident, Anonymous, FileShare, Kernel, Cost, Peak, CPU string }

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
				measure.Megabytes(float64(m.FileShare)), measure.Megabytes(float64(m.PageTables + m.Stacks)), measure.Megabytes(float64(m.Cost())),
				measure.Megabytes(float64(m.Peak)), measure.Duration(one.perHour()),
			})
		}
	}
	m := r.mass[ours]
	p.Locks, p.MassReplicas, p.MassRounds, p.Drained = m.locks, massReplicas, m.alone.rounds, len(m.drained.handover)
	p.MassWindow = m.rest.window.Round(time.Second).String()
	for _, who := range implementations {
		p.Quiet = append(p.Quiet, r.mass[who].quietRow(who))
		p.Outages = append(p.Outages, r.mass[who].outage.row(who))
	}
	p.Least = r.leastRow()
	at, each := "all at once", "one after the other"
	p.Departures = []departuresRow{
		m.alone.row(ours.String(), at), m.listed.row(ours.String()+", with a list", at), r.mass[peer].alone.row(peer.String(), at),
		m.drained.row(ours.String()+", with a list", each), r.mass[peer].drained.row(peer.String(), each),
	}
	return p
}

// leastRow compares the CPU time of two writes with that of the handovers that were measured.
func (r results) leastRow() leastRow {
	m, theirs := r.mass[ours], r.mass[peer].alone
	work := func(d *departures) time.Duration { return d.each(d.cpu.server + d.cpu.etcd + d.cpu.own) }
	all := func(each time.Duration) string { // if every core works at nothing else
		return measure.Duration(time.Duration(m.locks) * each / time.Duration(r.machine.Cores))
	}
	return leastRow{
		Writes: m.least.writes, Server: measure.Duration(m.least.each(m.least.cpu.server)), Etcd: measure.Duration(m.least.each(m.least.cpu.etcd)),
		Handover: measure.Duration(m.least.control()), Soonest: all(m.least.control()),
		Ours: all(work(&m.alone)), Listed: all(work(&m.listed)), Theirs: all(work(&theirs)),
		WithinSecond: int(massLimit * time.Duration(r.machine.Cores) / max(1, work(&m.listed))),
	}
}

// quietRow shows what one candidate costs, but for the processes that all share.
func (m *mass) quietRow(who implementation) quietRow {
	q, candidates := m.rest, float64(m.candidates())
	return quietRow{
		Who: who.String(), Server: percent(share(q.cpu.server, q.window)), Etcd: percent(share(q.cpu.etcd, q.window)), Own: percent(share(q.cpu.own, q.window)),
		Bytes: fmt.Sprintf("%.0f", float64(q.bytes)/q.window.Seconds()/candidates), Connections: fmt.Sprintf("%.2f", float64(q.connections)/candidates),
		Memory: kilobytes(m.memory()), Stacks: kilobytes(q.stacks / candidates), Goroutines: fmt.Sprintf("%.1f", q.goroutines/candidates),
	}
}

// row shows the figures: those that are counted for each leader that left.
func (d *departures) row(who, how string) departuresRow {
	n := float64(max(1, len(d.handover)))
	return departuresRow{
		Who: who, How: how, P50: measure.Duration(d.handover.P50()), P95: measure.Duration(d.handover.P95()), Max: measure.Duration(d.handover.Max()),
		Writes: fmt.Sprintf("%.2f", float64(d.writes)/n), Conflicts: fmt.Sprintf("%.2f", float64(d.conflicts)/n), Dialled: fmt.Sprintf("%.2f", float64(d.dialled)/n),
		Server: measure.Duration(d.each(d.cpu.server)), Etcd: measure.Duration(d.each(d.cpu.etcd)), Own: measure.Duration(d.each(d.cpu.own)),
	}
}

func (o *outage) row(who implementation) outageRow {
	return outageRow{
		Who: who.String(), Down: measure.Duration(o.down),
		RenewedP50: measure.Duration(o.renewed.P50()), RenewedP95: measure.Duration(o.renewed.P95()), RenewedMax: measure.Duration(o.renewed.Max()),
		BackP50: measure.Duration(o.back.P50()), BackP95: measure.Duration(o.back.P95()), BackMax: measure.Duration(o.back.Max()),
		Burst: strconv.Itoa(o.burst), Peak: percent(o.peak), Lost: strconv.Itoa(o.lost),
	}
}

func percent(of float64) string { return fmt.Sprintf("%.0f %%", of) }

func kilobytes(bytes float64) string { return fmt.Sprintf("%.0f kB", bytes/1e3) }

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
