// Command demo shows the main job on the embedded cluster: a plain Deployment is annotated, one of its pods leads, the leader is
// deleted, a sidecar is killed; in both modes. It ends with an error if any of that does not happen, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/embedded"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	start := time.Now()
	err := run(ctx, os.Stdout)
	if ctx.Err() != nil {
		err = errors.Join(errors.New("interrupted; everything is stopped and removed"), err)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nThe demo took %.0f s. Everything is stopped and removed.\n", time.Since(start).Seconds())
}

// acts are the two modes, each with a Deployment of its own.
var acts = []act{
	{app: "web", mode: elector.ModeLease, kind: "lease", prefix: "lease.coordination.k8s.io/"},
	{app: "queue", mode: elector.ModeLeaderForLife, kind: "configmap", prefix: "configmap/"},
}

func run(ctx context.Context, out io.Writer) (err error) {
	fmt.Fprintln(out, "Starting a Kubernetes cluster on this machine, and installing elector with Helm:")
	cluster, err := embedded.Start(ctx, embedded.Config{Progress: out, Install: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	var results []result
	for _, a := range acts {
		fmt.Fprintf(out, "\n=== mode %s\n", a.mode)
		r, err := play(ctx, cluster, out, a)
		if err != nil {
			return fmt.Errorf("mode %s: %w", a.mode, err)
		}
		results = append(results, r)
	}
	summarize(out, results)
	return nil
}

// result is what one act measured.
type result struct {
	mode elector.Mode
	// deleted: from the deletion of the leader's pod; stopped: from the end of its app; free: from the release of the lock; each to the
	// moment in which the next leader's app leads. killed: from the end of the sidecar to the resumed claim.
	deleted, stopped, free, killed time.Duration
}

func summarize(out io.Writer, results []result) {
	row := func(title string, value func(result) time.Duration) {
		fmt.Fprintf(out, "%-58s", title)
		for _, r := range results {
			fmt.Fprintf(out, "%18s", value(r).Round(time.Millisecond))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "\n=== measured\n%-58s", "")
	for _, r := range results {
		fmt.Fprintf(out, "%18s", r.mode)
	}
	fmt.Fprintln(out)
	row("leader's pod deleted -> next leader's app leads (*)", func(r result) time.Duration { return r.deleted })
	row("leader's app ends    -> next leader's app leads (*)", func(r result) time.Duration { return r.stopped })
	row("lock free            -> next leader's app leads (*)", func(r result) time.Duration { return r.free })
	row("sidecar killed -> same leader, same fencing token", func(r result) time.Duration { return r.killed })
	fmt.Fprintln(out, "(*) the app looks every 20 ms")
}
