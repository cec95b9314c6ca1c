package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// Features are the faults, conditions and checks that schedules have, by name.
type Features map[string]bool

// A fault is one bad thing that happens now and then.
type fault struct {
	name string
	// why the engine does not stand it yet; empty for one that always happens.
	why  string
	mode elector.Mode // only in this mode; empty for both
	// planned tells that it happens where nothing goes wrong, too.
	planned bool
	// do does it to p, unless it can't be done, and tells which.
	do func(w *world, p *pod) bool
}

// A condition holds for a whole schedule, or it does not.
type condition struct {
	name, why string
	mode      elector.Mode
	chance    float64
	set       func(w *world) // with mu
}

// A check is one that can be left out.
type check struct{ name, why string }

var checks = []check{
	{"free locks", ""},
	{"gaps", ""},
	{"own tokens", ""},
	{"work", ""},
	{"handovers", ""},
	{"courtesy", ""},
	{"gates", ""},
}

var conditions = []condition{
	{name: "different settings", chance: 0.3, set: func(w *world) { w.mixed, w.spread = true, 1.498 }},
	{name: "others write in between", chance: 0.5, set: func(w *world) { w.api.busy = true }},
	{name: "several API servers", chance: 0.3, set: func(w *world) {
		w.api.lags = []time.Duration{0, time.Duration(w.rng.Int64N(int64(w.settings.LeaseDuration)))}
	}},
	{name: "polling", chance: 0.15, set: func(w *world) { w.initial.noWatch = true }},
	{name: "slow work", chance: 0.4, set: func(w *world) { w.slowWork = true }},
	{name: "applications behind gates", mode: elector.ModeLease, chance: 0.4, set: func(w *world) { w.gates, w.slowWork = true, false }},
	// Where much goes wrong there is much to wait for, and little to be held to.
	{name: "little goes wrong", chance: 0.25, set: func(w *world) { w.peaceful = true }},
}

