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
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	rng   *rand.Rand // the schedule's own, for its goroutine alone
	start time.Time
	tasks sync.WaitGroup // everything that goes on in the background
	// troubles are the faults that are still going on.
	troubles sync.WaitGroup

	settings elector.Settings // of candidates that have no others
	features Features
	spread   float64     // by how much clocks' rates may differ
	mixed    bool        // candidates have different settings
	peaceful bool        // only what is planned happens
	patient  atomic.Bool // nobody leads for hours, because of a term that somebody wrote a huge duration into

	mu sync.Mutex

	// What tests of single rules look at and begin with.
	initial    faults
	onRequest  func(*pod, *http.Request)
	onAnnounce func(*pod, elector.Status) error
	callbacks  elector.Callbacks

	api        *api
	pods       []*pod
	podCount   uint64
	lastLeader string
	lastToken  uint64
	claims     int // claims seen to start
	violations []string
	trace      []string
	marks      marks

	happened map[string]int  // how often each fault happened
	excuses  map[string]int  // how often each documented limit was met
	excused  map[string]bool // those that go on

	lost     uint64 // the highest version that a restore took back; 0 without one
	deaf     int    // failovers of the datastore that left watches silent
	lock     lockState
	works    []*work // what OnStartedLeading does, until it has returned
	slowWork bool
	gates    bool // applications are behind gates
	gated    int  // children that were started
	calmed   bool // nothing happens any more
	worked   int  // pieces of work that began
	twins    map[[2]*pod]together
}

// pod is a candidate's Pod with the status directory that outlives its processes.
type pod struct {
	w        *world
	name     string
	uid      string
	node     *node
	settings elector.Settings
	file     *elector.Status // what the application reads: nil without a leader file
	writer   *process        // which wrote the file
	last     *elector.Status // status.json
	process  *process
	gate     *wrapper // nil without one
	deleted  bool
	twin     bool // a second Pod of the same identity
	mute     mute
	// erased are the times that somebody took the lock from this pod's claim without
	// its knowing, until the claim ends.
	erased []erasure
	// unknowing are the pods whose erased claims the process could not know of when
	// it claimed; it may have been killed since.
	unknowing map[*pod]bool

	troubles  int       // faults that go on
	troubled  time.Time // when the last one ended
	resigned  time.Time // when it was last asked to
	largest   uint64    // token of its process's claims
	claimedBy *process
}

// mute is what is wrong with a status directory.
type mute struct {
	fails bool          // announcing fails
	block time.Duration // announcing takes so long
}

// process is one run of the sidecar in a pod.
type process struct {
	pod     *pod
	link    *link
	e       *elector.Elector
	cancel  context.CancelFunc
	done    chan struct{}
	dead    bool      // killed: what it still does has no effect
	leaving bool      // told to end
	waits   bool      // for the end of the child that its gate has, before it contends
	resigns int       // calls of Resign under way
	telling bool      // an announcement is under way
	told    time.Time // when one ended that had blocked
	untold  bool      // the last announcement failed
}

func (p *pod) identity() string { return elector.Identity(p.name, p.uid) }

func newWorld(seed uint64, rng *rand.Rand, settings elector.Settings) *world {
	w := &world{
		seed: seed, rng: rng, start: time.Now(), settings: settings, features: Features{},
		api: newAPI(), happened: map[string]int{}, excuses: map[string]int{}, excused: map[string]bool{},
		twins: map[[2]*pod]together{},
	}
	w.lock.since = w.start
	return w
}

// note says in the trace what happens. The caller holds mu.
func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf("%12.6f ", time.Since(w.start).Seconds()) + fmt.Sprintf(format, args...)
	w.trace = append(w.trace, line)
	w.marks.add(line)
}

// say is note for those who do not hold mu.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(format, args...)
}

// mark tells of what is too small for the trace and has to be the same in every
// run of a seed all the same.
func (w *world) mark(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.marks.add(fmt.Sprintf(format, args...))
}

// violate notes a violation, once. The caller holds mu.
func (w *world) violate(format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	if slices.Contains(w.violations, v) {
		return
	}
	w.note("VIOLATION %s", v)
	w.violations = append(w.violations, v)
}

// marks digests what happens. What happens at one instant of virtual time has no
// order: which goroutine the scheduler takes first is nobody's promise.
type marks struct {
	at     time.Time
	lines  []string // of that instant
	digest [sha256.Size]byte
}

func (m *marks) add(line string) {
	if now := time.Now(); !now.Equal(m.at) {
		m.flush()
		m.at = now
	}
	m.lines = append(m.lines, line)
}

func (m *marks) flush() {
	slices.Sort(m.lines)
	m.digest = sha256.Sum256(fmt.Appendf(m.digest[:], "%d %s", m.at.UnixNano(), strings.Join(m.lines, "\n")))
	m.lines = m.lines[:0]
}

func (w *world) digest() string {
	w.marks.flush()
	return hex.EncodeToString(w.marks.digest[:8])
}

func (w *world) addPod(name string, n *node) *pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.podCount++
	p := &pod{w: w, name: name, uid: fmt.Sprintf("uid-%d", w.podCount), node: n, settings: w.settings, troubled: time.Now()}
	w.api.pods[p.uid] = true
	w.pods = append(w.pods, p)
	if w.gates {
		w.addGate(p)
	}
	return p
}

