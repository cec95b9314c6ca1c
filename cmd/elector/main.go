// Command elector contends for one lock and tells the application beside it,
// by a file and over HTTP, whether it leads. It is the sidecar that the webhook
// injects, and works outside a cluster as well.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/elector-io/elector/cmd/internal/listen"
	"github.com/elector-io/elector/cmd/internal/program"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube/lock"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(command(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }

// command is main without the process around it.
func command(args []string, getenv func(string) string, stdout, stderr io.Writer) (exitCode int) {
	if len(args) > 0 && args[0] == "ready" {
		return ready.Main(args[1:], getenv, stdout, stderr, func(v program.Values) (func(context.Context) error, error) { return parseReady(v, getenv) })
	}
	return self.Main(args, getenv, stdout, stderr, func(v program.Values) (func(context.Context) error, error) {
		cfg, err := parse(v, getenv)
		return func(ctx context.Context) error {
			program.LogTo(stderr, cfg.logFormat == "json", cfg.verbosity)
			debug.SetGCPercent(gcPercent)
			runtime.GOMAXPROCS(min(maxProcs, runtime.NumCPU()))
			return run(ctx, cfg)
		}, err
	})
}

// run contends until ctx ends.
func run(ctx context.Context, cfg config) error {
	files := elector.StatusDir(cfg.statusDir)
	last, err := files.Withdraw() // before anything that may fail or take time
	if err != nil {
		return err
	}
	behind, err := cfg.gate.open(cfg.statusDir)
	if err != nil {
		return err
	}
	server, namespace, err := cfg.server()
	if err != nil {
		return err
	}
	metrics := new(elector.Metrics)
	candidate := elector.Description{Settings: cfg.settings, Namespace: namespace, Identity: cfg.identity}
	remote, err := lock.New(server, lock.Config{Candidate: candidate, OnRequest: metrics.Request})
	if err != nil {
		return err
	}
	var e *elector.Elector
	e, err = elector.New(elector.Config{
		Lock: remote, Last: last, Aside: aside(cfg.aside, last, candidate), Announce: files.Announce, Metrics: metrics, Grace: cfg.gate.grace, Unyielding: cfg.unyielding,
		Callbacks: elector.Callbacks{OnStartedLeading: behind.lead(func(ctx context.Context) (bool, error) { return e.Yield(ctx) })},
	})
	if err != nil {
		return err
	}
	if err := files.Announce(e.Status()); err != nil {
		return err
	}
	stopHealth, err := serve(ctx, "--health-address", cfg.healthAddress, behind.health(e))
	if err != nil {
		return err
	}
	defer stopHealth()
	// Last: once it answers, `elector ready` lets the app start, which finds a
	// status.json. The API server may be away, or be reached through a proxy that
	// starts with the app.
	stopApp, err := serve(ctx, "--http-address", cfg.httpAddress, elector.AppHandler(e))
	if err != nil {
		return err
	}
	defer stopApp()
	stopGivingBack := giveBackMemory()
	defer stopGivingBack()
	behind.await(ctx)
	return supervise(ctx, e, files)
}

// aside returns why the candidate must not contend: reason, unless an earlier
// process of this very candidate led. That one holds the lock, which in
// leader-for-life nobody else can take while its pod is there: it has to lead on,
// whatever became of the pod's label since. A copy has another UID, and its status
// directory is empty.
func aside(reason string, last *elector.Status, candidate elector.Description) string {
	if last == nil || last.Identity != candidate.Identity || last.Namespace != candidate.Namespace ||
		last.Lock != candidate.Settings.Lock || last.Mode != candidate.Settings.Mode {
		return reason
	}
	// One that was stopped in leader-for-life left the lock to its pod, as a standby.
	if last.Role == elector.RoleLeader || last.LockVersion != 0 {
		return ""
	}
	return reason
}

// gcPercent makes the garbage collector begin at a heap of 1.4 MB instead of 4: a
// candidate needs a quarter of that, and allocates so little that it costs nothing.
const gcPercent = 25

// maxProcs keeps the runtime from setting itself up for every core of a large
// node: there is work for a fraction of one, and each further one costs 0.2 MB.
const maxProcs = 1

// giveBackEvery is seldom enough to cost a leader a hundredth of its CPU time.
const giveBackEvery = 20 * time.Second

// giveBackMemory gives free memory back to the node every now and then, until stop
// is called. The runtime by itself lets the heap grow by 1 MB (a minimum that
// GOGC does not change) before it collects garbage, and keeps what it got then.
func giveBackMemory() (stop func()) {
	ticker := time.NewTicker(giveBackEvery)
	done := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() {
		for {
			select {
			case <-ticker.C:
				debug.FreeOSMemory()
			case <-done:
				return
			}
		}
	})
	return func() {
		ticker.Stop()
		close(done)
		working.Wait()
	}
}

// serve answers on the address that a flag gives until the returned function is
// called.
func serve(ctx context.Context, flagName, address string, handler http.Handler) (stop func(), err error) {
	stop, err = listen.Serve(ctx, address, handler, isStream)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", flagName, address, err)
	}
	return stop, nil
}

// isStream tells the one request of elector.AppHandler that is answered for as
// long as the client likes.
func isStream(r *http.Request) bool { return r.Method == http.MethodGet && r.URL.Path == "/events" }
