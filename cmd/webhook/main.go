// Command webhook is elector's manager: it adds the sidecar to pods that ask for
// it, lets their ServiceAccounts touch their locks, frees those of dead pods and
// labels the leaders. Admission runs in every replica; what writes runs in the one
// that elector itself elects.
package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/elector-io/elector/cmd/internal/program"
	"github.com/elector-io/elector/cmd/webhook/internal/admit"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(command(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }

// command is main without the process around it.
func command(args []string, getenv func(string) string, stdout, stderr io.Writer) (exitCode int) {
	if len(args) > 0 && args[0] == checkName {
		return checkCommand(args[1:], getenv, stdout, stderr)
	}
	return self().Main(args, getenv, stdout, stderr, func(v program.Values) (func(context.Context) error, error) {
		cfg, err := parse(v, getenv)
		return func(ctx context.Context) error {
			cfg.setUpLogging(stderr)
			cfg.limitMemory()
			return run(ctx, cfg)
		}, err
	})
}

// limitMemory makes the garbage collector work harder before the kernel ends the
// process: Go would let the heap double otherwise. A fifth of the container's
// memory is left for what Go does not count, sockets and the program's own pages.
func (c *config) limitMemory() {
	if limit := c.memoryLimit.Value(); limit > 0 {
		debug.SetMemoryLimit(limit / 5 * 4)
	}
}

// run works until ctx ends. Then it frees its lock at once, is not ready, goes
// on serving until API servers have found the other replicas, and answers what
// it has begun.
func run(ctx context.Context, cfg config) error {
	client, err := cfg.client()
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("starting", "version", version, "identity", cfg.identity)
	working, serving, end := phases(ctx, cfg.drain)
	defer end()
	registry := prometheus.NewRegistry()
	mgr, trusted, err := newManager(serving, client, registry, cfg)
	if err != nil {
		return err
	}
	reconcilers, err := newReconcilers(working, mgr, registry, cfg)
	if err != nil {
		return err
	}
	lock, err := kube.New(client, kube.Config{
		Candidate: elector.Description{Settings: cfg.election, Namespace: cfg.namespace, Identity: cfg.identity},
	})
	if err != nil {
		return err
	}
	candidate, err := newCandidate(lock, elector.StatusDir(cfg.statusDir), reconcilers...)
	if err != nil {
		return err
	}
	stopProbes, err := serveProbes(serving, cfg, healthHandler(
		map[string]healthz.Checker{"election": candidate.check},
		map[string]healthz.Checker{
			"draining":    func(*http.Request) error { return working.Err() },
			"certificate": shared(trusted),
		},
	), metricsHandler(prometheus.Gatherers{registry, metrics.Registry}))
	if err != nil {
		return err
	}
	defer stopProbes()

	server, limits := mgr.GetWebhookServer(), admit.NewLimits()
	server.Register("/mutate-pod", lastCalls(working, limits.Serve(admit.Pods(cfg.sidecar))))
	server.Register("/mutate-workload", lastCalls(working, limits.Serve(admit.Workloads(cfg.sidecar))))
	// The lock is freed at the signal, not after the drain.
	if err := mgr.Add(manager.RunnableFunc(func(managing context.Context) error {
		return candidate.run(managing, working.Done())
	})); err != nil {
		return err
	}
	return mgr.Start(serving)
}
