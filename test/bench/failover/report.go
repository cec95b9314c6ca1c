package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// reportFile is the page.
const reportFile = "benchmarks-failover.md"

//go:embed report.md.tmpl
var reportText string

var reportTemplate = template.Must(template.New(reportFile).Parse(reportText))

// report is what the template shows.
type report struct {
	Date, Took  string
	Machine     measure.Machine
	Rows        []row
	Breaks      []sampleRow
	Switchovers []sampleRow
	GroupSize   int
	StartTime   string
	Rollouts    []rolloutRow
	Pods        int
	Window      string
	CPU, Idle   string
	PerThousand string
	Resident    string
	Writes      int
	Reads       int
}

type sampleRow struct {
	Figure                     string
	N                          int
	Least, Mean, P50, P95, Max string
}

func newSampleRow(figure string, s measure.Sample) sampleRow {
	return sampleRow{
		figure, len(s), measure.Duration(s.Quantile(0)), measure.Duration(s.Mean()), measure.Duration(s.P50()), measure.Duration(s.P95()), measure.Duration(s.Max()),
	}
}

type rolloutRow struct {
	Workload string
	Rollouts int
	// Of all of them together, and of each in the order in which they were.
	Total, Mean, Each             string
	BareTotal, BareMean, BareEach string
}

func (r results) report() report {
	p := report{
		Date: r.began.UTC().Format(time.DateOnly), Took: r.ended.Sub(r.began).Round(time.Second).String(), Machine: r.machine, Rows: r.rows(),
		GroupSize: groupSize, StartTime: startTime.String(), Pods: r.rest.pods, Window: r.rest.window.Round(time.Second).String(), CPU: measure.Duration(r.rest.cpu), Idle: measure.Duration(r.rest.idle),
		PerThousand: cores(r.rest.perThousand()), Resident: measure.Megabytes(float64(r.rest.resident)), Writes: r.rest.writes, Reads: r.rest.reads,
	}
	for _, b := range r.breaks {
		p.Breaks = append(p.Breaks, newSampleRow(b.figure, b.knows))
	}
	for _, s := range r.switchovers {
		p.Switchovers = append(p.Switchovers, newSampleRow(s.figure, s.knows))
	}
	for i, m := range r.managed {
		b := r.bare[i]
		p.Rollouts = append(p.Rollouts, rolloutRow{
			Workload: fmt.Sprintf("%s of %d", m.kind, m.replicas), Rollouts: len(m.changes),
			Total: strconv.Itoa(m.total()), Mean: fmt.Sprintf("%.1f", m.mean()), Each: each(m.changes),
			BareTotal: strconv.Itoa(b.total()), BareMean: fmt.Sprintf("%.1f", b.mean()), BareEach: each(b.changes),
		})
	}
	return p
}

func each(changes []int) string {
	text := make([]string, len(changes))
	for i, n := range changes {
		text[i] = strconv.Itoa(n)
	}
	return strings.Join(text, " ")
}

// write makes the page in dir.
func (r results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the report's directory: %w", err)
	}
	f, err := os.Create(filepath.Join(dir, reportFile))
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := errors.Join(r.writeMarkdown(f), f.Close()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func (r results) writeMarkdown(w io.Writer) error { return reportTemplate.Execute(w, r.report()) }

// WriteTable shows the figures that matter on a terminal.
func (r results) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tVALUE\tTARGET\t")
	for _, row := range r.rows() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", row.Figure, row.Value, row.Wanted, row.Verdict)
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
