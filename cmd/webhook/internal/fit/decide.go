package fit

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

const (
	// firstBackoff is between the first handover that is asked for and the second; it
	// doubles up to maxBackoff.
	firstBackoff, maxBackoff = 30 * time.Second, 10 * time.Minute
	// forgetAfter is how long one leader has to be fit for the backoff to begin anew.
	forgetAfter = 10 * time.Minute
	// restartPause is for how long a lock is left alone whose leader's sidecar is down:
	// it is being started again, and goes on with its claim only if the lock is as it was
	// left. A lease has run out by then, unless it is longer. resumePause is for how long
	// after it is up, which it is told to be before it has read the lock.
	restartPause, resumePause = 15 * time.Second, 2 * time.Second
)

// decision is what is to be done about a lock.
type decision struct {
	// ask is the request to be written, or none: its token is 0.
	ask elector.Handover
	// allSick tells, once, that the leader would be asked if anybody else were fit.
	allSick bool
	// next is what elector.io/next is to say, and write whether it is to be written
	// now. back tells that it names somebody anew who has been fit before.
	next        string
	write, back bool
	// again is when to decide once more though nothing has changed; 0 if then there is
	// nothing to do either.
	again time.Duration
	// leader leads. It is none where no candidate of ours does, and then there is
	// nothing to do.
	leader candidates.Pod
	// misled tells that the leader is not fit while another candidate is.
	misled bool
}

// memory is what was seen of one lock and its candidates. The zero value is that
// of a manager that has seen nothing.
type memory struct {
	pods map[types.UID]*health
	// leader is who led when it was last looked, and since when.
	leader      types.UID
	leaderSince time.Time
	// asked is the token of the claim whose end was asked for last, and askedAt when
	// that was; backoff is what has to pass before the next time, and 0 at first.
	asked   uint64
	askedAt time.Time
	backoff time.Duration
	// toldSick is that it was told that nobody is fit, which is still so.
	toldSick bool
	// noted is what was written to elector.io/next last.
	noted   string
	notes   notes
	renewed renewal
}

// decide looks at a lock and those of its pods that contend. It changes nothing but
// what the memory has seen: what was written, done tells.
func decide(m *memory, l locks.Lock, facts locks.Facts, pods []candidates.Pod, now time.Time) (d decision) {
	m.forget(now)
	m.look(pods, now)
	if slices.ContainsFunc(pods, isFit) {
		m.toldSick = false
	}
	leads := func(p candidates.Pod) bool { return p.Identity() == facts.Holder }
	i := slices.IndexFunc(pods, leads)
	if i < 0 {
		m.leader = ""
		return decision{write: abandoned(facts, pods)}
	}
	d.leader = pods[i]
	m.lead(d.leader, now)
	others := slices.DeleteFunc(slices.Clone(pods), func(p candidates.Pod) bool { return leads(p) || p.Fitness.State == fitness.Over })
	d.next = nextOf(d.leader, others)
	m.schedule(&d, facts, pods, now)
	unfit := d.leader.Fitness.State == fitness.Broken || d.leader.Fitness.State == fitness.Unready
	d.misled = unfit && d.leader.Failover.When != inject.HandoverNever && slices.ContainsFunc(others, isFit)
	m.judge(&d, l, facts, others, now)
	return d
}

// abandoned tells whether a lock is free and its pods all go, as those of a workload
// that is scaled to none, but still in the list: those that come later would wait for
// them. It is written at once, because the pods are gone in a moment.
func abandoned(facts locks.Facts, pods []candidates.Pod) bool {
	stays := func(p candidates.Pod) bool { return p.Fitness.State != fitness.Over }
	return facts.Holder == "" && !facts.IsNext("") && !slices.ContainsFunc(pods, stays)
}

// schedule says whether next is to be written now, or when. Nobody else waits for
// those who come back: least of all who leaves, who goes first as long as the list
// has him.
func (m *memory) schedule(d *decision, facts locks.Facts, pods []candidates.Pod, now time.Time) {
	if facts.IsNext(d.next) {
		return
	}
	prompt, known := m.prompt(d, facts, pods)
	d.back = !known || d.next != prompt
	wait := m.notes.pause(now)
	if d.back {
		wait = m.notes.wait(now)
	}
	if known && wait > 0 && !facts.IsNext(prompt) {
		d.next, d.back, d.again, wait = prompt, false, wait, m.notes.pause(now)
	}
	wait = max(wait, m.pods[d.leader.UID].restarting(now))
	d.write = wait == 0
	d.again = sooner(d.again, wait)
}

