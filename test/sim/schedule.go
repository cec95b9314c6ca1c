package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/elector-io/elector/elector"
)

// timings are the settings that schedules draw from.
var timings = [][3]time.Duration{
	{15 * time.Second, 10 * time.Second, 2 * time.Second},
	{6 * time.Second, 4 * time.Second, time.Second},
	{3 * time.Second, 2 * time.Second, 500 * time.Millisecond},
	{20 * time.Second, 5 * time.Second, 1 * time.Second},
}

// Result is what one schedule showed.
type Result struct {
	Seed       uint64
	Virtual    time.Duration
	Claims     int
	Violations []string
	Trace      []string
	Digest     string
}

// Run plays the schedule that seed describes. It must run in a synctest bubble.
func Run(seed uint64) Result {
	rng := rand.New(rand.NewPCG(seed, 1))
	timing := timings[rng.IntN(len(timings))]
	mode := elector.ModeLease
	if rng.IntN(2) == 0 {
		mode = elector.ModeLeaderForLife
	}
	w := newWorld(seed, rng, elector.Settings{
		Lock: lockName, Mode: mode, LeaseDuration: timing[0], RenewDeadline: timing[1], RetryPeriod: timing[2],
	})
	// Clocks may differ by less than lease-duration / renew-deadline.
	spread := float64(timing[0]) / float64(timing[1]) * 0.999
	candidates := 2 + rng.IntN(6)
	w.note("seed %d: %s, %v, %d candidates", seed, w.settings.Mode, timing, candidates)
	for i := range candidates {
		n := newNode(1 + rng.Float64()*(spread-1))
		w.startProcess(w.addPod(fmt.Sprintf("web-%d", i), n))
	}
	stopChecks := w.checkOften()
	end := time.Now().Add(2*time.Minute + time.Duration(rng.Int64N(int64(2*time.Minute))))
	for time.Now().Before(end) {
		time.Sleep(time.Duration(rng.Int64N(int64(4 * time.Second))))
		w.fault()
	}
	w.calm()
	w.finish()
	stopChecks()
	w.tasks.Wait()
	return Result{
		Seed: seed, Virtual: time.Since(w.start), Claims: w.claims,
		Violations: w.violations, Trace: w.trace, Digest: w.digest(),
	}
}

// checkOften checks the claims between events too, until the returned function
// is called.
func (w *world) checkOften() (stop func()) {
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(49 * time.Millisecond):
			}
			w.mu.Lock()
			w.check()
			w.mu.Unlock()
		}
	}()
	return func() { close(done); <-ended }
}

func (w *world) anyPod() *pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rng.IntN(2) == 0 { // the leader is where it hurts
		for _, p := range w.pods {
			if p.file != nil {
				return p
			}
		}
	}
	if len(w.pods) == 0 {
		return nil
	}
	return w.pods[w.rng.IntN(len(w.pods))]
}

// disturb changes the faults of a process's link for a while.
func (w *world) disturb(p *pod, what string, set func(*faults)) {
	w.mu.Lock()
	proc := p.process
	if proc == nil {
		w.mu.Unlock()
		return
	}
	d := time.Duration(w.rng.Int64N(int64(2 * w.settings.LeaseDuration)))
	w.note("%s: %s for %v", p.identity(), what, d)
	w.mu.Unlock()
	proc.link.mu.Lock()
	set(&proc.link.faults)
	proc.link.mu.Unlock()
	w.troubles.Go(func() {
		time.Sleep(d)
		proc.link.mu.Lock()
		proc.link.faults = faults{}
		proc.link.mu.Unlock()
	})
}

// fault does one bad thing.
func (w *world) fault() {
	p := w.anyPod()
	if p == nil {
		return
	}
	r := w.rng
	switch r.IntN(18) {
	case 0:
		w.disturb(p, "cut both ways", func(f *faults) { f.cutOut, f.cutIn = true, true })
	case 1:
		w.disturb(p, "requests lost", func(f *faults) { f.cutOut = true })
	case 2:
		w.disturb(p, "answers lost", func(f *faults) { f.cutIn = true })
	case 3:
		share := r.Float64()
		w.disturb(p, "some answers lost", func(f *faults) { f.lossy = share })
	case 4:
		slow := time.Duration(r.Int64N(int64(2 * w.settings.RenewDeadline)))
		w.disturb(p, fmt.Sprintf("slow by %v", slow), func(f *faults) { f.slow = slow })
	case 5:
		share := r.Float64()
		w.disturb(p, "errors", func(f *faults) { f.errorShare = share })
	case 6:
		w.disturb(p, "watch stalls", func(f *faults) { f.stall = true })
	case 7:
		w.disturb(p, "watch repeats", func(f *faults) { f.repeat = true })
	case 8:
		lag := time.Duration(r.Int64N(int64(w.settings.LeaseDuration)))
		w.disturb(p, fmt.Sprintf("watch lags %v", lag), func(f *faults) { f.lag = lag })
	case 9:
		if proc := p.process; proc != nil {
			w.note("%s: watches break", p.identity())
			proc.link.breakWatches()
		}
	case 10:
		w.mu.Lock()
		w.note("compaction")
		w.api.compact()
		for _, q := range w.pods {
			if q.process != nil {
				q.process.link.breakWatches()
			}
		}
		w.mu.Unlock()
	case 11:
		pause := w.pause()
		w.kill(p)
		w.troubles.Go(func() { w.restart(p, pause) })
	case 12:
		pause := w.pause()
		w.troubles.Go(func() { w.terminate(p); w.restart(p, pause) })
	case 13:
		w.replacePod(p, r.IntN(2) == 0)
	case 14:
		w.suspend(p.node)
	case 15:
		w.editLock()
	case 16:
		w.resign(p)
	case 17:
		for _, q := range w.allPods() {
			w.disturb(q, "outage", func(f *faults) { f.cutOut = true })
		}
	}
}