// allFaults are drawn from with equal chances.
var allFaults = []fault{
	{name: "cut both ways", do: disturbing(func(*world) (string, func(*faults)) {
		return "", func(f *faults) { f.cutOut, f.cutIn = true, true }
	})},
	{name: "requests lost", do: disturbing(func(*world) (string, func(*faults)) { return "", func(f *faults) { f.cutOut = true } })},
	{name: "answers lost", do: disturbing(func(*world) (string, func(*faults)) { return "", func(f *faults) { f.cutIn = true } })},
	{name: "some answers lost", do: disturbing(func(w *world) (string, func(*faults)) {
		share := w.rng.Float64()
		return "", func(f *faults) { f.lossy = share }
	})},
	{name: "slow", do: disturbing(func(w *world) (string, func(*faults)) {
		slow := time.Duration(w.rng.Int64N(int64(2 * w.settings.RenewDeadline)))
		return " by " + slow.String(), func(f *faults) { f.slow = slow }
	})},
	{name: "errors", do: disturbing(func(w *world) (string, func(*faults)) {
		share := w.rng.Float64()
		return "", func(f *faults) { f.errorShare = share }
	})},
	{name: "watch stalls", do: disturbing(func(*world) (string, func(*faults)) { return "", func(f *faults) { f.stall = true } })},
	{name: "watch repeats", do: disturbing(func(*world) (string, func(*faults)) { return "", func(f *faults) { f.repeat = true } })},
	{name: "watch lags", do: disturbing(func(w *world) (string, func(*faults)) {
		lag := time.Duration(w.rng.Int64N(int64(w.settings.LeaseDuration)))
		return " by " + lag.String(), func(f *faults) { f.lag = lag }
	})},
	{name: "watches break", do: (*world).breakWatches},
	{name: "compaction", do: func(w *world, _ *pod) bool {
		w.mu.Lock()
		w.note("compaction")
		w.api.compact()
		w.mu.Unlock()
		w.breakAllWatches()
		return true
	}},
	{name: "kill", planned: true, do: func(w *world, p *pod) bool {
		pause := w.pause()
		w.kill(p)
		w.troubles.Go(func() { w.restart(p, pause) })
		return true
	}},
	{name: "stop", planned: true, do: func(w *world, p *pod) bool {
		pause := w.pause()
		w.configure(p) // a rollout may change it
		w.troubles.Go(func() { w.terminate(p); w.restart(p, pause) })
		return true
	}},
	{name: "pod replaced", planned: true, do: func(w *world, p *pod) bool { w.replacePod(p, w.rng.IntN(2) == 0); return !p.twin }},
	{name: "suspend", do: func(w *world, p *pod) bool { w.suspend(p.node); return true }},
	{name: "resign", planned: true, do: (*world).resign},
	{name: "outage", do: func(w *world, _ *pod) bool {
		for _, q := range w.allPods() {
			w.disturb(q, "outage", func(f *faults) { f.cutOut = true })
		}
		return true
	}},
	{name: "others write", planned: true, do: func(w *world, _ *pod) bool {
		n := 1 + w.rng.Uint64N(1000)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.note("others write %d times", n)
		w.api.othersWrite(n)
		return true
	}},
	{name: "annotations stripped", why: "an erased holder whose note is gone is taken for another program's that released", do: func(w *world, _ *pod) bool {
		d := 2 * w.pause()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.note("a policy takes annotations off for %v", d)
		w.api.strip = true
		w.troubles.Go(func() {
			time.Sleep(d)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.api.strip = false
		})
		return true
	}},
	{name: "announcements fail", do: func(w *world, p *pod) bool { return w.silence(p, mute{fails: true}) }},
	{name: "announcements block", do: func(w *world, p *pod) bool { return w.silence(p, mute{block: w.pause()}) }},
	{name: "restore", do: func(w *world, _ *pod) bool { return w.restore(true) }},
	{name: "failover", do: func(w *world, _ *pod) bool { return w.restore(false) }},
	{name: "twin", mode: elector.ModeLease, do: (*world).addTwin},
	{name: "gate killed", mode: elector.ModeLease, do: (*world).killGate},
	{name: "gate frozen", mode: elector.ModeLease, do: (*world).freezeGate},

	{name: "handover asked for", planned: true, do: annotated(elector.HandoverAnnotation, (*world).drawHandover)},
	{name: "some go first", planned: true, do: annotated(elector.NextAnnotation, (*world).drawNext)},

	{name: "labelled by hand", do: byHand("", func(_ *world, o object) bool {
		o.metadata()["labels"] = map[string]any{"app.kubernetes.io/managed-by": "elector", "seen-by": "human", "at": time.Now().String()}
		return true
	})},
	{name: "deleted by hand", do: func(w *world, _ *pod) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.lockObject() == nil {
			return false
		}
		w.eraseBy("the lock was deleted by hand", true)
		w.note("the lock is deleted by hand")
		_ = w.api.remove(w.resource(), lockName, "", "")
		return true
	}},
	{name: "erased by hand", do: byHand("the holder was erased by hand", func(w *world, o object) bool {
		w.setHolder(o, nil)
		return true
	})},
	{name: "given to a stranger", do: byHand("the lock was given away by hand", func(w *world, o object) bool {
		w.api.pods["human"] = true
		w.setHolder(o, &pod{name: "human", uid: "human"})
		return true
	})},
	{name: "given to a candidate", do: byHand("the lock was given away by hand", func(w *world, o object) bool {
		w.setHolder(o, w.pods[w.rng.IntN(len(w.pods))])
		return true
	})},
	{name: "old state put back", do: byHand("an old state of the lock was put back by hand", func(w *world, o object) bool {
		var old []object
		for _, c := range w.api.log {
			if c.kind != "DELETED" {
				old = append(old, c.object)
			}
		}
		if len(old) == 0 {
			return false
		}
		version, uid := o.metadata()["resourceVersion"], o.uid()
		clear(o)
		maps.Copy(o, old[w.rng.IntN(len(old))].clone())
		o.metadata()["resourceVersion"], o.metadata()["uid"] = version, uid
		return true
	})},
	{name: "annotation removed", why: "an erased holder whose note is gone is taken for another program's that released", mode: elector.ModeLease, do: byHand("", func(_ *world, o object) bool {
		delete(o.metadata(), "annotations")
		return true
	})},
	{name: "annotation forged", why: "an erased holder whose note is gone is taken for another program's that released", mode: elector.ModeLease, do: byHand("", func(w *world, o object) bool {
		text := []string{"", "nonsense", "{}", `{"token":99999999999999999999999}`, strings.Repeat("x", 100_000)}[w.rng.IntN(5)]
		if note := o.claimNote(); note != nil && w.rng.IntN(3) > 0 {
			field := []string{"holder", "term", "write", "token", "leaseSeconds"}[w.rng.IntN(5)]
			switch note[field].(type) {
			case string:
				note[field] = w.pods[w.rng.IntN(len(w.pods))].identity()
			default:
				note[field] = w.rng.Uint64N(2 * w.api.version)
			}
			data, err := json.Marshal(note)
			if err != nil {
				panic(err)
			}
			text = string(data)
		}
		o.metadata()["annotations"] = map[string]any{kube.ClaimAnnotation: text}
		return true
	})},
	{name: "huge transitions", mode: elector.ModeLease, do: byHand("", inSpec("leaseTransitions", math.MaxInt32))},
	{name: "huge duration", mode: elector.ModeLease, do: byHand("", func(w *world, o object) bool {
		return inSpec("leaseDurationSeconds", []int{math.MaxInt32, 86400}[w.rng.IntN(2)])(w, o)
	})},
	{name: "huge holder", mode: elector.ModeLease, do: func(w *world, p *pod) bool {
		// Seldom, because everybody has to read it again and again.
		return w.rng.IntN(8) == 0 && byHand("the lock was given away by hand", inSpec("holderIdentity", strings.Repeat("h", 700_000)))(w, p)
	}},
}

