package main

import (
	"path"
	"strings"
	"time"
)

// plan says which tests have to notice the mutants of which files, and how many of them.
type plan struct {
	// files is a pattern of path.Match, or "*" for all. The first plan that matches counts.
	files string
	// target is the least share of the mutants that must be killed, equivalent ones aside.
	target float64
	// steps run in this order, the cheapest first, until one fails.
	steps []step
}

// step is a run of some tests of one package.
type step struct {
	// pkg is a directory below the module's root.
	pkg string
	// run and skip are what `go test` takes.
	run, skip string
}

func (s step) String() string {
	text := "./" + s.pkg
	if s.run != "" {
		text += " -run '" + s.run + "'"
	}
	if s.skip != "" {
		text += " -skip '" + s.skip + "'"
	}
	return text
}

// byChance are the tests of the simulation that go on for a time, not for a number of schedules. They come last: what they find depends
// on the machine.
const byChance = "TestNeverTwoLeaders|TestBesideClientGo"

// The targets are what a hostile reviewer would have to beat: the candidate decides who leads, and is pure, so nothing excuses it.
var plans = []plan{
	{files: "elector/candidate.go", target: 0.95, steps: []step{
		{pkg: "elector", run: "Transcript"},
		{pkg: "elector", run: "Explore"},
	}},
	// Package elector does not import its locks, so its tests can't notice theirs.
	{files: "elector/kube/lock/*.go", target: 0.85, steps: []step{
		{pkg: "elector/kube/lock"},
		{pkg: "test/sim", skip: byChance},
		{pkg: "test/sim", run: byChance},
	}},
	{files: "elector/kube/internal/record/*.go", target: 0.85, steps: []step{
		{pkg: "elector/kube/internal/record"},
		{pkg: "elector/kube"},
		{pkg: "elector/kube/lock"},
		{pkg: "test/sim", skip: byChance},
		{pkg: "test/sim", run: byChance},
	}},
	{files: "elector/kube/*.go", target: 0.85, steps: []step{
		{pkg: "elector/kube"},
		{pkg: "test/sim", skip: byChance},
		{pkg: "test/sim", run: byChance},
	}},
	{files: "*", target: 0.85, steps: []step{
		{pkg: "elector", skip: "Explore"},
		{pkg: "elector/kube"},
		{pkg: "elector/kube/lock"},
		{pkg: "test/sim", skip: byChance},
		{pkg: "elector", run: "Explore"},
		{pkg: "test/sim", run: byChance},
	}},
}

// defaultFiles are mutated when none are named.
var defaultFiles = []string{"elector/*.go", "elector/kube/*.go", "elector/kube/lock/*.go", "elector/kube/internal/record/*.go"}

// equivalentFile lists the mutants of the module that no test can notice.
const equivalentFile = "test/mutate/equivalent.txt"

// planOf returns the index of the plan for a file, or -1.
func planOf(plans []plan, file string) int {
	for i, p := range plans {
		if p.files == "*" || matches(p.files, file) {
			return i
		}
	}
	return -1
}

// matches tells whether a pattern of path.Match, or a part of the name, fits a file.
func matches(pattern, file string) bool {
	ok, err := path.Match(pattern, file)
	return err == nil && ok || strings.Contains(file, pattern)
}

// prepare drops the steps without tests, as seconds, which has the time of every step that has some, says; a plan without steps gets
// those of the last one, which is for everything. The notes tell of both.
func prepare(plans []plan, took map[step]time.Duration) (ready []plan, notes []string) {
	for i, p := range plans {
		var steps []step
		for _, s := range p.steps {
			if _, ok := took[s]; ok {
				steps = append(steps, s)
			}
		}
		p.steps = steps
		ready = append(ready, p)
		if len(steps) == 0 && i+1 < len(plans) {
			notes = append(notes, p.files+" has no tests of its own yet: all tests count.")
		}
	}
	last := ready[len(ready)-1]
	for i := range ready {
		if len(ready[i].steps) == 0 {
			ready[i].steps = last.steps
		}
	}
	return ready, notes
}
