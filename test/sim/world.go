// Package sim runs the real election engine and the real locks over a simulated
// API server, network, clocks and machines in virtual time, and breaks all of
// them at random while it checks that claims never overlap.
//
// Everything random comes from one seed, so a schedule that fails can be run
// again.
package sim

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

const (
	namespace = "default"
	lockName  = "web"
)

// world is one schedule.
type world struct {
	seed  uint64
	rng   *rand.Rand
	start time.Time
	tasks sync.WaitGroup // the network's goroutines
	// troubles are the faults that are still going on.
	troubles sync.WaitGroup

	settings elector.Settings

	// What tests of single rules look at and begin with.
	initial    faults
	onRequest  func(*pod, *http.Request)
	onAnnounce func(*pod, elector.Status) error
	callbacks  elector.Callbacks

	mu         sync.Mutex
	api        *api
	pods       []*pod
	podCount   uint64
	lastLeader string
	lastToken  uint64
	claims     int // claims seen to start
	violations []string
	trace      []string
	// erased are the pods whose claims on the lock a person erased, until they
	// end, with the processes that knew of the claim.
	erased map[*pod]map[*process]bool
}

// pod is a candidate's Pod with the status directory that outlives its processes.
type pod struct {
	w       *world
	name    string
	uid     string
	node    *node
	file    *elector.Status // what the application reads: nil without a leader file
	last    *elector.Status // status.json
	process *process
	deleted bool
	// unknowing are the pods whose erased claims the process did not know of when
	// it claimed; it may have been killed since.
	unknowing map[*pod]bool
}

func (p *pod) identity() string { return elector.Identity(p.name, p.uid) }

// process is one run of the sidecar in a pod.
type process struct {
	pod    *pod
	link   *link
	e      *elector.Elector
	cancel context.CancelFunc
	done   chan struct{}
	dead   bool // killed: what it still does has no effect
}

func newWorld(seed uint64, rng *rand.Rand, settings elector.Settings) *world {
	return &world{
		seed: seed, rng: rng, start: time.Now(), settings: settings,
		api: newAPI(), erased: map[*pod]map[*process]bool{},
	}
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%12.6f ", time.Since(w.start).Seconds())+fmt.Sprintf(format, args...))
}

// violate notes a violation, once.
func (w *world) violate(format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	if slices.Contains(w.violations, v) {
		return
	}
	w.note("VIOLATION %s", v)
	w.violations = append(w.violations, v)
}

func (w *world) digest() string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(w.trace, "\n"))))[:16]
}

func (w *world) addPod(name string, n *node) *pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.podCount++
	p := &pod{w: w, name: name, uid: fmt.Sprintf("uid-%d", w.podCount), node: n}
	w.api.pods[p.uid] = true
	w.pods = append(w.pods, p)
	return p
}

