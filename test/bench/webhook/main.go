package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/embedded"
)

// config is what the flags say.
type config struct {
	root  string // of the repository
	plan  plan
	out   string // empty: no report
	check bool
}

var (
	fullPlan  = plan{rounds: 10, paced: 20 * time.Second, full: 5 * time.Second, quiet: 50, writes: 30, namespaces: 200}
	shortPlan = plan{rounds: 2, paced: 4 * time.Second, full: 2 * time.Second, quiet: 10, writes: 8, namespaces: 20}
)

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

// command is main without the process around it.
func command(args []string, stdout, stderr io.Writer) (exitCode int) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	err := bench(ctx, args, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		exitCode = 2
	default:
		exitCode = 1
	}
	fmt.Fprintln(stderr, "bench/webhook:", err)
	return exitCode
}

var errUsage = errors.New("bad usage")

func bench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root, err := embedded.Root()
	if err != nil {
		return err
	}
	cfg, err := parse(args, root, stderr)
	if err != nil {
		return err
	}
	found, err := run(ctx, cfg, stderr)
	if err != nil {
		return err
	}
	if err := found.writeTable(stdout); err != nil {
		return err
	}
	if cfg.check {
		return found.check()
	}
	return nil
}

func parse(args []string, root string, stderr io.Writer) (config, error) {
	flags := flag.NewFlagSet("bench/webhook", flag.ContinueOnError)
	flags.SetOutput(stderr)
	short := flags.Bool("short", false, "measure a few of each, within a minute")
	rounds := flags.Int("rounds", 0, fmt.Sprintf("rounds of %d pairs of creates (default %d, or %d with -short)", roundPairs, fullPlan.rounds, shortPlan.rounds))
	out := flags.String("out", "", "directory for "+reportFile+" (default docs, or none with -short)")
	check := flags.Bool("check", false, "fail when a target is missed")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return config{}, err
	} else if err != nil {
		return config{}, fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 || *rounds < 0 {
		return config{}, fmt.Errorf("%w: -rounds must be a positive number, and only flags are allowed", errUsage)
	}
	cfg := config{root: root, plan: fullPlan, out: *out, check: *check}
	if *short {
		cfg.plan = shortPlan
	} else if cfg.out == "" {
		cfg.out = filepath.Join(root, "docs")
	}
	if *rounds > 0 {
		cfg.plan.rounds = *rounds
	}
	return cfg, nil
}

// errClusterEnded is why everything stops when the cluster does.
var errClusterEnded = errors.New("the cluster has ended")

// run measures on a cluster of its own and writes the report.
func run(ctx context.Context, cfg config, progress io.Writer) (found results, err error) {
	where := measure.Inspect() // first of all: what follows is a load itself
	cluster, err := embedded.Start(ctx, embedded.Config{Progress: progress, Install: true})
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	version, err := cluster.Client().Discovery().ServerVersion()
	if err != nil {
		return found, fmt.Errorf("asking for Kubernetes' version: %w", err)
	}
	where.Kubernetes = strings.TrimPrefix(version.GitVersion, "v")

	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer cancel(nil)
	watcher.Go(func() {
		select {
		case <-cluster.Ended():
			cancel(errClusterEnded)
		case <-ctx.Done():
		}
	})
	base := cluster.RESTConfig()
	base.WarningHandlerWithContext = rest.NoWarnings{} // what the webhook says to people about a single replica is not news here
	l := &lab{plan: cfg.plan, root: cfg.root, base: base, progress: progress}
	if found, err = l.measure(ctx); err != nil {
		return found, err
	}
	found.machine = where
	if cfg.out == "" {
		return found, nil
	}
	return found, found.write(cfg.out)
}