// inSpec sets a field of the Lease. The term that it speaks of is over by that, and
// nobody holds the lock for the work of that term any more.
func inSpec(field string, value any) func(*world, object) bool {
	return func(w *world, o object) bool {
		spec, ok := o["spec"].(map[string]any)
		if ok {
			spec[field] = value
			for _, p := range w.pods {
				w.spoilWork(p, "the lock was edited meanwhile")
			}
		}
		return ok
	}
}

// FeaturesFor returns what the engine stands, and besides the named ones: a list
// with commas, or "all".
func FeaturesFor(list string) (Features, error) {
	features, why := Features{}, map[string]string{}
	for _, f := range allFaults {
		why[f.name] = f.why
	}
	for _, c := range conditions {
		why[c.name] = c.why
	}
	for _, c := range checks {
		why[c.name] = c.why
	}
	for name, reason := range why {
		features[name] = reason == "" || list == "all"
	}
	for name := range strings.SplitSeq(list, ",") {
		if _, ok := why[name]; !ok && name != "" && name != "all" {
			return nil, fmt.Errorf("there is no %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(why)), ", "))
		}
		if name != "" && name != "all" {
			features[name] = true
		}
	}
	return features, nil
}

// menu are the faults to draw from, all or the planned ones.
func (features Features) menu(mode elector.Mode, planned bool) []fault {
	var menu []fault
	for _, f := range allFaults {
		if features[f.name] && (f.mode == "" || f.mode == mode) && (f.planned || !planned) {
			menu = append(menu, f)
		}
	}
	return menu
}

// trouble has p be troubled until the returned function is called. The caller of
// both holds mu.
func (w *world) trouble(p *pod) (over func()) {
	p.troubles++
	w.spoilWork(p, "something else was wrong with it")
	return func() {
		p.troubles--
		p.troubled = time.Now()
	}
}

func disturbing(draw func(w *world) (how string, set func(*faults))) func(*world, *pod) bool {
	return func(w *world, p *pod) bool {
		how, set := draw(w)
		return w.disturb(p, "a fault of its connection"+how, set)
	}
}

// disturb changes the faults of a process's link for a while.
func (w *world) disturb(p *pod, what string, set func(*faults)) bool {
	d := time.Duration(w.rng.Int64N(int64(2 * w.settings.LeaseDuration)))
	w.mu.Lock()
	proc := p.process
	if proc == nil {
		w.mu.Unlock()
		return false
	}
	l := proc.link
	l.mu.Lock()
	set(&l.faults)
	w.note("%s: %s for %v: %+v", p.identity(), what, d, l.faults)
	l.mu.Unlock()
	over := w.trouble(p)
	w.mu.Unlock()
	w.troubles.Go(func() {
		time.Sleep(d)
		w.mu.Lock()
		defer w.mu.Unlock()
		l.mu.Lock()
		l.faults = w.initial
		l.mu.Unlock()
		over()
	})
	return true
}

func (w *world) breakWatches(p *pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.process == nil {
		return false
	}
	w.note("%s: watches break", p.identity())
	p.process.link.breakWatches()
	return true
}

func (w *world) breakAllWatches() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range w.pods {
		if q.process != nil {
			q.process.link.breakWatches()
		}
	}
}

