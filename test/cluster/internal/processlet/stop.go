package processlet

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
)

// minimumGrace is what every container gets, also a native sidecar whose pod's grace period is used up: the kubelet's own number.
const minimumGrace = 2 * time.Second

// stop is the way of a pod to its end. It is never undone.
type stop struct {
	deadline *deadline
	// reason and message make the pod Failed, whatever its containers say.
	reason, message string
	begun           bool
	done            bool
}

// deadline is a context that ends at a time which may be brought forward.
type deadline struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	at    time.Time
	timer *time.Timer
}

func newDeadline(parent context.Context, at time.Time) *deadline {
	d := &deadline{at: at}
	d.ctx, d.cancel = context.WithCancel(parent)
	d.timer = time.AfterFunc(time.Until(at), d.cancel)
	return d
}

// bringForward makes the deadline earlier. A later time changes nothing.
func (d *deadline) bringForward(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at.Before(d.at) {
		d.at = at
		d.timer.Reset(time.Until(at))
	}
}

// atLeast is a context that ends with the deadline, but not before a duration from now.
func (d *deadline) atLeast(parent context.Context, least time.Duration) (context.Context, context.CancelFunc) {
	d.mu.Lock()
	left := time.Until(d.at)
	d.mu.Unlock()
	if left >= least {
		return d.ctx, func() {}
	}
	return context.WithTimeout(parent, least)
}

func (p *pod) specGrace() time.Duration {
	if g := p.obj.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return v1.DefaultTerminationGracePeriodSeconds * time.Second
}

// considerStop ends the pod when its deletion is asked for, its time is up, or its work is done.
func (p *pod) considerStop() {
	if g := p.obj.DeletionGracePeriodSeconds; p.obj.DeletionTimestamp != nil && g != nil {
		p.beginStop(time.Duration(*g)*time.Second, "", "")
		return
	}
	if phase := p.obj.Status.Phase; phase == v1.PodSucceeded || phase == v1.PodFailed {
		// Somebody else ended it: the pod garbage collector, or a test that plays an eviction.
		p.beginStop(p.specGrace(), p.obj.Status.Reason, p.obj.Status.Message)
		return
	}
	if limit := p.obj.Spec.ActiveDeadlineSeconds; limit != nil {
		left := time.Until(p.startTime.Add(time.Duration(*limit) * time.Second))
		if left <= 0 {
			p.beginStop(p.specGrace(), "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
			return
		}
		p.wakeIn(left)
	}
	if p.complete() {
		p.beginStop(p.specGrace(), "", "")
	}
}

// complete tells that no app container will run again, or an init container has failed for good.
func (p *pod) complete() bool {
	apps := true
	for _, c := range p.containers {
		final := c.run != nil && c.run.exited && !c.starting && !p.restartable(c)
		if c.kind == initContainer && !p.initialized && final && !c.succeeded() {
			return true
		}
		if c.kind == app && !final {
			apps = false
		}
	}
	return apps && p.initialized
}

func (p *pod) beginStop(grace time.Duration, reason, message string) {
	p.stop = &stop{reason: reason, message: message, deadline: newDeadline(p.ctx, time.Now().Add(max(grace, minimumGrace)))}
}

// followStop carries a stop out, and shortens it when a deletion with less grace asks for that.
func (p *pod) followStop() {
	if at := p.obj.DeletionTimestamp; at != nil {
		// The timestamp has whole seconds; the grace period counted from here is what the kubelet goes by.
		if g := p.obj.DeletionGracePeriodSeconds; g != nil && !p.stop.done {
			p.stop.deadline.bringForward(time.Now().Add(max(time.Duration(*g)*time.Second, minimumGrace)))
		}
	}
	if p.stop.begun || p.starting() {
		return
	}
	p.stop.begun = true
	var first, sidecars []*run
	for _, c := range p.containers {
		switch {
		case !c.alive():
		case c.kind == sidecar:
			sidecars = append(sidecars, c.run)
		default:
			first = append(first, c.run)
		}
	}
	d := p.stop.deadline
	p.wg.Go(func() {
		p.stopAll(d, first, sidecars)
		p.post(func() { p.stop.done = true })
	})
}

func (p *pod) starting() bool {
	for _, c := range p.containers {
		if c.starting {
			return true
		}
	}
	return false
}

// stopAll stops the app containers together and then the native sidecars one by one, the last started first.
func (p *pod) stopAll(d *deadline, first, sidecars []*run) {
	var wg sync.WaitGroup
	for _, r := range first {
		wg.Go(func() { r.stop(d.ctx) })
	}
	wg.Wait()
	for _, r := range slices.Backward(sidecars) {
		ctx, cancel := d.atLeast(p.ctx, minimumGrace)
		r.stop(ctx)
		cancel()
	}
	d.timer.Stop()
	d.cancel()
}

// restart stops one container within a grace period; what its restart policy says happens after.
func (p *pod) restart(r *run, grace time.Duration) {
	p.wg.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, max(grace, minimumGrace))
		defer cancel()
		r.stop(ctx)
	})
}

// stop asks a run to end, after its preStop hook, and kills it when ctx ends. It returns when the run is over.
func (r *run) stop(ctx context.Context) {
	r.asked.Do(func() {
		r.pod.wg.Go(func() {
			if r.spec.Lifecycle != nil && r.spec.Lifecycle.PreStop != nil {
				// A hook that fails does not keep the container from being stopped.
				if err := r.hook(r.ctx, r.spec.Lifecycle.PreStop); err != nil && r.ctx.Err() == nil {
					r.pod.post(func() { r.pod.eventf(v1.EventTypeWarning, "FailedPreStopHook", "Container %s: %v", r.spec.Name, err) })
				}
			}
			r.awaitHandler()
			r.signal(syscall.SIGTERM)
		})
	})
	select {
	case <-r.proc.Done():
	case <-ctx.Done():
		r.kill()
		<-r.proc.Done()
	}
}

// A pod here is Running a few milliseconds after its creation, so a deletion can overtake the command on the way to its signal handler.
// The SIGTERM would be lost and the grace period waited out for nothing. So a process this young is given the time to install one.
const (
	youth       = time.Second
	handlerPoll = 5 * time.Millisecond
)

func (r *run) awaitHandler() {
	for time.Since(r.startedAt) < youth && !r.proc.Handles(syscall.SIGTERM) {
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(handlerPoll):
		}
	}
}

func (r *run) kill() { r.signal(syscall.SIGKILL) }

func (r *run) signal(s syscall.Signal) {
	if err := r.proc.Signal(s); err != nil {
		r.pod.logger.Error(err, "Signal not delivered", "container", r.spec.Name, "signal", s)
	}
}
