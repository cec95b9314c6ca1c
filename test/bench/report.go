package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
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
	Rows     []row
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

// write makes the report's files in dir.
func (r results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the report's directory: %w", err)
	}
	if err := writeFile(filepath.Join(dir, reportFile), r.writeMarkdown); err != nil {
		return err
	}
	for name, c := range r.charts() {
		if err := writeFile(filepath.Join(dir, name), c.writeSVG); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, content func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := errors.Join(content(f), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func (r results) writeMarkdown(w io.Writer) error { return reportTemplate.Execute(w, r.report()) }

// WriteTable shows the figures that matter on a terminal.
func (r results) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tELECTOR\tCLIENT-GO\tRATIO\tTARGET\t")
	for _, row := range r.rows() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", row.Figure, row.Ours, row.Peer, row.Ratio, row.Wanted, row.Verdict)
	}
	return t.Flush()
}

// Check returns an error when a target was missed.
func (r results) Check() error {
	if slices.ContainsFunc(r.rows(), func(row row) bool { return row.missed }) {
		return measure.ErrMissed
	}
	return nil
}
