package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// stampCut is how much earlier than a claim's end validUntil may be: it is cut to
// milliseconds. As much again for the file system.
const stampCut = 2 * time.Millisecond

// check looks at what holds at every moment. The caller holds mu.
func (w *world) check() {
	before := w.excused
	w.excused = map[string]bool{}
	var claiming, bare []*pod
	for _, p := range w.pods {
		answers := p.process != nil && !p.node.suspended() && p.process.e.IsLeader()
		switch {
		case p.claimsNow() || answers:
			claiming = append(claiming, p)
		case !p.node.suspended() && (p.process == nil || !p.process.telling):
			p.erased = nil
		}
		if p.file == nil || !p.vouchedFor() {
			continue
		}
		bare = append(bare, p)
		if until := p.file.ValidUntil; until != nil && time.Since(*until) > stampCut {
			w.violate("the leader file of %s is still there %v after the claim's deadline", p.identity(), time.Since(*until).Truncate(time.Second))
		}
	}
	w.atMostOne("file or HTTP", claiming, before)
	w.atMostOne("the bare file", bare, before)
	w.checkWork(before)
	w.checkChildren(before)
	w.checkTaken()
	w.checkObeyed()
	w.checkNoted()
}

// claimsNow tells whether an application in p that looks at the leader file and
// at validUntil would act now.
func (p *pod) claimsNow() bool {
	if p.file == nil || p.deleted || p.node.suspended() {
		return false // a suspended machine's application acts as little as its sidecar
	}
	return p.file.ValidUntil == nil || time.Now().Before(*p.file.ValidUntil)
}

// vouchedFor tells whether a living process answers for p's leader file: it is
// awake, and its announcements neither fail nor block.
func (p *pod) vouchedFor() bool {
	proc := p.process
	return proc != nil && proc == p.writer && p.node.up() && !proc.untold && p.mute == mute{} &&
		!proc.telling && time.Since(proc.told) > stampCut
}

// atMostOne looks for two claims at one moment.
func (w *world) atMostOne(by string, leaders []*pod, before map[string]bool) {
	for i, p := range leaders {
		for _, q := range leaders[:i] {
			if why := w.limit(q, p); why != "" {
				w.excuseOverlap(why, q, p, before)
				continue
			}
			w.violate("two leaders by %s: %s and %s", by, q.identity(), p.identity())
		}
	}
}

// excuse counts one case of a documented limit; see "What is not guaranteed" in
// docs/safety.md.
func (w *world) excuse(why, who string) {
	w.note("EXCUSED %s: %s", why, who)
	w.excuses[why]++
}

// excuseOverlap counts an overlap that goes on once.
func (w *world) excuseOverlap(why string, q, p *pod, before map[string]bool) {
	key := fmt.Sprintf("%s: %s/%v and %s/%v", why, q.identity(), q.twin, p.identity(), p.twin)
	if !before[key] && !w.excused[key] {
		w.excuse(why, q.identity()+" and "+p.identity())
	}
	w.excused[key] = true
}

// limit returns the documented limit by which p and q may claim together, or "".
func (w *world) limit(q, p *pod) string {
	if p.identity() == q.identity() {
		return w.twinsUnnoticed(q, p)
	}
	if why := w.unaware(p, q); why != "" {
		return why
	}
	return w.unaware(q, p)
}

// byRestore is how a restored backup erases.
const byRestore = "the datastore was restored"

// An erasure is that somebody took the lock from a claim without the claimant's
// doing: a person, a program that breaks the rules, a restored backup.
type erasure struct {
	how string
	at  time.Time
	// hidden tells that the lock does not show afterwards that there was a claim: only
	// who has seen that can know.
	hidden bool
	// witnesses are the processes that knew of the claim.
	witnesses map[*process]bool
}

// unaware tells why p may claim although q does, whose claim was erased. In lease
// mode those who knew of q wait for its lease to end all the same, so only one
// that can't have known may claim. In leader-for-life there is no such end to
// wait for.
func (w *world) unaware(p, q *pod) string {
	for _, e := range q.erased {
		if w.settings.Mode == elector.ModeLeaderForLife || p.unknowing[q] {
			return e.how
		}
	}
	return ""
}

// erase notes that the claim of whoever has it is taken, by hand unless told
// otherwise.
func (w *world) erase() { w.eraseBy("the lock was edited by hand", true) }

