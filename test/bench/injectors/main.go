package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// plan is how much is measured.
type plan struct {
	rounds int
	// alone is how long reviews of each size are answered without a network, and full over HTTPS, in a round.
	alone, full time.Duration
}

var (
	fullPlan  = plan{rounds: 6, alone: time.Second, full: 2 * time.Second}
	shortPlan = plan{rounds: 1, alone: 300 * time.Millisecond, full: 500 * time.Millisecond}
)

func main() {
	os.Exit(measure.Program[plan]{
		Name:       "bench/injectors",
		ShortHelp:  "measure for a few seconds; the first run compiles parts of Istio and Dapr all the same, which takes minutes",
		RoundsHelp: fmt.Sprintf("rounds of all injectors (default %d, or %d with -short)", fullPlan.rounds, shortPlan.rounds),
		OutHelp:    "directory for " + reportFile + " (default docs, or none with -short)",
		Full:       fullPlan, Short: shortPlan,
		SetRounds: func(p *plan, rounds int) { p.rounds = rounds },
		Run:       run,
	}.Main(os.Args[1:], os.Stdout, os.Stderr))
}

// run measures all of them, in rounds.
func run(ctx context.Context, o measure.Options[plan], progress io.Writer) (page measure.Page, err error) {
	r := results{plan: o.Plan, machine: measure.Inspect(), began: time.Now()} // first of all: what follows is a load itself
	l := &lab{root: o.Root, plan: o.Plan, progress: progress}
	if err := l.prepare(ctx); err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, l.remove()) }()
	r.reviews = l.reviews
	if r.subjects, err = l.measure(ctx); err != nil {
		return page, err
	}
	r.ended = time.Now()
	return r.page(), nil
}
