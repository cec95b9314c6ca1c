package main

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
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
	Rows        []measure.Row
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
	Renewals    int
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
		Renewals: r.rest.renewals,
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

// page is all that is written of a run.
func (r results) page() measure.Page {
	return measure.Page{Text: reportTemplate, Data: r.report(), Rows: r.rows(), Columns: []string{"VALUE"}}
}