func (w *world) eraseBy(how string, hidden bool) {
	w.lock.edited = time.Now()
	for _, p := range w.pods {
		w.spoilWork(p, "the lock was taken away meanwhile") // it may be held for work alone
		p.gate.spoil("the lock was taken away meanwhile")
		telling := p.process != nil && (p.process.telling || p.process.e.IsLeader())
		if p.file == nil && !telling {
			continue
		}
		e := erasure{how: how, at: time.Now(), hidden: hidden || !w.features["gaps"], witnesses: map[*process]bool{}}
		for _, earlier := range p.erased {
			for proc := range earlier.witnesses {
				e.witnesses[proc] = true
			}
		}
		for _, q := range w.pods {
			if q.process != nil && q.process.e.Leader() == p.name {
				e.witnesses[q.process] = true
			}
		}
		p.erased = append(p.erased, e)
	}
}

// couldKnow tells whether proc, which claims by the lock of that version, could know
// of the claim that e erased.
func (w *world) couldKnow(proc *process, version uint64, e erasure) bool {
	switch {
	case !e.hidden || e.witnesses[proc]:
		return true
	case !w.features["gaps"]:
		return false
	case e.how == byRestore:
		return false // if it goes back to what proc knew, there was nothing
	}
	proc.link.mu.Lock()
	defer proc.link.mu.Unlock()
	if proc.link.answered.IsZero() || proc.link.answered.After(e.at) {
		return false // its first reading came later
	}
	// What it did not see counts against the lock, but a create by who has not heard
	// yet that somebody else created and lost it can't be stopped: absence has no
	// version. The exploration knows exactly when that is so.
	return !w.api.madeBy(w.resource()+"/"+lockName, proc.pod.identity(), version)
}

// claimed checks the fencing token of a claim that starts.
func (w *world) claimed(p *pod, token uint64) {
	w.claims++
	p.unknowing = map[*pod]bool{}
	for _, q := range w.pods {
		for _, e := range q.erased {
			if q != p && !w.couldKnow(p.process, p.last.LockVersion, e) {
				p.unknowing[q] = true
			}
		}
	}
	if !p.claimsNow() {
		return // announcing took longer than the claim lasted
	}
	if w.features["own tokens"] && p.claimedBy == p.process && token < p.largest {
		w.violate("token of one process of %s fell from %d to %d", p.identity(), p.largest, token)
	}
	p.claimedBy, p.largest = p.process, token
	w.checkCourtesy(p)
	falls := token < w.lastToken || p.identity() != w.lastLeader && token <= w.lastToken
	switch {
	case token == 0:
		w.violate("%s claims without a token", p.identity())
	case falls && w.lost > 0: // who has not seen those of before can't know them
		w.excuse("tokens after a restore", fmt.Sprintf("%d of %s after %d", token, p.identity(), w.lastToken))
	case falls && len(p.erased) > 0 && w.settings.Mode == elector.ModeLeaderForLife:
		w.excuse(p.erased[0].how, fmt.Sprintf("%d of %s after %d", token, p.identity(), w.lastToken))
	case falls && p.identity() == w.lastLeader:
		w.violate("token of %s shrank from %d to %d", p.identity(), w.lastToken, token)
	case falls:
		w.violate("token %d of %s is not above %d of %s", token, p.identity(), w.lastToken, w.lastLeader)
	}
	w.lastLeader, w.lastToken = p.identity(), token
}

// checkCourtesy looks for a claim on a lock that was left to somebody else, with whom
// nothing is wrong. A poll may be later than courtesy lasts.
func (w *world) checkCourtesy(p *pod) {
	long := w.recovery()
	by, freed := w.api.taken(w.resource()+"/"+lockName, p.last.LockVersion)
	if freed == nil || time.Since(by.at) > time.Second || !p.willing(long) {
		return
	}
	if w.pollPeriod() > 0 || len(w.api.lags) > 0 || w.deaf > 0 || time.Since(w.lock.edited) <= long || !w.features["courtesy"] {
		return
	}
	order := orderAfter(freed)
	for _, q := range w.pods {
		switch {
		case q == p || !q.willing(long):
		case order(q.name) < order(p.name):
			w.violate("%s took the lock, which version %d had left to %s", p.identity(), freed.version, q.identity())
		case order(q.name) > order(p.name):
			w.happened["taken by who goes first"]++
		}
	}
}

