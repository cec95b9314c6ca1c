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
const reportFile = "benchmarks-injectors.md"

//go:embed report.md.tmpl
var reportText string

var reportTemplate = template.Must(template.New(reportFile).Parse(reportText))

// report is what the template shows.
type report struct {
	Date, Took         string
	Machine            measure.Machine
	Columns            []string
	Rows               []measure.Row
	Sizes              []size
	Injectors          []injector
	Unknown            []unknownRow
	Rounds             int
	Alone, Full        time.Duration
	Connections        int
	Containers, Places int
}

// size is a table of reviews of one size.
type size struct {
	Review     string
	Bytes      int
	Containers int
	Rows       []sizeRow
}

type sizeRow struct {
	Who, CPU50, CPU99, Whole, Allocations, Allocated, Rate, Served, Answer string
}

type injector struct{ Who, Version, Kubernetes string }

type unknownRow struct {
	Who, Lost string
	Kept      int
}

func kilobytes(n int) string { return fmt.Sprintf("%.0f KB", float64(n)/1e3) }

// beside shows a figure, and how many times elector's it is.
func beside(shown string, value, elector float64) string {
	if value == elector || elector == 0 {
		return shown
	}
	switch times := value / elector; {
	case times >= 10:
		return fmt.Sprintf("%s (%.0f×)", shown, times)
	case times >= 1:
		return fmt.Sprintf("%s (%.1f×)", shown, times)
	default:
		return fmt.Sprintf("%s (%.2f×)", shown, times)
	}
}

func (r results) columns() (names []string) {
	for _, s := range r.subjects {
		names = append(names, s.name)
	}
	return names
}

// plainShare is the part of the CPU time of the usual way that elector may take at most. The ratio holds on a busy machine, too.
const plainShare = 1.0 / 3

// wholeRow judges what a review costs in all, beside the usual way.
func (r results) wholeRow(figure string, i int) measure.Row {
	row := r.row(figure, i, whole, measure.Seconds)
	share := whole(r.subjects[0].reviews[i]) / whole(r.subjects[1].reviews[i])
	return row.Want("<= 1/3 of controller-runtime", share <= plainShare, fmt.Sprintf("%.2f", share-plainShare))
}

// row has the same figure of every injector.
func (r results) row(figure string, i int, value func(figures) float64, show func(float64) string) measure.Row {
	row := measure.Row{Figure: figure}
	for _, s := range r.subjects {
		v := value(s.reviews[i])
		row.Values = append(row.Values, beside(show(v), v, value(r.subjects[0].reviews[i])))
	}
	return row
}

func count(v float64) string { return fmt.Sprintf("%.0f", v) }

// The figures.
func cpu50(f figures) float64       { return f.cpu.P50().Seconds() }
func cpu99(f figures) float64       { return f.cpu.P99().Seconds() }
func whole(f figures) float64       { return f.whole.P50().Seconds() }
func allocations(f figures) float64 { return f.allocations }
func allocated(f figures) float64   { return f.allocated }
func served(f figures) float64      { return f.served.P50().Seconds() }
func answer(f figures) float64      { return float64(f.answer) }

// rows lists the figures that matter most, with their targets.
func (r results) rows() (rows []measure.Row) {
	for i, review := range r.reviews {
		of := " of a review of " + kilobytes(len(review.body))
		rows = append(rows,
			r.row("CPU time"+of+", p50", i, cpu50, measure.Seconds),
			r.wholeRow("CPU time"+of+" with the garbage collector, mean", i),
			r.row("allocations"+of, i, allocations, count),
			r.row("reviews of "+kilobytes(len(review.body))+" per second over HTTPS", i, figures.perSecond, count),
		)
	}
	return append(rows, r.keptRow())
}

// keptRow tells what of a pod is kept that the injector does not know. Ours has to keep all.
func (r results) keptRow() measure.Row {
	row := measure.Row{Figure: "unknown fields kept"}
	for _, s := range r.subjects {
		row.Values = append(row.Values, fmt.Sprintf("%d of %d", len(places)-len(s.lost), len(places)))
	}
	lost := len(r.subjects[0].lost)
	return row.Want(fmt.Sprintf("%d of %d", len(places), len(places)), lost == 0, strconv.Itoa(lost))
}

func (r results) report() report {
	p := report{
		Date: r.began.UTC().Format(time.DateOnly), Took: r.ended.Sub(r.began).Round(time.Second).String(), Machine: r.machine,
		Columns: r.columns(), Rows: r.rows(), Rounds: r.plan.rounds, Alone: r.plan.alone, Full: r.plan.full, Connections: connections, Places: len(places),
	}
	for i, review := range r.reviews {
		s := size{Review: kilobytes(len(review.body)), Bytes: len(review.body), Containers: shapes[i].containers}
		for _, subject := range r.subjects {
			f, first := subject.reviews[i], r.subjects[0].reviews[i]
			cell := func(value func(figures) float64, show func(float64) string) string {
				return beside(show(value(f)), value(f), value(first))
			}
			s.Rows = append(s.Rows, sizeRow{
				subject.name, cell(cpu50, measure.Seconds), cell(cpu99, measure.Seconds), cell(whole, measure.Seconds), cell(allocations, count), cell(allocated, count),
				cell(figures.perSecond, count), cell(served, measure.Seconds), cell(answer, count),
			})
		}
		p.Sizes = append(p.Sizes, s)
	}
	for _, s := range r.subjects {
		version := s.version
		if s.library == "" {
			version = "of this commit"
		}
		p.Injectors = append(p.Injectors, injector{s.name, version, s.kubernetes})
		u := unknownRow{Who: s.name, Kept: len(places) - len(s.lost), Lost: strings.Join(s.lost, ", ")}
		if u.Lost == "" {
			u.Lost = "none"
		}
		p.Unknown = append(p.Unknown, u)
	}
	return p
}

// page is all that is written of a run.
func (r results) page() measure.Page {
	return measure.Page{Text: reportTemplate, Data: r.report(), Rows: r.rows(), Columns: r.columns()}
}