// startProcess starts the sidecar of p.
func (w *world) startProcess(p *pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.podCount++
	l := newLink(w, p, w.podCount)
	proc := &process{pod: p, link: l, done: make(chan struct{}), waits: p.gate != nil}
	run, err := proc.build()
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	proc.cancel = cancel
	p.process = proc
	p.troubled = time.Now()
	p.gate.configure()
	w.note("%s starts", p.identity())
	w.tasks.Go(func() {
		err := proc.begin(ctx, run)
		close(proc.done)
		if err != nil {
			w.ranInto(proc, err) //nolint:contextcheck // what comes after has a life of its own
		}
	})
}

// build makes lock and candidate as cmd/elector does, and returns what runs them.
func (proc *process) build() (run func(context.Context) error, err error) {
	p, l, w := proc.pod, proc.link, proc.pod.w
	jitter := func(limit time.Duration) time.Duration { return l.jitter.between(0, max(limit-1, 0)) }
	watchJitter := func(limit time.Duration) time.Duration { return l.watchJitter.between(0, limit-1) }
	metrics := new(elector.Metrics)
	lock, err := kube.New(&rest.Config{Host: "http://api", Transport: l}, kube.Config{
		Candidate: elector.Description{Settings: p.settings, Namespace: namespace, Identity: p.identity()},
		Jitter:    watchJitter, OnRequest: metrics.Request,
	})
	if err != nil {
		return nil, err
	}
	callbacks := w.callbacks
	if w.slowWork {
		callbacks.OnStartedLeading = proc.work
	}
	var grace time.Duration // the default
	if p.gate != nil {
		callbacks.OnStartedLeading = proc.gated
		grace = 2 * p.settings.RenewDeadline
	}
	proc.e, err = elector.New(elector.Config{
		Lock: lock, Clock: p.node, Last: p.last, Grace: grace,
		Announce: proc.announce, Jitter: jitter, Metrics: metrics, Callbacks: callbacks,
	})
	if err != nil {
		return nil, err
	}
	return proc.e.Run, nil
}

// ranInto takes in that Run ended with an error. It may when the status directory
// failed it, or because of a second process of its identity; the kubelet then
// starts the container again.
func (w *world) ranInto(proc *process, err error) {
	p := proc.pod
	w.mu.Lock()
	ended := p.process == proc && !proc.leaving
	switch {
	case proc.dead:
	case proc.untold:
		w.excuse("the status directory failed", p.identity())
	case w.twinOf(p) != nil:
		w.excuse("a twin was noticed", p.identity())
	default:
		w.violate("%s: Run: %v", p.identity(), err)
	}
	if ended {
		w.note("%s ended: %v", p.identity(), err)
		p.process = nil
	}
	w.mu.Unlock()
	if ended {
		time.Sleep(proc.link.dice("restart", 0).between(time.Second, 10*time.Second))
		w.restart(p, 0)
	}
}

// announce is the status directory of one process.
func (proc *process) announce(s elector.Status) error {
	p, w := proc.pod, proc.pod.w
	p.node.waitAwake(theLoop)
	w.mu.Lock()
	hook, block := w.onAnnounce, p.mute.block
	proc.telling = true
	w.mu.Unlock()
	begun := time.Now()
	if block > 0 {
		time.Sleep(block)
		p.node.waitAwake(theLoop)
	}
	var err error
	if hook != nil {
		err = hook(p, s)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.mute.fails {
		err = errReadOnly
	}
	proc.telling, proc.untold = false, err != nil
	if time.Now().After(begun) {
		proc.told = time.Now()
	}
	if proc.dead || err != nil {
		return err
	}
	before := p.file != nil
	p.file, p.last = nil, &s
	if s.Role == elector.RoleLeader {
		p.file, p.writer = &s, proc
	}
	if (p.file != nil) != before {
		w.note("%s %s token=%d", p.identity(), s.Role, s.FencingToken)
	}
	if p.file != nil && !before {
		w.claimed(p, s.FencingToken)
	}
	p.gate.poke()
	w.check()
	return nil
}

var errReadOnly = errors.New("read-only file system")

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
	p.troubled = time.Now()
	w.endWork(proc)
	w.mu.Unlock()
	proc.link.mu.Lock()
	proc.link.dead = true
	proc.link.mu.Unlock()
	proc.link.breakWatches()
	proc.cancel()
}

// terminate ends the process as SIGTERM does and waits for it.
func (w *world) terminate(p *pod) {
	w.mu.Lock()
	proc := p.process
	w.mu.Unlock()
	if proc == nil {
		return
	}
	p.node.waitAwake(proc.link.dice("SIGTERM", 0).id)
	w.mu.Lock()
	proc.leaving = true
	w.mu.Unlock()
	proc.cancel()
	<-proc.done
	w.awaitWork(proc)
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.process != proc {
		return
	}
	p.process = nil
	p.troubled = time.Now()
	w.note("%s ended", p.identity())
	switch {
	case p.file == nil:
	case proc.untold:
		w.excuse("the status directory failed", p.identity())
	default:
		w.violate("%s ended and left its leader file", p.identity())
	}
}

// deletePod ends the pod's process, gracefully or not, and then removes the Pod,
// as a kubelet does. The garbage collector follows.
func (w *world) deletePod(p *pod, graceful bool) {
	if graceful {
		w.stopGate(p)
		w.terminate(p)
	}
	w.kill(p)
	w.mu.Lock()
	w.note("%s deleted", p.identity())
	p.closeGate()
	p.deleted, p.file = true, nil
	if w.twinOf(p) == nil {
		delete(w.api.pods, p.uid)
	}
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

// hook sets what tests of single rules look at, in order with those who call it.
func (w *world) hook(set func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	set()
}
