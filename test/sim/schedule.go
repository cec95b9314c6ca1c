package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
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
	// Happened and Excused count faults and conditions, and cases of documented
	// limits.
	Happened, Excused map[string]int
}

// Run plays the schedule that seed describes with the given features. It must run
// in a synctest bubble.
func Run(seed uint64, features Features) Result {
	rng := rand.New(rand.NewPCG(seed, 1))
	timing := timings[rng.IntN(len(timings))]
	mode := elector.ModeLease
	if rng.IntN(2) == 0 {
		mode = elector.ModeLeaderForLife
	}
	w := newWorld(seed, rng, elector.Settings{
		Lock: lockName, Mode: mode, LeaseDuration: timing[0], RenewDeadline: timing[1], RetryPeriod: timing[2],
	})
	w.features = features
	candidates := 2 + rng.IntN(6)
	w.mu.Lock()
	w.note("seed %d: %s, %v, %d candidates", seed, w.settings.Mode, timing, candidates)
	w.setConditions()
	w.mu.Unlock()
	for i := range candidates {
		// Clocks may differ by less than lease-duration / renew-deadline.
		n := newNode(1 + rng.Float64()*(w.spread-1))
		n.stagger = time.Millisecond
		p := w.addPod(fmt.Sprintf("web-%d", i), n)
		w.configure(p)
		w.startProcess(p)
	}
	stopChecks := w.checkOften()
	menu := features.menu(mode, w.peaceful)
	end := time.Now().Add(2*time.Minute + time.Duration(rng.Int64N(int64(2*time.Minute))))
	pause := 4 * time.Second
	if w.peaceful {
		pause *= 5 // so that whoever was restarted has nothing to wait for any more
	}
	for time.Now().Before(end) {
		time.Sleep(time.Duration(rng.Int64N(int64(pause))))
		if p := w.anyPod(); p != nil {
			f := menu[rng.IntN(len(menu))]
			if f.do(w, p) {
				w.count(f.name)
			}
		}
	}
	w.calm()
	w.finish()
	stopChecks()
	w.tasks.Wait()
	return Result{
		Seed: seed, Virtual: time.Since(w.start), Claims: w.claims, Violations: w.violations,
		Trace: w.trace, Digest: w.digest(), Happened: w.happened, Excused: w.excuses,
	}
}

// setConditions draws what holds for the whole schedule. The caller holds mu.
func (w *world) setConditions() {
	w.spread = float64(w.settings.LeaseDuration) / float64(w.settings.RenewDeadline) * 0.999
	for _, c := range conditions {
		drawn := w.rng.Float64() < c.chance // whether it may hold or not, so that features change little of a seed
		if drawn && w.features[c.name] && (c.mode == "" || c.mode == w.settings.Mode) {
			w.note("condition: %s", c.name)
			w.happened[c.name]++
			c.set(w)
		}
	}
}

// configure gives a candidate the settings that its Deployment has at the moment.
func (w *world) configure(p *pod) {
	if !w.mixed {
		return
	}
	timing := timings[w.rng.IntN(len(timings))]
	w.mu.Lock()
	defer w.mu.Unlock()
	p.settings.LeaseDuration, p.settings.RenewDeadline, p.settings.RetryPeriod = timing[0], timing[1], timing[2]
	w.note("%s has settings %v", p.identity(), timing)
}

func (w *world) count(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.happened[name]++
}

// checkPeriod is how often claims are checked between events; no multiple of what
// the engine's periods have in common.
const checkPeriod = 49 * time.Millisecond

// checkPeriod is longer while everybody waits for hours for a leader who is gone: a day
// has two million of the short ones.
func (w *world) checkPeriod() time.Duration {
	if w.patient.Load() {
		return 20 * checkPeriod
	}
	return checkPeriod
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
			case <-time.After(w.checkPeriod()):
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

// calm ends all faults and gives every pod a process.
func (w *world) calm() {
	w.troubles.Wait() // every fault ends by itself
	for _, p := range w.allPods() {
		if p.twin {
			w.deletePod(p, true)
		}
	}
	w.mu.Lock()
	delete(w.api.pods, "human")
	w.api.collect()
	w.note("calm")
	w.calmed = true
	var idle []*pod
	for _, p := range w.pods {
		if p.process == nil {
			idle = append(idle, p)
		}
	}
	w.mu.Unlock()
	for _, p := range idle {
		w.startProcess(p)
	}
}

// recovery is how long after the last fault a leader has to exist: a lease of the
// slowest clock, the resigner's holding back, and the longest pauses between
// tries of a reader and a writer.
func recovery(s elector.Settings) time.Duration {
	return 3*s.LeaseDuration + 12*s.RetryPeriod + 10*time.Second
}

// restingRequests is how many requests a standby may send in a time shorter than
// a watch lasts: that may end, and the lock is then listed and watched anew.
const restingRequests = 2

// finish checks that a leader emerges and stays, that standbys rest, and that
// everybody leaves properly.
func (w *world) finish() {
	time.Sleep(recovery(w.longest()))
	w.patient.Store(true)
	for end := time.Now().Add(w.recovery() - recovery(w.longest())); time.Now().Before(end) && len(w.leaders()) == 0; {
		time.Sleep(time.Minute)
	}
	w.patient.Store(false)
	leader := w.soleLeader("after recovery")
	before := w.sent()
	const rest = 4 * time.Minute
	time.Sleep(rest)
	if again := w.soleLeader("at rest"); again != leader {
		w.mu.Lock()
		w.violate("the leader changed at rest")
		w.mu.Unlock()
	}
	after := w.sent()
	w.mu.Lock()
	for _, p := range w.pods {
		allowed := restingRequests
		if w.initial.noWatch {
			allowed = int(2*rest/p.settings.RetryPeriod) + restingRequests
		}
		if len(w.api.lags) > 0 && slices.Max(w.api.lags) > p.settings.RenewDeadline/4 {
			continue // a watch that is so late shows every holder as overdue
		}
		if sent := after[p] - before[p]; p != leader && sent > allowed {
			w.violate("%s sent %d requests while standing by", p.identity(), sent)
		}
	}
	w.mu.Unlock()
	w.mu.Lock()
	if leader != nil && leader.gate != nil && leader.gate.child == nil {
		w.violate("the application of %s, which leads, does not run", leader.identity())
	}
	w.mu.Unlock()
	for _, p := range w.allPods() {
		w.terminate(p)
		w.mu.Lock()
		p.closeGate()
		w.mu.Unlock()
	}
}

func (w *world) leaders() []*pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var leaders []*pod
	for _, p := range w.pods {
		if p.claimsNow() && p.process != nil && p.process.e.IsLeader() {
			leaders = append(leaders, p)
		}
	}
	return leaders
}

func (w *world) soleLeader(when string) *pod {
	leaders := w.leaders()
	if len(leaders) == 1 {
		return leaders[0]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violate("%d leaders %s", len(leaders), when)
	return nil
}

// sent counts the requests of every pod's process.
func (w *world) sent() map[*pod]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := map[*pod]int{}
	for _, p := range w.pods {
		if p.process != nil {
			sent[p] = p.process.link.sent()
		}
	}
	return sent
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
