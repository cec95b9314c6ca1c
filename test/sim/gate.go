package sim

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/gate"
)

// A wrapper is what stands before a pod's application: the real one's machine over a
// virtual lock file, with a child that takes its time to end, or does not end at all
// when it is told to. It outlives the sidecar's processes, as its container does.
//
// The oracle is that no two children live at a time. A child on a machine that is
// suspended, or in a container that is frozen as a whole, does nothing, and is found
// dead milliseconds after that goes on.
type wrapper struct {
	pod   *pod
	id    uint64
	alarm elector.Alarm
	wake  chan struct{}
	gone  chan struct{} // closed when the pod is

	machine *gate.Machine
	child   *child
	runs    int           // children that were started
	thawed  chan struct{} // closed when it goes on; nil while it is not frozen
	whole   bool          // the child is frozen with it
	went    time.Time     // when it went on
	dead    bool          // it has ended, and was not started again yet
	over    bool          // it is not started again
}

// child is one run of the application.
type child struct {
	started time.Time
	spoilt  string // the documented limit by which another may run beside it
	ends    bool   // it has been told to end, and will
}

// gateTimes are a gate's settings beside a candidate's, in the proportions of the default
// ones.
func gateTimes(s elector.Settings) (stopGrace, leastClaim time.Duration) {
	stopGrace = s.RenewDeadline / 5
	return stopGrace, stopGrace + s.RenewDeadline/3 + s.RetryPeriod
}

// addGate puts a gate before p. The caller holds mu.
func (w *world) addGate(p *pod) {
	w.podCount++
	alarm, err := p.node.NewAlarm()
	if err != nil {
		panic(err)
	}
	g := &wrapper{pod: p, id: w.podCount, alarm: alarm, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	g.machine = gate.NewMachine(gateTimes(p.settings))
	p.gate = g
	w.tasks.Go(g.run)
}

// configure gives a gate that is closed the settings that its candidate has now. The
// caller holds mu.
func (g *wrapper) configure() {
	if g != nil && !g.machine.Open() {
		g.machine = gate.NewMachine(gateTimes(g.pod.settings))
	}
}

// run is the wrapper's loop, over all its container's restarts.
func (g *wrapper) run() {
	defer g.alarm.Close()
	for {
		select {
		case <-g.gone:
			return
		case <-g.alarm.C():
		case <-g.wake:
		}
		g.pod.node.waitAwake(g.id)
		g.awaitThaw()
		g.turn()
	}
}

// poke wakes it, as a change in the status directory does.
func (g *wrapper) poke() {
	if g == nil {
		return
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *wrapper) awaitThaw() {
	w := g.pod.w
	w.mu.Lock()
	thawed := g.thawed
	w.mu.Unlock()
	if thawed != nil {
		select {
		case <-thawed:
		case <-g.gone:
		}
	}
}

// look is what gate.Look reads.
func (p *pod) look() gate.Sight {
	s := p.last
	switch {
	case s == nil:
	case p.file != nil && s.Role == elector.RoleLeader && s.ValidUntilBoottime != nil:
		return gate.Sight{Token: s.FencingToken, Until: time.Duration(*s.ValidUntilBoottime) * time.Millisecond}
	case s.Role == elector.RoleStandby && s.HeldUntilBoottime != nil:
		return gate.Sight{Until: time.Duration(*s.HeldUntilBoottime) * time.Millisecond}
	}
	return gate.Sight{}
}

// turn does what the machine wants, as the wrapper's loop does.
func (g *wrapper) turn() {
	p, w := g.pod, g.pod.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for !g.dead && !p.deleted && g.thawed == nil && !p.node.suspended() {
		g.machine.See(p.look(), p.node.Now())
		action, at := g.machine.Next(p.node.Now())
		switch action {
		case gate.Wait:
			g.alarm.Set(min(at, p.node.Now()+24*time.Hour))
			return
		case gate.Lock:
			g.machine.Locked()
		case gate.Unlock:
			g.machine.Unlocked()
		case gate.Start:
			g.machine.Started()
			g.start()
		case gate.Terminate:
			g.machine.Terminated()
			g.tell("by its gate")
		case gate.Kill:
			g.machine.Killed()
			g.end("is killed by its gate")
		}
	}
}

// start starts a child, which may end by itself some time.
func (g *wrapper) start() {
	p, w := g.pod, g.pod.w
	g.runs++
	c := &child{started: time.Now()}
	g.child = c
	w.gated++
	w.note("%s: the application starts", p.identity())
	w.check()
	if d := g.dice("exit"); d.IntN(4) == 0 && !w.calmed {
		g.later(time.Duration(d.Int64N(int64(4*p.settings.LeaseDuration))), c, byItself)
	}
}

// byItself is how a child ends that nobody told to.
const byItself = "ends by itself"

// tell tells the child to end, which it does after a while, or not at all.
func (g *wrapper) tell(how string) {
	p, c := g.pod, g.child
	if c == nil || c.ends {
		return
	}
	c.ends = true
	p.w.note("%s: the application is told to end, %s", p.identity(), how)
	if d := g.dice("end"); d.IntN(4) > 0 {
		g.later(time.Duration(d.Int64N(int64(2*p.settings.RenewDeadline))), c, "ends")
	}
}

// later ends a child after a while of its machine's being awake.
func (g *wrapper) later(d time.Duration, c *child, how string) {
	p, w := g.pod, g.pod.w
	w.tasks.Go(func() {
		time.Sleep(d)
		p.node.waitAwake(g.id + 1<<32)
		w.mu.Lock()
		defer w.mu.Unlock()
		if g.child == c && (how != byItself || !w.calmed) {
			g.end(how)
		}
	})
}

// end is the end of the child and of all that it started, and so of its wrapper. The
// kubelet starts the container again.
func (g *wrapper) end(how string) {
	p, w := g.pod, g.pod.w
	if g.child != nil {
		w.note("%s: the application %s", p.identity(), how)
	}
	g.child, g.dead = nil, true
	w.tasks.Go(func() {
		time.Sleep(time.Duration(g.dice("restart").Int64N(int64(10 * time.Second))))
		p.node.waitAwake(g.id + 2<<32)
		w.mu.Lock()
		g.dead = g.over
		g.machine = gate.NewMachine(gateTimes(p.settings))
		w.mu.Unlock()
		g.poke()
	})
	if how == byItself && p.process != nil {
		proc := p.process
		w.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if p.node.awake(ctx, g.id+3<<32) {
				_, _ = proc.e.Yield(ctx)
			}
		})
	}
}

