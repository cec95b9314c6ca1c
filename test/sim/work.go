package sim

import (
	"context"
	"slices"
	"time"
)

// work is what an application does while it leads, from the beginning of
// OnStartedLeading until that returns.
type work struct {
	proc    *process
	planned bool      // its end was asked for: by SIGTERM, or by resigning
	asked   time.Time // when its context ended; zero before
	spoilt  string    // why the end is not a planned one any more
	done    chan struct{}
}

// workGrace is how long work may go on after its end was asked for: what a kubelet
// gives by default.
const workGrace = 30 * time.Second

// work is an OnStartedLeading that takes its time to return.
func (proc *process) work(ctx context.Context) {
	w := proc.pod.w
	w.tasks.Add(1)
	defer w.tasks.Done()
	k := &work{proc: proc, done: make(chan struct{})}
	defer close(k.done)
	w.mu.Lock()
	if proc.dead {
		w.mu.Unlock()
		return
	}
	w.works = append(w.works, k)
	w.worked++
	d := proc.link.dice("work", w.worked)
	pause := d.between(0, 2*proc.pod.settings.RenewDeadline)
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	k.asked = time.Now()
	// Resign returns at the instant at which the work's context ends.
	k.planned = proc.leaving || proc.resigns > 0 || time.Now().Equal(proc.pod.resigned)
	switch {
	case proc.pod.troubles > 0 || proc.untold:
		k.spoilt = "something else was wrong with it"
	case len(proc.pod.erased) > 0:
		k.spoilt = "the lock was taken away meanwhile"
	}
	w.mu.Unlock()
	time.Sleep(pause)
	proc.pod.node.waitAwake(d.id) //nolint:contextcheck // a suspended machine learns of nothing, not even that its work is over
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check()
	w.works = slices.DeleteFunc(w.works, func(other *work) bool { return other == k })
}

// awaitWork waits for what a process still does: its main does, too.
func (w *world) awaitWork(proc *process) {
	w.mu.Lock()
	works := slices.Clone(w.works)
	w.mu.Unlock()
	for _, k := range works {
		if k.proc == proc {
			<-k.done
		}
	}
}

// endWork ends the work of a process that was killed.
func (w *world) endWork(proc *process) {
	w.works = slices.DeleteFunc(w.works, func(k *work) bool { return k.proc == proc })
}

// spoilWork notes that a claim of p would have ended anyhow.
func (w *world) spoilWork(p *pod, why string) {
	for _, k := range w.works {
		if k.proc.pod == p && k.spoilt == "" {
			k.spoilt = why
		}
	}
}

// checkWork looks for work that goes on beside another leader's after its end was
// asked for.
func (w *world) checkWork(before map[string]bool) {
	for i, k := range w.works {
		for _, other := range w.works[:i] {
			p, q := other.proc.pod, k.proc.pod
			if other.asked.IsZero() || p == q || p.node.suspended() || q.node.suspended() {
				continue // two claims at once are for others to find
			}
			switch {
			case !other.planned:
				w.excuseOverlap("work after an unplanned end", p, q, before)
			case other.spoilt != "":
				w.excuseOverlap("slow work after a planned end, and "+other.spoilt, p, q, before)
			case time.Since(other.asked) > workGrace:
				w.excuseOverlap("work beyond the grace", p, q, before)
			case w.features["work"]:
				w.violate("the work of %s overlaps that of %s, whose end was planned", q.identity(), p.identity())
			default:
				w.excuseOverlap("rule 16 is not checked", p, q, before)
			}
		}
	}
}