// replacePod deletes p and makes another of the same name, as a StatefulSet does.
func (w *world) replacePod(p *pod, graceful bool) {
	d := w.pause()
	w.mu.Lock()
	if p.twin {
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	var settings elector.Settings
	w.troubles.Go(func() {
		w.mu.Lock()
		gone := p.deleted || p.node.suspended()
		p.deleted = p.deleted || !gone && !graceful
		settings = p.settings
		w.mu.Unlock()
		if gone {
			return
		}
		w.deletePod(p, graceful)
		time.Sleep(d)
		again := w.addPod(p.name, p.node)
		w.mu.Lock()
		again.settings = settings
		w.mu.Unlock()
		w.startProcess(again)
	})
}

func (w *world) suspend(n *node) {
	d := time.Duration(w.rng.Int64N(int64(2 * w.settings.LeaseDuration)))
	w.mu.Lock()
	w.note("a machine is suspended for %v", d)
	var over []func()
	for _, p := range w.pods {
		if p.node == n {
			over = append(over, w.trouble(p))
		}
	}
	w.mu.Unlock()
	n.suspend()
	w.troubles.Go(func() {
		time.Sleep(d)
		n.resume()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.note("a machine wakes")
		for _, end := range over {
			end()
		}
		w.check()
	})
}

func (w *world) resign(p *pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	proc := p.process
	if proc == nil {
		return false
	}
	w.note("%s resigns", p.identity())
	proc.resigns++
	who := proc.link.dice("resign", int(time.Since(w.start))).id
	p.resigned = time.Now()
	w.troubles.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if p.node.awake(ctx, who) {
			_ = proc.e.Resign(ctx)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		proc.resigns--
		p.resigned = time.Now()
	})
	return true
}

// silence breaks p's status directory for a while.
func (w *world) silence(p *pod, m mute) bool {
	d := time.Duration(w.rng.Int64N(int64(2 * w.settings.LeaseDuration)))
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.mute != (mute{}) {
		return false
	}
	w.note("announcing of %s: %+v for %v", p.identity(), m, d)
	p.mute = m
	over := w.trouble(p)
	w.troubles.Go(func() {
		time.Sleep(d)
		w.mu.Lock()
		p.mute = mute{}
		w.mu.Unlock()
		time.Sleep(m.block + p.settings.RetryPeriod) // until what is under way has ended, and what failed was tried again
		w.mu.Lock()
		defer w.mu.Unlock()
		over()
	})
	return true
}

// restore puts the datastore back by some of the last writes of the lock. API
// servers that are restarted for it break every watch at once; after a mere
// failover the watches stay open, and silent until the versions come by again.
func (w *world) restore(restart bool) bool {
	w.mu.Lock()
	if len(w.api.log) < 2 {
		w.mu.Unlock()
		return false
	}
	back := w.api.log[len(w.api.log)-1-w.rng.IntN(min(len(w.api.log), 20))].version
	silent := w.pause()
	w.eraseBy(byRestore, true)
	w.note("the datastore goes back from %d to %d, with a restart: %v", w.api.version, back, restart)
	w.lost = max(w.lost, w.api.version)
	w.api.restore(back)
	if !restart {
		w.deaf++
	}
	w.mu.Unlock()
	if restart {
		w.breakAllWatches()
	}
	w.troubles.Go(func() {
		if !restart {
			time.Sleep(silent)
			w.breakAllWatches()
		}
		time.Sleep(13 * time.Millisecond)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.api.collect()
		if !restart {
			w.deaf--
			for _, p := range w.pods {
				p.troubled = time.Now()
			}
		}
	})
	return true
}

// addTwin starts a second Pod that says it is p.
func (w *world) addTwin(p *pod) bool {
	d := 3 * w.pause()
	w.mu.Lock()
	if p.twin || p.deleted || w.twinOf(p) != nil {
		w.mu.Unlock()
		return false
	}
	w.note("%s has a twin for %v", p.identity(), d)
	n := newNode(p.node.rate)
	n.stagger = p.node.stagger
	twin := &pod{w: w, name: p.name, uid: p.uid, node: n, settings: p.settings, twin: true}
	w.pods = append(w.pods, twin)
	over := w.trouble(p)
	w.mu.Unlock()
	w.startProcess(twin)
	w.troubles.Go(func() {
		time.Sleep(d)
		w.deletePod(twin, true)
		w.mu.Lock()
		defer w.mu.Unlock()
		over()
	})
	return true
}