// orderAfter tells who goes first after a release: the lower the number of a name,
// the earlier. Those from the third on are not told apart. After anything else it is
// the same for all.
func orderAfter(release *change) func(name string) int {
	note := release.object.claimNote()
	to, _ := note["to"].(string)
	released, _ := note["released"].(bool)
	holder, _ := note["holder"].(string)
	switch {
	case release.kind == "DELETED":
		to, holder = "", release.object.holder()
	case !released || release.object.holder() != "":
		return func(string) int { return 0 }
	}
	next := elector.ParseNext(release.object.annotation(elector.NextAnnotation))
	line := slices.DeleteFunc(next, func(name string) bool { return name == to || name == elector.NameOf(holder) })
	if to != "" {
		line = slices.Insert(line, 0, to)
	}
	return func(name string) int {
		place := slices.Index(line, name)
		if len(line) == 0 || place == 0 || place == 1 {
			return max(place, 0)
		}
		return 2
	}
}

// twinOf returns another pod of p's identity.
func (w *world) twinOf(p *pod) *pod {
	for _, q := range w.pods {
		if q != p && q.identity() == p.identity() {
			return q
		}
	}
	return nil
}

// twinsUnnoticed excuses two processes of one identity until the first that was
// there must have noticed the second: its next renewal finds another's, or it
// does not get through and the claim ends.
func (w *world) twinsUnnoticed(q, p *pod) string {
	const why = "two processes of one identity, not noticed yet"
	pair, now := [2]*pod{q, p}, time.Now()
	t := w.twins[pair]
	if now.Sub(t.last) > 2*w.checkPeriod() {
		t.since = now
	}
	t.last = now
	w.twins[pair] = t
	if now.Sub(t.since) > p.settings.RenewDeadline {
		return ""
	}
	return why
}

// together is since when two claim together, and when they were last seen to.
type together struct{ since, last time.Time }

// lockState is what the lock was when it was last looked at.
type lockState struct {
	free     bool
	released bool      // by its holder
	since    time.Time // of free and released
	edited   time.Time // by somebody who is no candidate
	holder   string    // before it was free
	named    bool      // it says, or said last, that somebody goes first
	request  string    // what is asked of the leader that it is to obey
	asked    time.Time // since when
	untrue   string    // whose token it tells not, or not right
	told     time.Time // since when
}

func (w *world) lockFree() (free, released bool) {
	o := w.lockObject()
	if w.settings.Mode == elector.ModeLeaderForLife {
		if o == nil {
			return true, true
		}
		owners, _ := o.metadata()["ownerReferences"].([]any)
		return len(owners) == 0, false
	}
	if o == nil {
		return true, false
	}
	spec, _ := o["spec"].(map[string]any)
	holder, _ := spec["holderIdentity"].(string)
	released, _ = o.claimNote()["released"].(bool)
	return holder == "", holder == "" && released
}

// holder is the identity of whom the lock names, of either kind; "" without any.
func (o object) holder() string {
	spec, _ := o["spec"].(map[string]any)
	holder, _ := spec["holderIdentity"].(string)
	owners, _ := o.metadata()["ownerReferences"].([]any)
	if len(owners) > 0 {
		owner, _ := owners[0].(map[string]any)
		name, _ := owner["name"].(string)
		uid, _ := owner["uid"].(string)
		holder = elector.Identity(name, uid)
	}
	return holder
}

// annotation returns one, "" if o has it not, or is not there.
func (o object) annotation(name string) string {
	if o == nil {
		return ""
	}
	annotations, _ := o.metadata()["annotations"].(map[string]any)
	value, _ := annotations[name].(string)
	return value
}

// claimNote is what an elector noted of the claim in the lock; nil without.
func (o object) claimNote() map[string]any {
	var note map[string]any
	if json.Unmarshal([]byte(o.annotation(kube.ClaimAnnotation)), &note) != nil {
		return nil
	}
	return note
}

// checkTaken looks for a lock that stays free although a live, connected, willing
// candidate watches it.
func (w *world) checkTaken() {
	free, released := w.lockFree()
	if free != w.lock.free || released != w.lock.released {
		w.lock.free, w.lock.released, w.lock.since = free, released, time.Now()
		w.markResigned()
	}
	if o := w.lockObject(); o != nil {
		w.lock.holder = o.holder()
		w.lock.named = o.annotation(elector.NextAnnotation) != "" || o.claimNote()["to"] != nil
	}
	if !free || w.deaf > 0 || !w.features["free locks"] {
		return
	}
	long := w.recovery()
	limit := long
	if released && time.Since(w.lock.edited) > long {
		// Nothing to wait for but the news and the write.
		limit = time.Second + 5*w.pollPeriod()
		if len(w.api.lags) > 0 {
			limit += slices.Max(w.api.lags)
		}
		if w.lock.named {
			limit += time.Second // of courtesy
		}
	}
	for _, p := range w.pods {
		if !p.willing(long) {
			continue
		}
		if d := time.Since(w.lock.since); d > limit {
			w.violate("the lock is free for more than %v and %s does not take it", limit, p.identity())
		}
	}
}

