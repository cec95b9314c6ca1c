package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// report is what became of the mutants.
type report struct {
	plans   []plan
	results []result // in the order of the files
	faults  []string // of the list of equivalent mutants
	notes   []string
	found   int
	seed    uint64
	sample  int
	doubt   bool
	took    time.Duration
}

// tally counts mutants by what became of them.
type tally map[verdict]int

// score is the share of the mutants that were killed, of those that count.
func (t tally) score() (share float64, ok bool) {
	dead := t[killed] + t[timedOut]
	if dead+t[survived] == 0 {
		return 0, false
	}
	return float64(dead) / float64(dead+t[survived]), true
}

func (r *report) tally(which func(file string) bool) tally {
	t := tally{}
	for _, res := range r.results {
		if which(res.file) {
			t[res.verdict]++
		}
	}
	return t
}

func (r *report) tallyOf(plan int) tally {
	return r.tally(func(file string) bool { return planOf(r.plans, file) == plan })
}

// check tells what is not as it should be.
func (r *report) check() error {
	var wrong []error
	for i, p := range r.plans {
		score, ok := r.tallyOf(i).score()
		if ok && score < p.target && !r.doubt {
			wrong = append(wrong, fmt.Errorf("%s: %.1f %% of the mutants were killed, %.0f %% should be", planName(r.plans, i), 100*score, 100*p.target))
		}
	}
	for _, fault := range r.faults {
		wrong = append(wrong, errors.New("equivalent.txt: "+fault))
	}
	if r.doubt {
		for _, res := range r.results {
			if res.verdict == killed || res.verdict == timedOut {
				wrong = append(wrong, fmt.Errorf("equivalent.txt: killed by %s: %s", res.by, res.name()))
			}
		}
	}
	return errors.Join(wrong...)
}

func planName(plans []plan, i int) string {
	if plans[i].files == "*" && i > 0 {
		return "the rest"
	}
	return strings.ReplaceAll(plans[i].files, "*", "all files")
}

// page is the report, in Markdown.
func (r *report) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Mutants\n\n")
	tried, building, running := 0, time.Duration(0), time.Duration(0)
	for _, res := range r.results {
		if res.building > 0 {
			tried++
			building += res.building
			running += res.run
		}
	}
	what := "all"
	switch {
	case r.doubt:
		what = "those listed as equivalent"
	case r.sample > 0:
		what = fmt.Sprintf("a sample of %d, seed %d", r.sample, r.seed)
	}
	fmt.Fprintf(&b, "%d places to change were found; of them were tried: %s.\n", r.found, what)
	for _, note := range r.notes {
		fmt.Fprintf(&b, "%s\n", note)
	}
	fmt.Fprintf(&b, "\n| file | killed | of them timed out | survived | equivalent | did not compile | score |\n|---|---|---|---|---|---|---|\n")
	row := func(name string, t tally, target string) {
		text := "-"
		if score, ok := t.score(); ok {
			text = fmt.Sprintf("%.1f %%", 100*score)
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %s%s |\n", name, t[killed]+t[timedOut], t[timedOut], t[survived], t[listedAs], t[uncompiled], text, target)
	}
	files := map[string]bool{}
	for _, res := range r.results {
		files[res.file] = true
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		row(name, r.tally(func(file string) bool { return file == name }), "")
	}
	for i, p := range r.plans {
		if t := r.tallyOf(i); len(t) > 0 {
			row("**"+planName(r.plans, i)+"**", t, fmt.Sprintf(" (target %.0f %%)", 100*p.target))
		}
	}
	r.survivors(&b)
	r.killers(&b)
	if len(r.faults) > 0 {
		fmt.Fprintf(&b, "\n## Wrong in equivalent.txt\n\n")
		for _, fault := range r.faults {
			fmt.Fprintf(&b, "- %s\n", fault)
		}
	}
	if tried > 0 {
		each := func(d time.Duration) float64 { return d.Seconds() / float64(tried) }
		fmt.Fprintf(&b, "\n%d mutants took %.0f s; each %.1f s to build and %.1f s to run.\n", tried, r.took.Seconds(), each(building), each(running))
	}
	return b.String()
}

func (r *report) survivors(b *strings.Builder) {
	title := false
	for _, res := range r.results {
		if res.verdict != survived {
			continue
		}
		if !title {
			fmt.Fprintf(b, "\n## Survived\n\n")
			title = true
		}
		fmt.Fprintf(b, "- %s:%d: %s: `%s`\n", res.file, res.line, res.fn, res.change())
	}
}

// killers counts what killed mutants, by step and test, and shows what the compiler refused although it was checked before.
func (r *report) killers(b *strings.Builder) {
	count := map[string]int{}
	for _, res := range r.results {
		if res.verdict == killed || res.verdict == timedOut {
			count[res.by]++
		}
	}
	if len(count) > 0 {
		fmt.Fprintf(b, "\n## Killed by\n\n| | mutants |\n|---|---|\n")
	}
	names := slices.Sorted(maps.Keys(count))
	slices.SortStableFunc(names, func(x, y string) int { return count[y] - count[x] })
	for _, name := range names {
		fmt.Fprintf(b, "| go test %s | %d |\n", name, count[name])
	}
	for _, res := range r.results {
		if res.verdict == uncompiled && res.by != "" {
			fmt.Fprintf(b, "\nNot compiled: %s:%d: `%s`: %s\n", res.file, res.line, res.change(), flat(res.by))
		}
	}
}
