package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-io/elector/elector"
)

// peer is a candidate that runs client-go's LeaderElector on the same Lease.
type peer struct {
	w        *world
	identity string
	link     *link
	stop     func()
	starts   int
}

func (w *world) addPeer(t *testing.T, name string) *peer {
	w.mu.Lock()
	w.podCount++
	p := &peer{w: w, identity: name + "_client-go", link: newLink(w, &pod{node: newNode(1)}, w.podCount)}
	w.mu.Unlock()
	p.start(t)
	return p
}

func (p *peer) start(t *testing.T) {
	client, err := coordinationclient.NewForConfig(&rest.Config{
		Host: "http://api", Transport: p.link, QPS: -1, Timeout: 5 * time.Second,
		ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.stop = func() { cancel(); <-done }
	config := leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: lockName}, Client: client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: p.identity},
		},
		LeaseDuration: p.w.settings.LeaseDuration, RenewDeadline: p.w.settings.RenewDeadline, RetryPeriod: p.w.settings.RetryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				p.w.mu.Lock()
				defer p.w.mu.Unlock()
				p.starts++
				p.w.note("%s leads", p.identity)
			},
			OnStoppedLeading: func() {},
		},
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil { // Run is one-shot
			e, err := leaderelection.NewLeaderElector(config)
			if err != nil {
				t.Error(err)
				return
			}
			e.Run(ctx)
		}
	}()
}

// holdings watches every write of the Lease, as the API server applies it.
type holdings struct {
	w        *world
	holder   string
	written  map[string]time.Time // when each holder last wrote its own record
	ours     map[string]*pod
	erasures int
}

func (h *holdings) write(c change) {
	spec, _ := c.object["spec"].(map[string]any)
	holder, _ := spec["holderIdentity"].(string)
	now := time.Now()
	before := h.holder
	if p := h.ours[holder]; p != nil && before != "" && before != holder && h.ours[before] == nil {
		// One of ours replaces a client-go candidate that did not release.
		age := now.Sub(h.written[before])
		if lease := time.Duration(float64(h.w.settings.LeaseDuration) / p.node.rate); age < lease {
			h.w.violate("%s took the lease of %s %v after its renewal", holder, before, age)
		}
	}
	if p := h.ours[before]; p != nil && holder == "" && !h.releases(c) {
		// client-go erased the record of one of ours, which has to step down on sight;
		// those who knew it wait, but client-go's candidates do not.
		h.erasures++
		h.w.note("the record of %s is erased by client-go", before)
		h.w.erase()
	}
	if holder != "" {
		h.written[holder] = now
	}
	h.holder = holder
}

// releases tells whether a write without a holder is the release of ours.
func (h *holdings) releases(c change) bool {
	released, _ := c.object.claimNote()["released"].(bool)
	return released
}

// TestBesideClientGo mixes client-go's candidates in. Ours never claim beside
// each other, whatever client-go's do to the Lease, and never take the Lease from
// one of client-go's that has renewed it in time.
func TestBesideClientGo(t *testing.T) {
	var ours, theirs, erasures, schedules int
	for seed, end := *first, time.Now().Add(*soak/2); time.Now().Before(end); seed++ {
		schedules++
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			timing := timings[rng.IntN(3)]
			w := newWorld(seed, rng, elector.Settings{
				Lock: lockName, Mode: elector.ModeLease, LeaseDuration: timing[0], RenewDeadline: timing[1], RetryPeriod: timing[2],
			})
			h := &holdings{w: w, written: map[string]time.Time{}, ours: map[string]*pod{}}
			w.mu.Lock()
			w.api.onWrite = h.write
			w.mu.Unlock()
			for i := range 1 + rng.IntN(3) {
				p := w.addPod(fmt.Sprintf("web-%d", i), newNode(1))
				w.mu.Lock()
				h.ours[p.identity()] = p
				w.mu.Unlock()
				w.startProcess(p)
			}
			var peers []*peer
			for i := range 1 + rng.IntN(3) {
				peers = append(peers, w.addPeer(t, fmt.Sprintf("peer-%d", i)))
			}
			stopChecks := w.checkOften()
			for range 60 {
				time.Sleep(time.Duration(rng.Int64N(int64(4 * time.Second))))
				w.interopFault(t, peers)
			}
			w.troubles.Wait()
			time.Sleep(recovery(w.settings))
			for _, p := range peers {
				p.stop()
				w.mu.Lock()
				theirs += p.starts
				w.mu.Unlock()
			}
			time.Sleep(recovery(w.settings))
			if w.soleLeader("after client-go's candidates left") == nil {
				t.Error("ours do not take over from client-go's")
			}
			for _, p := range w.allPods() {
				w.terminate(p)
			}
			stopChecks()
			w.tasks.Wait()
			ours, erasures = ours+w.claims, erasures+h.erasures
			for _, v := range w.violations {
				t.Errorf("seed %d: %s", seed, v)
			}
			if len(w.violations) > 0 && *verbose {
				for _, line := range w.trace {
					t.Log(line)
				}
			}
		})
	}
	t.Logf("%d schedules, %d claims of ours, %d of client-go's, %d of our records erased by client-go", schedules, ours, theirs, erasures)
}

func (w *world) interopFault(t *testing.T, peers []*peer) {
	q := peers[w.rng.IntN(len(peers))]
	d := w.pause() * 2
	switch w.rng.IntN(4) {
	case 0:
		w.disturb(w.anyPod(), "cut both ways", func(f *faults) { f.cutOut, f.cutIn = true, true })
	case 1:
		p := w.anyPod()
		pause := w.pause()
		w.troubles.Go(func() { w.terminate(p); w.restart(p, pause) })
	case 2:
		w.say("%s is cut off for %v", q.identity, d)
		w.troubles.Go(func() { q.cut(true); time.Sleep(d); q.cut(false) })
	case 3: // the partition that heals just before the process ends
		w.say("%s is cut off for %v, then ends", q.identity, d)
		q.cut(true)
		time.Sleep(d)
		q.cut(false)
		q.stop()
		q.start(t)
	}
}

func (p *peer) cut(cut bool) {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	p.link.faults = faults{cutOut: cut, cutIn: cut}
}