// markResigned notes that the last holder has freed the lock, and stands back, if
// it lives and was not told to end.
func (w *world) markResigned() {
	for _, p := range w.pods {
		if w.lock.free && p.identity() == w.lock.holder && p.process != nil && !p.process.leaving {
			p.resigned = time.Now()
		}
	}
}

// checkObeyed looks for a leader that does not do what the lock asks of it.
func (w *world) checkObeyed() {
	o := w.lockObject()
	h, err := elector.ParseHandover(o.annotation(elector.HandoverAnnotation))
	request := ""
	for _, p := range w.pods {
		if err != nil || p.file == nil || p.file.FencingToken != h.Token || p.identity() != o.holder() || p.name == h.To {
			continue
		}
		request = fmt.Sprint(p.identity(), h)
		limit := time.Second + 5*w.pollPeriod()
		if len(w.api.lags) > 0 {
			limit += slices.Max(w.api.lags)
		}
		long := w.recovery()
		if request != w.lock.request || time.Since(w.lock.asked) <= limit || !w.features["handovers"] || w.deaf > 0 || time.Since(w.lock.edited) <= long {
			continue
		}
		if p.willing(long) {
			w.violate("%s leads on although it is asked to hand over: %v", p.identity(), h)
		}
	}
	if request != w.lock.request {
		w.lock.request, w.lock.asked = request, time.Now()
	}
}

// checkNoted looks for a leader whose lock does not tell its token: nobody can ask it
// for anything.
func (w *world) checkNoted() {
	o := w.lockObject()
	if o == nil {
		return
	}
	noted, _ := o.claimNote()["token"].(float64)
	untrue := ""
	for _, p := range w.pods {
		if p.file == nil || p.identity() != o.holder() || p.file.FencingToken == uint64(noted) {
			continue
		}
		untrue = fmt.Sprint(p.identity(), p.file.FencingToken)
		long := w.recovery()
		if untrue != w.lock.untrue || time.Since(w.lock.told) <= p.settings.RenewDeadline || !w.features["handovers"] || w.api.strip || w.deaf > 0 {
			continue
		}
		if time.Since(w.lock.edited) > long && p.willing(long) {
			w.violate("the lock tells token %.0f, the claim of %s has %d", noted, p.identity(), p.file.FencingToken)
		}
	}
	if untrue != w.lock.untrue {
		w.lock.untrue, w.lock.told = untrue, time.Now()
	}
}

// pollPeriod is how long a candidate that may not watch does not look; 0 for one
// that may.
func (w *world) pollPeriod() time.Duration {
	if w.initial.noWatch {
		return w.longest().RetryPeriod
	}
	return 0
}

// willing tells whether nothing is wrong with p, nor has been for so long.
func (p *pod) willing(long time.Duration) bool {
	proc := p.process
	if proc == nil || proc.waits || p.file == nil && p.gate.held() || proc.leaving || proc.resigns > 0 || proc.untold || p.twin || !p.node.up() || p.mute != (mute{}) {
		return false
	}
	if p.troubles > 0 || time.Since(p.troubled) <= long || !p.resigned.IsZero() && time.Since(p.resigned) <= long {
		return false
	}
	return !slices.ContainsFunc(p.w.works, func(k *work) bool { return k.proc == proc })
}

// longest are the largest settings of any candidate.
func (w *world) longest() elector.Settings {
	s := w.settings
	for _, p := range w.pods {
		s.LeaseDuration = max(s.LeaseDuration, p.settings.LeaseDuration)
		s.RenewDeadline = max(s.RenewDeadline, p.settings.RenewDeadline)
		s.RetryPeriod = max(s.RetryPeriod, p.settings.RetryPeriod)
	}
	return s
}

// recovery is how long after the last fault a leader has to exist. A term that
// somebody wrote a huge duration into may last a day.
func (w *world) recovery() time.Duration {
	if w.happened["huge duration"] > 0 {
		return recovery(w.longest()) + maxTerm
	}
	return recovery(w.longest())
}

// maxTerm is the longest lease-duration that settings may have, and so the
// longest that anybody waits for a holder.
const maxTerm = 24 * time.Hour
