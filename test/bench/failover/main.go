package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/embedded"
)

var (
	fullPlan = plan{
		breaks: 10, groups: 5, rounds: 6, rollouts: 10, sizes: []int{2, 3, 5}, electorates: 500, rest: 30 * time.Second,
	}
	shortPlan = plan{
		breaks: 2, groups: 2, rounds: 2, rollouts: 2, sizes: []int{2, 3}, electorates: 100, rest: 10 * time.Second,
	}
)

func main() {
	os.Exit(measure.Program[plan]{
		Name:       "bench/failover",
		ShortHelp:  "measure a few of each, within two minutes",
		RoundsHelp: fmt.Sprintf("rollouts of each workload, and switchovers of each group (default %d, or %d with -short)", fullPlan.rounds, shortPlan.rounds),
		OutHelp:    "directory for " + reportFile + " (default docs, or none with -short)",
		Full:       fullPlan, Short: shortPlan,
		SetRounds: func(p *plan, rounds int) { p.rounds, p.rollouts = rounds, rounds },
		Run:       run,
	}.Main(os.Args[1:], os.Stdout, os.Stderr))
}

// run measures on a cluster with the manager, and on one without.
func run(ctx context.Context, o measure.Options[plan], progress io.Writer) (page measure.Page, err error) {
	found := results{began: time.Now(), machine: measure.Inspect()} // first of all: what follows is a load itself
	built, err := measure.Build(ctx, o.Root, measure.Peer)
	if err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, built.Remove()) }()
	on := func(cfg embedded.Config, do func(*lab, context.Context) error) error {
		return measure.OnCluster(ctx, cfg, &found.machine, func(ctx context.Context, cluster *embedded.Cluster) error {
			l := &lab{
				plan: o.Plan, programs: built, witness: cluster.Program("witness"), dir: cluster.Dir(), client: cluster.Client(), managed: cfg.Install, progress: progress,
			}
			return errors.Join(l.prepare(ctx), do(l, ctx))
		})
	}
	err = on(embedded.Config{Progress: progress, Install: true, Audit: true}, func(l *lab, ctx context.Context) error { return l.measure(ctx, &found) })
	if err != nil {
		return page, err
	}
	err = on(embedded.Config{Progress: progress}, func(l *lab, ctx context.Context) (err error) {
		found.bare, err = l.measureRollouts(ctx)
		return err
	})
	if err != nil {
		return page, err
	}
	found.ended = time.Now()
	return found.page(), nil
}