// prompt returns those of next whom the lock names already or who have been fit
// ever since they were first, none if that is the leader alone, provided that it is
// known whom the lock names: it is not kept if it is long.
func (m *memory) prompt(d *decision, facts locks.Facts, pods []candidates.Pod) (prompt string, known bool) {
	before := facts.Next
	if facts.IsNext(m.noted) {
		before = m.noted
	}
	named, lapsed := elector.ParseNext(before), map[string]bool{}
	for _, p := range pods {
		lapsed[p.Name] = m.pods[p.UID].lapsed
	}
	names := slices.DeleteFunc(elector.ParseNext(d.next), func(name string) bool { return lapsed[name] && !slices.Contains(named, name) })
	if slices.Equal(names, []string{d.leader.Name}) {
		names = nil
	}
	return elector.FormatNext(names), before == "" || len(named) > 0
}

// judge says whether the leader is to be asked for a handover, or when that is to
// be looked at again. What depends on news comes with them.
func (m *memory) judge(d *decision, l locks.Lock, facts locks.Facts, others []candidates.Pod, now time.Time) {
	since, sick := m.pods[d.leader.UID].sick(d.leader)
	if !sick || len(others) == 0 {
		return // or nobody could lead instead, and the pod says itself what ails it
	}
	if l.Mode == elector.ModeLeaderForLife && d.leader.Fitness.Works && d.leader.Failover.When != inject.HandoverUnready {
		return // what began to work because it leads may never look again: the mode says that it need not
	}
	patience := d.leader.Failover.For
	// One whose sidecar is down could not obey, nor go on with a claim that it is asked
	// to end.
	early := max(patience-now.Sub(since), m.pods[d.leader.UID].restarting(now))
	if !slices.ContainsFunc(others, isFit) {
		d.allSick = early <= 0 && !m.toldSick
		d.again = sooner(d.again, max(0, early))
		return
	}
	able, soonest := m.able(others, patience, now)
	if len(able) == 0 {
		early = max(early, soonest)
	}
	if m.backoff > 0 {
		early = max(early, m.backoff-now.Sub(m.askedAt))
	}
	switch {
	case facts.Token == 0 || facts.Token == m.asked || facts.Asked:
		return // it has yet to note its token, or somebody has asked
	case early > 0:
		d.again = sooner(d.again, early)
		return
	}
	d.ask = elector.Handover{Token: facts.Token, Why: locks.WhyUnfit + d.leader.Fitness.Reason}
	if l.Mode == elector.ModeLease {
		d.ask.To = m.best(able).Name
	}
}

// able returns those that have been fit for long enough, and how soon one more of
// those that are fit will have been.
func (m *memory) able(others []candidates.Pod, patience time.Duration, now time.Time) (able []candidates.Pod, soonest time.Duration) {
	for _, p := range others {
		if !isFit(p) {
			continue
		}
		left := patience - now.Sub(m.pods[p.UID].fit)
		if left <= 0 {
			able = append(able, p)
		} else {
			soonest = sooner(soonest, left)
		}
	}
	return able, soonest
}

// done is told that what was decided was written.
func (m *memory) done(d decision, now time.Time) {
	if d.write {
		m.notes.wrote(now, d.back)
		m.noted = d.next
	}
	m.toldSick = m.toldSick || d.allSick
	if d.ask.Token == 0 {
		return
	}
	m.asked, m.askedAt = d.ask.Token, now
	m.backoff = min(max(2*m.backoff, firstBackoff), maxBackoff)
}

// forget begins with the backoff anew if one leader has been fit for long, until now.
func (m *memory) forget(now time.Time) {
	h := m.pods[m.leader]
	if h == nil || h.fit.IsZero() {
		return
	}
	since := h.fit
	if since.Before(m.leaderSince) {
		since = m.leaderSince
	}
	if now.Sub(since) >= forgetAfter {
		m.backoff = 0
	}
}

// lead notes who leads.
func (m *memory) lead(leader candidates.Pod, now time.Time) {
	if m.leader != leader.UID {
		m.leader, m.leaderSince = leader.UID, now
	}
}

// look notes how the pods are now, and forgets those that are gone.
func (m *memory) look(pods []candidates.Pod, now time.Time) {
	seen := make(map[types.UID]*health, len(pods))
	for _, p := range pods {
		h := m.pods[p.UID]
		if h == nil {
			h = &health{}
		}
		h.see(p, now)
		seen[p.UID] = h
	}
	m.pods = seen
}

// best is the candidate to lead next: of the newest revision, and of these the one
// that has been fit for longest. There must be one.
func (m *memory) best(able []candidates.Pod) candidates.Pod {
	newest := revisionsOf(able)[0]
	return slices.MinFunc(able, func(a, b candidates.Pod) int {
		if a.Revision != b.Revision && (a.Revision == newest || b.Revision == newest) {
			if a.Revision == newest {
				return -1
			}
			return 1
		}
		return cmp.Or(m.pods[a.UID].fit.Compare(m.pods[b.UID].fit), cmp.Compare(a.Name, b.Name))
	})
}

func isFit(p candidates.Pod) bool { return p.Fitness.State == fitness.Fit }

// sooner is the shorter of two pauses, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}