// dice are its own chances, whatever else happens at that time.
func (g *wrapper) dice(what string) *rand.Rand {
	d := uint64(len(what))
	for _, c := range what {
		d = d*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(g.pod.w.seed^g.id<<20, d<<32|uint64(g.runs)))
}

// held tells whether anybody has the lock on the gate's file.
func (g *wrapper) held() bool { return g != nil && g.child != nil }

// lockPoll is how often a sidecar looks whether the file's lock is free.
const lockPoll = 10 * time.Millisecond

// begin is the sidecar's main beside a gate: what an earlier process claimed is
// withdrawn, and then the child that may live of it is waited for.
func (proc *process) begin(ctx context.Context, run func(context.Context) error) error {
	p, w := proc.pod, proc.pod.w
	if p.gate != nil {
		if err := proc.announce(proc.e.Status()); err != nil { //nolint:contextcheck // it does not wait
			return err
		}
		proc.awaitFree(ctx)
		w.mu.Lock()
		proc.waits, p.troubled = false, time.Now()
		w.mu.Unlock()
	}
	return run(ctx)
}

// awaitFree is what a sidecar does before it contends, and when a claim has ended: it
// waits until the file's lock is free. It returns early when the process is killed, or
// ctx ends.
func (proc *process) awaitFree(ctx context.Context) {
	p, w := proc.pod, proc.pod.w
	for {
		p.node.waitAwake(proc.link.dice("lock", 0).id) //nolint:contextcheck // a suspended machine learns of nothing
		w.mu.Lock()
		over := proc.dead || p.deleted || !p.gate.held()
		w.mu.Unlock()
		if over || !sleep(ctx, lockPoll) {
			return
		}
	}
}

