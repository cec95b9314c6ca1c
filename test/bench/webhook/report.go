package main

import (
	_ "embed"
	"fmt"
	"text/template"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// reportFile is the page.
const reportFile = "benchmarks-webhook.md"

//go:embed report.md.tmpl
var reportText string

var reportTemplate = template.Must(template.New(reportFile).Parse(reportText))

// report is what the template shows.
type report struct {
	Date, Took string
	Machine    measure.Machine
	LoadAfter  float64
	Rows       []measure.Row
	Creates    []sampleRow
	Reviews    []sampleRow
	Grants     []sampleRow
	Called     string
	Added      string // on average
	Writes     []writesRow

	Pace, Connections, ReviewBytes          int
	PacedFor, FullFor, Rate, CPU            string
	Handlers                                []handlerRow
	InjectTook                              string
	InjectAllocations, InjectBytes          int64
	Pods, Namespaces, PerNamespace, Writers int
	Created, Total, PerSecond               string
	Usages                                  []usageRow
	WriteTries                              int
	Many, ManyLocks, PodsPerLock            int
	ManyUsages                              []usageRow
	ManyReady, ManyGranted                  string
	Apart, Settled                          time.Duration
}

type sampleRow struct {
	Figure                        string
	N                             int
	Mean, P10, P50, P95, P99, Max string
}

func newSampleRow(figure string, s measure.Sample) sampleRow {
	return sampleRow{
		figure, len(s), measure.Duration(s.Mean()), measure.Duration(s.Quantile(0.10)), measure.Duration(s.P50()),
		measure.Duration(s.P95()), measure.Duration(s.P99()), measure.Duration(s.Max()),
	}
}

type handlerRow struct {
	Bytes                      int
	P50, P99, CPU50, CPU99     string
	Allocations, AllocatedSize int
}

func newHandlerRow(h handler) handlerRow {
	return handlerRow{
		h.bytes, measure.Duration(h.p50), measure.Duration(h.p99), measure.Duration(h.cpu50), measure.Duration(h.cpu99), h.allocations, h.allocatedBytes,
	}
}

type writesRow struct{ Who, Role, Binding, Both, Waits, Waited string }

type usageRow struct{ Who, Before, After, Peak, Anonymous, CPU string }

func newUsageRow(u usage, when string) usageRow {
	who, before := "standby", ""
	if u.leads {
		who = "leader"
	}
	if u.before.Resident > 0 {
		before = measure.Megabytes(float64(u.before.Resident))
	}
	return usageRow{
		who + when, before, resident(u), measure.Megabytes(float64(u.after.Peak)), measure.Megabytes(float64(u.after.Anonymous)), measure.Duration(u.cpu),
	}
}

func (r results) report() report {
	p := report{
		Date: r.began.UTC().Format(time.DateOnly), Took: r.ended.Sub(r.began).Round(time.Second).String(), Machine: r.machine, LoadAfter: r.loadAfter,
		Rows: r.rows(),
		Creates: []sampleRow{
			newSampleRow("pod that does not ask", r.creates.plain),
			newSampleRow("pod that gets the sidecar", r.creates.elected),
			newSampleRow("difference within a pair", r.creates.added),
		},
		Reviews: []sampleRow{
			newSampleRow(fmt.Sprintf("at %d/s, from when it was due", pace), r.paced.due),
			newSampleRow(fmt.Sprintf("at %d/s, from when it was sent", pace), r.paced.sent),
			newSampleRow(fmt.Sprintf("over %d connections without pause", fullConnections), r.full.latency),
		},
		Grants: []sampleRow{
			newSampleRow("one pod at a time, each the first of its lock", r.quiet),
			newSampleRow("all at once", r.storm.latency),
		},
		Called: measure.Duration(r.creates.called), Added: measure.Duration(r.creates.added.Mean()),
		Pace: pace, Connections: fullConnections, ReviewBytes: r.paced.bytes,
		PacedFor: (time.Duration(len(r.paced.due)) * time.Second / pace).String(), FullFor: r.full.window.Round(100 * time.Millisecond).String(),
		Rate: fmt.Sprintf("%.0f", r.full.rate()), CPU: measure.Duration(r.full.cpu()),
		Handlers:   []handlerRow{newHandlerRow(r.handler), newHandlerRow(r.large)},
		InjectTook: measure.Duration(r.injection.took), InjectAllocations: r.injection.allocations, InjectBytes: r.injection.memory,
		Pods: len(r.storm.latency), Namespaces: r.storm.namespaces, PerNamespace: podsPerNamespace, Writers: creators,
		Created: measure.Duration(r.storm.created), Total: measure.Duration(r.storm.total), PerSecond: fmt.Sprintf("%.0f", r.storm.perSecond()),
		Apart: writesApart, Settled: settled,
		Many: r.many.pods, ManyLocks: r.many.pods / podsPerLock, PodsPerLock: podsPerLock,
		ManyReady: measure.Duration(r.many.ready), ManyGranted: measure.Duration(r.many.granted),
	}
	for _, u := range []usage{r.storm.leader(), r.storm.standby()} {
		p.Usages = append(p.Usages, newUsageRow(u, ""))
	}
	for _, u := range r.many.used {
		p.ManyUsages = append(p.ManyUsages, newUsageRow(u, ", as the pods came"))
	}
	for _, u := range r.many.started {
		p.ManyUsages = append(p.ManyUsages, newUsageRow(u, ", started anew"))
	}
	for _, w := range r.writes {
		n := len(w.role)
		p.WriteTries = n
		p.Writes = append(p.Writes, writesRow{
			w.who, measure.Duration(w.role.P50()), measure.Duration(w.binding.P50()), measure.Duration(w.both.P50()),
			fmt.Sprintf("%.1f", float64(w.waits)/float64(n)), measure.Duration(w.waited / time.Duration(n)),
		})
	}
	return p
}

// page is all that is written of a run.
func (r results) page() measure.Page {
	return measure.Page{Text: reportTemplate, Data: r.report(), Rows: r.rows(), Columns: []string{"VALUE"}}
}
