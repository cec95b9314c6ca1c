package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"k8s.io/klog/v2"

	"github.com/elector-io/elector/cmd/elector/internal/gatekeeper"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/gate"
)

// gateConfig is what a sidecar of a pod with containers behind the gate is told of
// it. Without a dir there are none.
type gateConfig struct {
	dir   string
	grace time.Duration
	spec  gate.Spec
	podIP string
}

// parseGate makes a gateConfig of the flags' values and the environment.
func parseGate(dir, grace string, getenv func(string) string) (cfg gateConfig, err error) {
	if dir == "" {
		return cfg, nil
	}
	cfg.dir, cfg.podIP = dir, getenv("POD_IP")
	if cfg.grace, err = time.ParseDuration(grace); err != nil || cfg.grace <= 0 {
		return cfg, &elector.FieldError{Field: "--" + gateGraceFlag, Value: grace, Allowed: "use a duration above 0s such as 30s"}
	}
	if text := getenv(gate.SpecEnv); text != "" {
		if err := json.Unmarshal([]byte(text), &cfg.spec); err != nil {
			return cfg, &elector.FieldError{Field: "$" + gate.SpecEnv, Value: text, Allowed: "it is JSON that the webhook writes"}
		}
	}
	return cfg, nil
}

// gated is the sidecar of a pod with containers behind the gate, or of none: then its
// methods do nothing.
type gated struct {
	cfg  gateConfig
	lock *gatekeeper.Lock
}

// open makes the gate's lock and brings the containers the wrapper that they begin
// with.
func (cfg gateConfig) open(statusDir string) (g gated, err error) {
	if cfg.dir == "" {
		return gated{}, nil
	}
	g.cfg = cfg
	if g.lock, err = gatekeeper.OpenLock(statusDir); err != nil {
		return gated{}, err
	}
	return g, gatekeeper.Install(cfg.dir)
}

// lead is OnStartedLeading, or nil. When the app ends by itself somebody else leads
// on, if there is anybody: its container may begin anew here as a standby.
func (g gated) lead(yield func(context.Context) (bool, error)) func(context.Context) {
	if g.lock == nil {
		return nil
	}
	return func(ctx context.Context) {
		g.lock.Guard(ctx, func() {
			yielded, err := yield(ctx)
			switch log := klog.FromContext(ctx); {
			case err != nil && ctx.Err() == nil:
				log.Error(err, "leading on though the app has ended")
			case err == nil:
				log.Info("the app has ended", "handedOver", yielded)
			}
		})
	}
}

// await waits until nothing lives any more that was started in an earlier process'
// claim, or ctx ends. Before, the lock must be neither renewed nor taken: nobody could
// say for whom.
func (g gated) await(ctx context.Context) {
	if g.lock == nil || !g.lock.Held() {
		return
	}
	klog.FromContext(ctx).Info("waiting for the end of what an earlier claim started")
	g.lock.AwaitFree(ctx)
}

// health adds what the kubelet asks of containers behind the gate to the handler of the health port.
func (g gated) health(e *elector.Elector) http.Handler {
	rest := elector.HealthHandler(e)
	if g.lock == nil {
		return rest
	}
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	mux.Handle("GET /gate/{container}/{probe}", gatekeeper.NewProbes(g.cfg.spec, g.cfg.podIP, g.lock.Held, func() uint64 { return e.Status().FencingToken }))
	return mux
}

const (
	gateDirFlag   = "gate-dir"
	gateGraceFlag = "gate-grace"
)