func (w *world) resource() string {
	if w.settings.Mode == elector.ModeLeaderForLife {
		return "configmaps"
	}
	return "leases"
}

// lockObject is the lock as the API has it, nil if it is not there.
func (w *world) lockObject() object { return w.api.objects[w.resource()+"/"+lockName] }

// onLock does something with a copy of the lock, in one moment; not where there is
// no lock.
func onLock(do func(w *world, o object) bool) func(*world, *pod) bool {
	return func(w *world, _ *pod) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		o := w.lockObject()
		return o != nil && len(w.pods) > 0 && do(w, o.clone())
	}
}

// byHand is what a person does to the lock with kubectl. What takes the lock from
// its holder says how. The record shows it, unless its note is missing.
func byHand(how string, change func(w *world, o object) bool) func(*world, *pod) bool {
	return onLock(func(w *world, o object) bool {
		if !change(w, o) {
			return false
		}
		if how != "" {
			hidden := how == "an old state of the lock was put back by hand" || o.claimNote() == nil || w.api.strip
			w.eraseBy(how, hidden)
		} else {
			w.lock.edited = time.Now()
		}
		written, err := w.api.update(w.resource(), lockName, o)
		if err != nil {
			panic(err)
		}
		note := written.claimNote()
		delete(note, "write") // of its writer's own chance
		w.note("by hand: %.200s %.200s %v", fmt.Sprint(written["spec"]), fmt.Sprint(note), written.metadata()["ownerReferences"])
		return true
	})
}

// annotated puts an annotation on the lock that asks something of candidates. It is
// no interference: what they are asked for they do as fast as ever.
func annotated(name string, draw func(w *world) string) func(*world, *pod) bool {
	return onLock(func(w *world, o object) bool {
		annotations, _ := o.metadata()["annotations"].(map[string]any)
		if annotations == nil {
			annotations = map[string]any{}
			o.metadata()["annotations"] = annotations
		}
		value := draw(w)
		annotations[name] = value
		w.note("asked: %s %.200s", name, value)
		_, err := w.api.update(w.resource(), lockName, o)
		return err == nil // beside others that are as huge it is refused
	})
}

// drawHandover is mostly a request about the claim of the moment, and now and then
// about any other, or nonsense, or huge.
func (w *world) drawHandover() string {
	h := elector.Handover{Token: w.rng.Uint64N(w.api.version + 2), Why: "simulated"}
	for _, p := range w.pods {
		if p.file != nil && w.rng.IntN(4) > 0 {
			h.Token = p.file.FencingToken
		}
	}
	switch w.rng.IntN(12) {
	case 0:
		return []string{"", "now!", "{}", `{"token":-1}`, `{"token":1e30}`, strings.Repeat("{", 100_000)}[w.rng.IntN(6)]
	case 1, 2:
		h.To = "nobody"
	case 3, 4, 5, 6, 7:
		h.To = w.pods[w.rng.IntN(len(w.pods))].name
	}
	return h.String()
}

// drawNext names some pods, and now and then somebody else, or nonsense.
func (w *world) drawNext() string {
	names := []string{}
	for _, p := range w.pods {
		if w.rng.IntN(3) == 0 {
			names = append(names, p.name)
		}
	}
	switch w.rng.IntN(6) {
	case 0:
		names = append(names, "nobody")
	case 1:
		return []string{"", ",", "Web 0", strings.Repeat("web-0,", 30_000)}[w.rng.IntN(4)]
	}
	return elector.FormatNext(names)
}

// setHolder makes p the holder, or nobody.
func (w *world) setHolder(o object, p *pod) {
	holder := ""
	var owners []any
	if p != nil {
		holder = p.name
		if p.uid != "human" {
			holder = p.identity()
		}
		owners = []any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": p.name, "uid": p.uid}}
	}
	if spec, ok := o["spec"].(map[string]any); ok {
		spec["holderIdentity"] = holder
	}
	if w.settings.Mode == elector.ModeLeaderForLife {
		o.metadata()["ownerReferences"] = owners
	}
}
