package gatekeeper

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/elector-io/elector/elector/gate"
)

// Probes answers what the kubelet asks of containers behind the gate:
//
//	GET /gate/CONTAINER/startup    200 if the gate is closed, else as the container answers
//	GET /gate/CONTAINER/liveness   the same, but 200 until it has started, or had the time for it
//	GET /gate/CONTAINER/readiness  200 if the gate is closed, else as the container answers
//	GET /gate/CONTAINER/prestop    the same
//
// Standbys are ready by that, so that rollouts and disruption budgets work. The
// kubelet asks for the start of a container once, which is over when the gate opens;
// the start that counts comes later, and liveness has to wait for it here.
//
// Everybody in the cluster may ask, as they may ask the containers themselves. They
// get no more than the kubelet: a status, and in words why. Those who ask the same at
// the same time get one answer.
type Probes struct {
	by    func(context.Context, *gate.Probe) error
	held  func() bool
	token func() uint64
	each  map[string]*container
	one   singleflight.Group
}

// container is one behind the gate, and how far its start is.
type container struct {
	spec gate.Container

	mu      sync.Mutex
	token   uint64    // of the claim that it was started in
	opened  time.Time // when that was noticed
	asked   time.Time // when its startup was asked for last
	started bool
}

// NewProbes answers for the containers of spec. podIP is what is asked where a probe
// names no host. held tells whether the gate is open, and token is that of the claim,
// or 0.
func NewProbes(spec gate.Spec, podIP string, held func() bool, token func() uint64) *Probes {
	p := &Probes{by: newAsker(podIP).ask, held: held, token: token, each: map[string]*container{}}
	for name, c := range spec.Containers {
		p.each[name] = &container{spec: c}
	}
	return p
}

// ServeHTTP answers one of the paths above.
func (p *Probes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := p.each[r.PathValue("container")]
	if c == nil {
		http.Error(w, "no container of this name is behind the gate", http.StatusNotFound)
		return
	}
	var ask func(context.Context) error
	switch r.PathValue("probe") {
	case "startup":
		ask = func(ctx context.Context) error { return p.by(ctx, c.spec.Startup) }
	case "liveness":
		ask = func(ctx context.Context) error { return p.alive(ctx, c) }
	case "readiness":
		ask = func(ctx context.Context) error { return p.by(ctx, c.spec.Readiness) }
	case "prestop":
		ask = func(ctx context.Context) error { return p.by(ctx, c.spec.PreStop) }
	default:
		http.Error(w, "there are startup, liveness, readiness and prestop", http.StatusNotFound)
		return
	}
	if !p.held() {
		_, _ = fmt.Fprintln(w, "the gate is closed")
		return
	}
	ctx := context.WithoutCancel(r.Context()) // others may wait for the answer, too
	answer := p.one.DoChan(r.URL.Path, func() (any, error) { return nil, ask(ctx) })
	select {
	case result := <-answer:
		if result.Err != nil {
			http.Error(w, fmt.Sprintf("%.300s", result.Err), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	case <-r.Context().Done():
	}
}

// alive is what a container's liveness is while the gate is open.
func (p *Probes) alive(ctx context.Context, c *container) error {
	if p.starting(ctx, c) {
		return nil
	}
	return p.by(ctx, c.spec.Liveness)
}

// starting plays the startup probe, as far as it is due, and tells whether liveness has
// to wait for it.
func (p *Probes) starting(ctx context.Context, c *container) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, startup := time.Now(), c.spec.Startup
	if token := p.token(); token != 0 && token != c.token {
		c.token, c.opened, c.asked, c.started = token, now, time.Time{}, startup == nil
	}
	if c.started || startup == nil {
		return false
	}
	budget := milliseconds(startup.InitialDelay + startup.Period*startup.FailureThreshold)
	switch {
	case now.Sub(c.opened) >= budget:
		c.started = true // or it never does: what liveness says counts
	case now.Sub(c.opened) < milliseconds(startup.InitialDelay), now.Sub(c.asked) < milliseconds(startup.Period), !startup.Asks():
	default:
		c.asked = now
		c.started = p.by(ctx, startup) == nil
	}
	return !c.started
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
