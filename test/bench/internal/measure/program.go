package measure

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/elector-io/elector/test/embedded"
)

// Program is a program that measures by a plan, with the flags -short, -rounds, -out and -check.
type Program[P any] struct {
	// Name is what it is called in messages.
	Name string
	// ShortHelp, RoundsHelp and OutHelp are the help of these flags.
	ShortHelp, RoundsHelp, OutHelp string
	// Full is the plan, and Short the one of -short.
	Full, Short P
	// SetRounds is for -rounds.
	SetRounds func(*P, int)
	// Run measures.
	Run func(ctx context.Context, o Options[P], progress io.Writer) (Page, error)
}

// Options is what the flags say.
type Options[P any] struct {
	Root string // of the repository
	Plan P

	out   string // empty: no page
	check bool
}

// ErrMissed is what -check says.
var ErrMissed = errors.New("targets were missed")

var errUsage = errors.New("bad usage")

// Main is the program without the process around it. It ends at SIGINT and SIGTERM, too.
func (p Program[P]) Main(args []string, stdout, stderr io.Writer) (exitCode int) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	err := p.run(ctx, args, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		exitCode = 2
	default:
		exitCode = 1
	}
	fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
	return exitCode
}

func (p Program[P]) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root, err := embedded.Root()
	if err != nil {
		return err
	}
	o, err := p.parse(args, root, stderr)
	if err != nil {
		return err
	}
	found, err := p.Run(ctx, o, stderr)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := found.Write(o.out); err != nil {
			return err
		}
	}
	if err := found.WriteTable(stdout); err != nil {
		return err
	}
	if o.check {
		return found.Check()
	}
	return nil
}

func (p Program[P]) parse(args []string, root string, stderr io.Writer) (Options[P], error) {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	short := flags.Bool("short", false, p.ShortHelp)
	rounds := flags.Int("rounds", 0, p.RoundsHelp)
	out := flags.String("out", "", p.OutHelp)
	check := flags.Bool("check", false, "fail when a target is missed")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return Options[P]{}, err
	} else if err != nil {
		return Options[P]{}, fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 || *rounds < 0 {
		return Options[P]{}, fmt.Errorf("%w: -rounds must be a positive number, and only flags are allowed", errUsage)
	}
	o := Options[P]{Root: root, Plan: p.Full, out: *out, check: *check}
	if *short {
		o.Plan = p.Short
	} else if o.out == "" {
		o.out = filepath.Join(root, "docs")
	}
	if *rounds > 0 {
		p.SetRounds(&o.Plan, *rounds)
	}
	return o, nil
}

// errClusterEnded is why everything stops when the cluster does.
var errClusterEnded = errors.New("the cluster has ended")

// OnCluster measures on a cluster of its own; do's context ends with it, too. It notes Kubernetes' version in where.
func OnCluster(ctx context.Context, cfg embedded.Config, where *Machine, do func(context.Context, *embedded.Cluster) error) (err error) {
	cluster, err := embedded.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	version, err := cluster.Client().Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("asking for Kubernetes' version: %w", err)
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
	return do(ctx, cluster)
}
