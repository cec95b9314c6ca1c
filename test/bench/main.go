package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/embedded"
)

var (
	fullPlan  = plan{sizes: []int{2, 3, 10}, groups: 10, rounds: 10, rest: 10 * time.Minute, storm: 3 * time.Second, locks: 500, massRounds: 3, drained: 100, massQuiet: time.Minute, leastWrites: 250}
	shortPlan = plan{sizes: []int{2, 3, 10}, groups: 4, rounds: 1, rest: time.Minute, storm: time.Second / 2, locks: 50, massRounds: 1, drained: 10, massQuiet: 10 * time.Second, leastWrites: 25}
)

func main() {
	klog.SetLogger(logr.Discard()) // hundreds of candidates have little to say that matters here
	os.Exit(measure.Program[plan]{
		Name:      "bench",
		ShortHelp: "measure a few of each, within ten minutes",
		RoundsHelp: fmt.Sprintf("rounds of each group of candidates; there are %d groups, or %d with -short (default %d, or %d with -short)",
			fullPlan.groups, shortPlan.groups, fullPlan.rounds, shortPlan.rounds),
		OutHelp: "directory for " + reportFile + " and its plots (default docs, or none with -short)",
		Full:    fullPlan, Short: shortPlan,
		SetRounds: func(p *plan, rounds int) { p.rounds = rounds },
		Run:       run,
	}.Main(os.Args[1:], os.Stdout, os.Stderr))
}

// run measures on a cluster of its own.
func run(ctx context.Context, o measure.Options[plan], progress io.Writer) (page measure.Page, err error) {
	where := measure.Inspect() // first of all: what follows is a load itself
	built, err := measure.Build(ctx, o.Root, ours.program(), peer.program())
	if err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, built.Remove()) }()
	var found results
	err = measure.OnCluster(ctx, embedded.Config{Progress: progress}, &where, func(ctx context.Context, cluster *embedded.Cluster) (err error) {
		l := &lab{plan: o.Plan, base: cluster.RESTConfig(), client: cluster.Client(), progress: progress}
		if found, err = l.measure(ctx, built); err != nil {
			return err
		}
		// When nothing is at rest any more, and with what the cluster's start has made: the image's build reads no kubeconfig.
		found.storms, err = l.storms(ctx, filepath.Join(o.Root, "bin", "elector"), cluster.Kubeconfig())
		return err
	})
	if err != nil {
		return page, err
	}
	if found.mass, err = measureMass(ctx, o, &where, progress); err != nil {
		return page, err
	}
	found.ended, found.machine = time.Now(), where
	return found.page(), nil
}
