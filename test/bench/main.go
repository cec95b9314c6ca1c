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

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/test/embedded"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// config is what the flags say.
type config struct {
	root  string // of the repository
	plan  plan
	out   string // empty: no report
	check bool
}

var (
	fullPlan  = plan{sizes: []int{2, 3, 10}, groups: 10, rounds: 10, rest: 10 * time.Minute}
	shortPlan = plan{sizes: []int{2, 3, 10}, groups: 4, rounds: 1, rest: time.Minute}
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
	fmt.Fprintln(stderr, "bench:", err)
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
	klog.SetLogger(logr.Discard()) // hundreds of candidates have little to say that matters here
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
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	short := flags.Bool("short", false, "measure a few of each, within two minutes")
	rounds := flags.Int("rounds", 0, fmt.Sprintf("rounds of each group of candidates; there are %d groups, or %d with -short (default %d, or %d with -short)",
		fullPlan.groups, shortPlan.groups, fullPlan.rounds, shortPlan.rounds))
	out := flags.String("out", "", "directory for "+reportFile+" and its plots (default docs, or none with -short)")
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
	built, err := buildSidecars(ctx, cfg.root)
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, built.remove()) }()
	cluster, err := embedded.Start(ctx, embedded.Config{Progress: progress})
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
	l := &lab{plan: cfg.plan, base: cluster.RESTConfig(), client: cluster.Client(), progress: progress}
	if found, err = l.measure(ctx, built); err != nil {
		return found, err
	}
	found.machine = where
	if cfg.out == "" {
		return found, nil
	}
	return found, found.write(cfg.out)
}
