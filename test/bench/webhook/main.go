package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/embedded"
)

var (
	fullPlan  = plan{rounds: 10, paced: 20 * time.Second, full: 5 * time.Second, quiet: 50, writes: 30, namespaces: 200, many: 200}
	shortPlan = plan{rounds: 2, paced: 4 * time.Second, full: 2 * time.Second, quiet: 10, writes: 8, namespaces: 20, many: 10}
)

func main() {
	os.Exit(measure.Program[plan]{
		Name:       "bench/webhook",
		ShortHelp:  "measure a few of each, within two minutes",
		RoundsHelp: fmt.Sprintf("rounds of %d pairs of creates (default %d, or %d with -short)", roundPairs, fullPlan.rounds, shortPlan.rounds),
		OutHelp:    "directory for " + reportFile + " (default docs, or none with -short)",
		Full:       fullPlan, Short: shortPlan,
		SetRounds: func(p *plan, rounds int) { p.rounds = rounds },
		Run:       run,
	}.Main(os.Args[1:], os.Stdout, os.Stderr))
}

// run measures on a cluster of its own.
func run(ctx context.Context, o measure.Options[plan], progress io.Writer) (measure.Page, error) {
	where := measure.Inspect() // first of all: what follows is a load itself
	var found results
	err := measure.OnCluster(ctx, embedded.Config{Progress: progress, Install: true}, &where, func(ctx context.Context, cluster *embedded.Cluster) (err error) {
		base := cluster.RESTConfig()
		base.WarningHandlerWithContext = rest.NoWarnings{} // what the webhook says to people about a single replica is not news here
		l := &lab{plan: o.Plan, root: o.Root, base: base, progress: progress}
		found, err = l.measure(ctx)
		return err
	})
	if err != nil {
		return measure.Page{}, err
	}
	found.machine = where
	return found.page(), nil
}