// gated is the OnStartedLeading of a sidecar beside a gate.
func (proc *process) gated(ctx context.Context) {
	proc.pod.w.tasks.Add(1)
	defer proc.pod.w.tasks.Done()
	<-ctx.Done()
	proc.awaitFree(context.Background()) //nolint:contextcheck // its context has ended, and the child lives
}

// closeGate ends the gate's loop with its pod, and whatever is left of it. The caller
// holds mu.
func (p *pod) closeGate() {
	g := p.gate
	if g == nil {
		return
	}
	g.child, g.over = nil, true
	select {
	case <-g.gone:
	default:
		close(g.gone)
	}
}

// stopGate is what a kubelet does first with a pod: it tells the application to end, and
// kills it when its grace is over.
func (w *world) stopGate(p *pod) {
	w.mu.Lock()
	g := p.gate
	if g == nil || g.child == nil {
		w.mu.Unlock()
		return
	}
	g.over = true
	g.machine.Signalled()
	g.tell("by the kubelet")
	w.mu.Unlock()
	for end := time.Now().Add(workGrace); time.Now().Before(end) && g.lives(); {
		time.Sleep(lockPoll)
	}
	p.node.waitAwake(g.id + 4<<32)
	w.mu.Lock()
	defer w.mu.Unlock()
	if g.child != nil {
		g.end("is killed by the kubelet")
	}
}

func (g *wrapper) lives() bool {
	g.pod.w.mu.Lock()
	defer g.pod.w.mu.Unlock()
	return g.child != nil
}

// freeze freezes a wrapper for a while: alone, or with all that is in its container.
func (w *world) freezeGate(p *pod) bool {
	d, whole := w.pause(), w.rng.IntN(2) == 0
	w.mu.Lock()
	defer w.mu.Unlock()
	g := p.gate
	if g == nil || g.thawed != nil || p.deleted {
		return false
	}
	w.note("%s: its gate is frozen for %v, with the application: %v", p.identity(), d, whole)
	thawed := make(chan struct{})
	g.thawed, g.whole = thawed, whole
	w.troubles.Go(func() {
		time.Sleep(d)
		w.mu.Lock()
		g.thawed, g.went = nil, time.Now()
		close(thawed)
		w.mu.Unlock()
		g.poke()
	})
	return true
}

// killGate kills a wrapper, and so all of its container.
func (w *world) killGate(p *pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.gate == nil || p.gate.dead || p.deleted || p.node.suspended() {
		return false
	}
	p.gate.end("is killed with its gate")
	return true
}

// spoil notes that another child may run beside the one that lives, by a documented
// limit.
func (g *wrapper) spoil(why string) {
	if g.held() && g.child.spoilt == "" {
		g.child.spoilt = why
	}
}

// acts tells whether the gate's child lives, and can do something.
func (g *wrapper) acts() bool {
	if g == nil || g.child == nil || g.pod.deleted || !g.pod.node.up() {
		return false
	}
	if g.thawed != nil {
		return !g.whole
	}
	return time.Since(g.went) > stampCut // it is found dead in a moment, if it has to be
}

// checkChildren looks for two children that live at a time.
func (w *world) checkChildren(before map[string]bool) {
	var acting []*wrapper
	for _, p := range w.pods {
		if p.gate.acts() {
			acting = append(acting, p.gate)
		}
	}
	for i, g := range acting {
		for _, other := range acting[:i] {
			switch why := w.limitOf(other.pod, g.pod); {
			case why == "" && w.features["gates"]:
				w.violate("the applications of %s and %s run at a time", other.pod.identity(), g.pod.identity())
			case why == "":
				w.excuseOverlap("gates are not checked", other.pod, g.pod, before)
			default:
				w.excuseOverlap("applications behind gates, and "+why, other.pod, g.pod, before)
			}
		}
	}
}

// limitOf is the documented limit by which the children of two pods may run at a time.
func (w *world) limitOf(p, q *pod) string {
	for _, g := range []*wrapper{p.gate, q.gate} {
		switch {
		case g.child.spoilt != "":
			return g.child.spoilt
		case g.thawed != nil:
			return "a gate is frozen while its application runs on"
		case w.twinOf(g.pod) != nil:
			return "a twin"
		}
	}
	return w.limit(p, q)
}