// startProcess starts the sidecar of p.
func (w *world) startProcess(p *pod) {
	w.mu.Lock()
	w.podCount++
	l := newLink(w, p, w.podCount)
	w.mu.Unlock()
	proc := &process{pod: p, link: l, done: make(chan struct{})}
	jitter := func(limit time.Duration) time.Duration { return l.jitter.between(0, max(limit-1, 0)) }
	watchJitter := func(limit time.Duration) time.Duration { return l.watchJitter.between(0, limit-1) }
	metrics := new(elector.Metrics)
	lock, err := kube.New(&rest.Config{Host: "http://api", Transport: l}, kube.Config{
		Candidate: elector.Description{Settings: w.settings, Namespace: namespace, Identity: p.identity()},
		Jitter:    watchJitter, OnRequest: metrics.Request,
	})
	if err != nil {
		panic(err)
	}
	proc.e, err = elector.New(elector.Config{
		Lock: lock, Clock: p.node, Last: p.last,
		Announce: proc.announce, Jitter: jitter, Metrics: metrics, Callbacks: w.callbacks,
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	proc.cancel = cancel
	w.mu.Lock()
	p.process = proc
	w.note("%s starts", p.identity())
	w.mu.Unlock()
	go func() {
		defer close(proc.done)
		if err := proc.e.Run(ctx); err != nil {
			w.mu.Lock()
			w.violate("%s: Run: %v", p.identity(), err)
			w.mu.Unlock()
		}
	}()
}

// announce is the status directory of one process.
func (proc *process) announce(s elector.Status) error {
	p := proc.pod
	p.node.waitAwake()
	if p.w.onAnnounce != nil {
		if err := p.w.onAnnounce(p, s); err != nil {
			return err
		}
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if proc.dead {
		return nil
	}
	before := p.file != nil
	p.file, p.last = nil, &s
	if s.Role == elector.RoleLeader {
		p.file = &s
	}
	if (p.file != nil) != before {
		p.w.note("%s %s token=%d", p.identity(), s.Role, s.FencingToken)
	}
	if p.file != nil && !before {
		p.w.claimed(p, s.FencingToken)
	}
	p.w.check()
	return nil
}

// kill ends the process as SIGKILL does: at once, leaving its files.
func (w *world) kill(p *pod) {
	w.mu.Lock()
	proc := p.process
	if proc == nil || proc.dead {
		w.mu.Unlock()
		return
	}
	w.note("%s killed", p.identity())
	proc.dead = true
	p.process = nil
	w.mu.Unlock()
	proc.link.mu.Lock()
	proc.link.dead = true
	proc.link.mu.Unlock()
	proc.link.breakWatches()
	proc.cancel()
	w.tasks.Go(func() { <-proc.done })
}

// terminate ends the process as SIGTERM does and waits for it.
func (w *world) terminate(p *pod) {
	w.mu.Lock()
	proc := p.process
	w.mu.Unlock()
	if proc == nil {
		return
	}
	proc.cancel()
	<-proc.done
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.process != proc {
		return
	}
	p.process = nil
	w.note("%s ended", p.identity())
	if p.file != nil {
		w.violate("%s ended and left its leader file", p.identity())
	}
}

// deletePod ends the pod's process, gracefully or not, and then removes the Pod,
// as a kubelet does. The garbage collector follows.
func (w *world) deletePod(p *pod, graceful bool) {
	if graceful {
		w.terminate(p)
	}
	w.kill(p)
	w.mu.Lock()
	w.note("%s deleted", p.identity())
	p.deleted, p.file = true, nil
	delete(w.api.pods, p.uid)
	for i, q := range w.pods {
		if q == p {
			w.pods = append(w.pods[:i:i], w.pods[i+1:]...)
		}
	}
	w.mu.Unlock()
	w.tasks.Go(func() {
		time.Sleep(13 * time.Millisecond)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.api.collect()
	})
}

// claimsNow tells whether an application in p would act now.
func (p *pod) claimsNow() bool {
	if p.file == nil || p.deleted || p.node.suspended() {
		return false // a suspended machine's application acts as little as its sidecar
	}
	return p.file.ValidUntil == nil || time.Now().Before(*p.file.ValidUntil)
}

// excused tells whether p may claim although q, whose claim was erased, does: to
// delete a lock by hand is to say that its holder is dead. In lease mode those
// who knew the holder wait for its lease to end all the same; a candidate that
// has just started can't know. In leader-for-life there is no such end to wait
// for.
func (w *world) excused(p, q *pod) bool {
	_, erased := w.erased[q]
	return erased && (w.settings.Mode == elector.ModeLeaderForLife || p.unknowing[q])
}

// check looks for two claims at one moment: by the leader file with validUntil,
// and by what the process answers over HTTP.
func (w *world) check() {
	var files, answers []*pod
	for _, p := range w.pods {
		if p.claimsNow() {
			files = append(files, p)
		} else if !p.node.suspended() {
			delete(w.erased, p)
		}
		if p.process != nil && !p.node.suspended() && p.process.e.IsLeader() {
			answers = append(answers, p)
		}
	}
	w.atMostOne("file", files)
	w.atMostOne("HTTP", answers)
}

func (w *world) atMostOne(by string, leaders []*pod) {
	for i, p := range leaders {
		for _, q := range leaders[:i] {
			if !w.excused(p, q) && !w.excused(q, p) {
				w.violate("two leaders by %s: %s and %s", by, q.identity(), p.identity())
			}
		}
	}
}

// erase notes that a person erases the claim of whoever has it.
func (w *world) erase() {
	for _, p := range w.pods {
		if p.file == nil {
			continue
		}
		w.erased[p] = map[*process]bool{}
		for _, q := range w.pods {
			if q.process != nil && q.process.e.Leader() == p.name {
				w.erased[p][q.process] = true
			}
		}
	}
}

// claimed checks the fencing token of a claim that starts.
func (w *world) claimed(p *pod, token uint64) {
	w.claims++
	p.unknowing = map[*pod]bool{}
	for q, witnesses := range w.erased {
		p.unknowing[q] = !witnesses[p.process]
	}
	switch {
	case token == 0:
		w.violate("%s claims without a token", p.identity())
	case p.identity() != w.lastLeader && token <= w.lastToken:
		w.violate("token %d of %s is not above %d of %s", token, p.identity(), w.lastToken, w.lastLeader)
	case token < w.lastToken:
		w.violate("token of %s shrank from %d to %d", p.identity(), w.lastToken, token)
	}
	w.lastLeader, w.lastToken = p.identity(), token
}