func (w *world) allPods() []*pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*pod(nil), w.pods...)
}

// pause is how long something takes that takes a while.
func (w *world) pause() time.Duration {
	return time.Duration(w.rng.Int64N(int64(w.settings.LeaseDuration)))
}

// restart is the kubelet's restart of a container in the same Pod, after a pause.
func (w *world) restart(p *pod, pause time.Duration) {
	time.Sleep(pause)
	w.mu.Lock()
	again := !p.deleted && p.process == nil
	w.mu.Unlock()
	if again {
		w.startProcess(p)
	}
}

// replacePod deletes p and makes another of the same name, as a StatefulSet does.
func (w *world) replacePod(p *pod, graceful bool) {
	d := w.pause()
	w.troubles.Go(func() {
		w.mu.Lock()
		gone := p.deleted || p.node.suspended()
		p.deleted = p.deleted || !gone && !graceful
		w.mu.Unlock()
		if gone {
			return
		}
		w.deletePod(p, graceful)
		time.Sleep(d)
		w.startProcess(w.addPod(p.name, p.node))
	})
}

func (w *world) suspend(n *node) {
	d := time.Duration(w.rng.Int64N(int64(2 * w.settings.LeaseDuration)))
	w.note("a machine is suspended for %v", d)
	n.suspend()
	w.troubles.Go(func() {
		time.Sleep(d)
		n.resume()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.note("a machine wakes")
		w.check()
	})
}

func (w *world) resign(p *pod) {
	w.mu.Lock()
	proc := p.process
	w.note("%s resigns", p.identity())
	w.mu.Unlock()
	if proc == nil {
		return
	}
	w.troubles.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = proc.e.Resign(ctx)
	})
}

// editLock is a person with kubectl.
func (w *world) editLock() {
	w.mu.Lock()
	defer w.mu.Unlock()
	resource := map[elector.Mode]string{elector.ModeLease: "leases", elector.ModeLeaderForLife: "configmaps"}[w.settings.Mode]
	o := w.api.objects[resource+"/"+lockName]
	if o == nil {
		return
	}
	o = o.clone()
	what := w.rng.IntN(4)
	if what != 0 {
		w.erase()
	}
	switch what {
	case 0:
		w.note("the lock is labelled by hand")
		o.metadata()["labels"] = map[string]any{"app.kubernetes.io/managed-by": "elector", "seen-by": "human"}
		_, _ = w.api.update(resource, lockName, o)
	case 1:
		w.note("the lock is deleted by hand")
		_ = w.api.remove(resource, lockName, "", "")
	case 2:
		w.note("the holder is erased by hand")
		if spec, ok := o["spec"].(map[string]any); ok {
			spec["holderIdentity"] = ""
		}
		o.metadata()["ownerReferences"] = nil
		_, _ = w.api.update(resource, lockName, o)
	case 3:
		w.note("the holder is replaced by hand")
		if spec, ok := o["spec"].(map[string]any); ok {
			spec["holderIdentity"] = "human"
		}
		if w.settings.Mode == elector.ModeLeaderForLife {
			w.api.pods["human"] = true
			o.metadata()["ownerReferences"] = []any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "human", "uid": "human"}}
		}
		_, _ = w.api.update(resource, lockName, o)
	}
}

// calm ends all faults and gives every pod a process.
func (w *world) calm() {
	w.troubles.Wait() // every fault ends by itself
	w.mu.Lock()
	delete(w.api.pods, "human")
	w.api.collect()
	w.note("calm")
	w.mu.Unlock()
	for _, p := range w.allPods() {
		if p.process == nil {
			w.startProcess(p)
		}
	}
}

// Recovery is how long after the last fault a leader has to exist: a lease of the
// slowest clock, the resigner's holding back, and the longest pauses between
// tries of a reader and a writer.
func recovery(s elector.Settings) time.Duration {
	return 3*s.LeaseDuration + 12*s.RetryPeriod + 10*time.Second
}

// finish checks that a leader emerges and stays, that standbys rest, and that
// everybody leaves properly.
func (w *world) finish() {
	time.Sleep(recovery(w.settings))
	leader := w.soleLeader("after recovery")
	before := map[*pod]int{}
	for _, p := range w.allPods() {
		before[p] = p.process.link.sent()
	}
	const rest = 4 * time.Minute
	time.Sleep(rest)
	if again := w.soleLeader("at rest"); again != leader {
		w.mu.Lock()
		w.violate("the leader changed at rest")
		w.mu.Unlock()
	}
	for _, p := range w.allPods() {
		sent := p.process.link.sent() - before[p]
		if p != leader && sent > 2 { // a watch may reach the end of its time, and is begun anew
			w.mu.Lock()
			w.violate("%s sent %d requests while standing by", p.identity(), sent)
			w.mu.Unlock()
		}
	}
	for _, p := range w.allPods() {
		w.terminate(p)
	}
}

func (w *world) soleLeader(when string) *pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var leaders []*pod
	for _, p := range w.pods {
		if p.claimsNow() && p.process.e.IsLeader() {
			leaders = append(leaders, p)
		}
	}
	if len(leaders) != 1 {
		w.violate("%d leaders %s", len(leaders), when)
		return nil
	}
	return leaders[0]
}

// sent counts the requests of the link.
func (l *link) sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for _, n := range l.requests {
		total += n
	}
	return total
}
