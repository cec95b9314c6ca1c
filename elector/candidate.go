package elector

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// operation is a write that the candidate wants done on its lock.
type operation string

const (
	opNone    operation = ""
	opAcquire operation = "acquire" // takes the lock from whoever had it
	opRenew   operation = "renew"   // goes on with a lock that names this candidate
	opRelease operation = "release"
)

// A claim ends for one of these reasons.
type lossReason string

const (
	lossExpired  lossReason = "expired"  // it could not be renewed in time
	lossTaken    lossReason = "taken"    // the lock names another holder
	lossErased   lossReason = "erased"   // the lock names no holder, or is gone
	lossTwin     lossReason = "twin"     // somebody else writes the lock in this candidate's name
	lossResigned lossReason = "resigned" // Resign was called
	lossStopped  lossReason = "stopped"  // Run's context ended
	lossUntold   lossReason = "untold"   // the claim could not be announced
	lossHandover lossReason = "handover" // the lock asked for it
	lossYielded  lossReason = "yielded"  // Yield was called, and somebody is to follow
)

const (
	// minJitter spreads the candidates that see a lock become free at the same
	// moment, so that most see the first one's write before they try.
	minJitter = 8 * time.Millisecond
	// maxJitter is what spreads them where requests take long.
	maxJitter = 500 * time.Millisecond
	// doubtPatience is how long after a conflict the watch may take to show what
	// changed before the lock is read again.
	doubtPatience = 200 * time.Millisecond
	// firstBackoff is the pause after a standby's first failed request; it
	// doubles up to maxBackoff retry-periods. It is also the least for a leader.
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 2
	// retryFraction of what is left of a claim passes at most between two tries to
	// renew it.
	retryFraction = 3
	// renewFraction of the renew-deadline passes between renewals: seldom enough
	// to cost little, often enough for two more tries when one hangs.
	renewFraction = 3
	// maxUnanswered is over how many states of the lock writes of unknown outcome are
	// remembered. One that is forgotten and arrives all the same is taken for somebody
	// else's, and so costs a lease-duration, not safety.
	maxUnanswered = 16
	// tokenLead is how far above what was seen a noted token may be. Only a datastore
	// that was set back that far makes a larger one; what is above was made up. And a
	// forger needs a million writes to leave the numbers that JSON readers keep exact.
	tokenLead = 1 << 32
	// maxTwins limits how often the pause doubles after which a leader-for-life goes on
	// with a lock that somebody else writes in its name.
	maxTwins = 6
	// twinMemory is how long such a pause is remembered.
	twinMemory = time.Hour
	// longCourtesy is how long a candidate leaves a lock that is due to those who are
	// to go first: time enough for them to see it and write, and no more is lost when
	// they are gone. shortCourtesy is the same for one that comes right after the first:
	// most of a second, because when hundreds of leaders leave at once it takes about
	// half of one until the others see that the first has written.
	longCourtesy  = time.Second
	shortCourtesy = longCourtesy * 3 / 4
)

const forever = time.Duration(math.MaxInt64)

// term is this process' time as the holder of the lock: it begins with the answer
// to a write of its own, and a claim is a part of it.
type term struct {
	token uint64
	// renewed is when the last successful write was sent, on the Clock; a claim
	// ends renew-deadline later. It plays no part in leader-for-life.
	renewed time.Duration
	// made is the version at which there was no lock yet, if the term began by making
	// it, else 0.
	made uint64
	// noted tells that the lock says the token, or was written since that is known.
	noted bool
}

// write is one that was sent, or the tries of one. Its answer may never come, and
// it may be carried out long after that.
type write struct {
	op          operation
	base        Record
	first, last attempt
	// change is how often the known record had changed when the write was sent.
	change int
}

// attempt is what a write can be known by: its number, and where something strips
// notes the time in it, which is later with every try.
type attempt struct {
	number int
	wall   time.Time
	sent   time.Duration
}

// candidate is what one candidate knows and what it does next. It is pure: no
// I/O, no clock, no goroutine; every time is a Clock's. Nobody but its methods
// touches its fields.
type candidate struct {
	settings   Settings
	identity   string
	grace      time.Duration // how long the application may go on with the last claim's work
	unyielding bool          // never resigns
	process    string        // begins the names of this process' writes
	last       *Status       // what an earlier process of this candidate told last; nil if none did
	jitter     func(time.Duration) time.Duration

	// What was seen.
	known   bool          // rec has been read at least once
	rec     Record        // the newest state of the lock that was seen
	change  int           // how often rec changed
	seen    time.Duration // when the holder or its renewal in rec was seen to change, plus a jitter
	freed   time.Duration // when another holder was seen to be gone; 0 when the last one was this candidate
	latency time.Duration // what the last request took
	highest uint64        // the highest token that was seen
	first   []string      // who goes first when the lock becomes free, as it said last
	before  string        // the name of the last holder that was seen

	// Readings are numbered in the order in which they begin.
	reading  int           // the last that began
	readAt   time.Duration // when
	source   int           // the one whose sightings rec follows on
	outdated int           // those up to this one began before rec was known

	// guard is until when somebody whom rec does not show may still claim.
	guard time.Duration

	// What this process holds.
	held     bool   // rec is by a write of this process, or just what its predecessor claimed by
	resume   uint64 // the predecessor's token, if the latter
	twin     bool   // somebody else wrote it in this candidate's name
	twins    int    // how often that began lately
	twinAt   time.Duration
	term     *term
	claiming bool
	loss     lossReason    // why the last claim ended
	handover time.Duration // when the lock that the term began with had become free; 0 if it had not

	// Writes, one at a time.
	writing    *write
	unanswered []write       // those whose outcome is unknown
	writes     int           // how many were sent
	retry      time.Duration // no write before
	failures   int           // writes failed in a row
	holdOff    time.Duration // after resigning: no acquire before

	doubt    bool          // a write found rec out of date, or its outcome matters and is unknown
	doubtAt  time.Duration // when to read again if nothing newer was seen
	doubtful int           // readings up to this one can't dispel the doubt

	busy      bool          // the application has not let go of the last claim yet
	busyUntil time.Duration // how long the lock is held for that
	resigning bool          // release, then hold off
	stopping  bool          // release, then end
	leaveBy   time.Duration // when to end without having released
}

// leads tells whether the claim holds at now.
func (c *candidate) leads(now time.Duration) bool { return c.claiming && now < c.claimEnd() }

// claimEnd is when the claim ends by itself: after renew-deadline in lease mode,
// never in leader-for-life, nor without a claim.
func (c *candidate) claimEnd() time.Duration {
	if !c.claiming || c.forLife() {
		return forever
	}
	return c.term.renewed + c.settings.RenewDeadline
}

// view is what there is to tell at now.
func (c *candidate) view(now time.Duration) view {
	switch {
	case c.leads(now):
		v := view{role: RoleLeader, leader: NameOf(c.identity), token: c.term.token, version: c.rec.Version}
		if !c.forLife() {
			v.renewed = c.term.renewed
		}
		return v
	case c.known && !c.named() && !c.overdue(now):
		return view{role: RoleStandby, leader: NameOf(c.rec.Holder)}
	case c.busy && c.term != nil && !c.forLife():
		return view{role: RoleStandby, held: c.term.renewed + c.settings.RenewDeadline}
	case c.stopping && c.forLife() && c.term != nil && !c.resigning:
		return view{role: RoleStandby, version: c.rec.Version} // the lock stays, for the next process to go on with
	}
	return view{role: RoleStandby}
}

// view is what a candidate is, as far as others are told.
type view struct {
	role    Role
	leader  string
	token   uint64
	version uint64        // of the lock
	renewed time.Duration // lease mode only
	// held is until when the lock is surely held for the work of the last claim, 0 if
	// it is not.
	held time.Duration
}

// holder is whom the lock names, or "".
func (c *candidate) holder() string { return c.rec.Holder }

// twinned tells whether somebody else writes the lock in this candidate's name.
func (c *candidate) twinned() bool { return c.twin }

// lost is why the last claim ended.
func (c *candidate) lost() lossReason { return c.loss }

// tookOver is when the lock had become free that the claim began with, 0 if it had
// not, or if this is not the first claim of the term.
func (c *candidate) tookOver() time.Duration { return c.handover }

func (c *candidate) forLife() bool { return c.settings.Mode == ModeLeaderForLife }

// named tells whether the lock names this candidate. That alone says nothing about
// who wrote it there.
func (c *candidate) named() bool { return c.rec.Exists && c.rec.Holder == c.identity }

// beginReading returns the number of a reading that begins at now.
func (c *candidate) beginReading(now time.Duration) int {
	c.reading++
	c.readAt = now
	return c.reading
}

// observe takes in a state of the lock that the reading of that number saw at now.
// A reading begins with the state as it is, then reports every change.
func (c *candidate) observe(rec Record, reading int, now time.Duration) {
	if reading != c.source {
		c.latency = now - c.readAt
	}
	gap := reading != c.source || rec.Missed // what happened between the last known state and rec was not seen
	c.source = reading
	if c.known && reading <= c.outdated && rec.Version < c.rec.Version {
		c.hear(rec, now)
		// Late news, or so it seems: of a datastore that was restored meanwhile the
		// same is heard. A reading that begins from now on tells.
		if gap {
			c.distrust(now + doubtPatience)
		}
		return
	}
	// A reading that began after rec was known is the truth also if its version is
	// lower.
	if reading > c.doubtful || rec.Version > c.rec.Version {
		c.doubt = false
	}
	c.outdated = c.reading
	if c.known && rec.Version == c.rec.Version && rec.sameTerm(c.rec) {
		return
	}
	c.adopt(rec, c.holds(rec, gap, now), gap, now)
}

// hear takes in late news. They tell of somebody who made the lock and lost it
// while this candidate was about to make it: nothing in the API forbids that, but
// that one may claim still.
func (c *candidate) hear(rec Record, now time.Duration) {
	if c.term == nil || c.term.made == 0 || rec.Version <= c.term.made || rec.Holder == "" || rec.Holder == c.identity || c.forLife() {
		return
	}
	c.guard = max(c.guard, now+c.patience(rec))
	c.end(lossErased, now)
}

// adopt makes rec the known state of the lock. held tells whether it is this
// process', gap that there may have been other states in between.
func (c *candidate) adopt(rec Record, held, gap bool, now time.Duration) {
	prev := c.rec
	if c.hides(rec, held, gap, now) {
		// Counted from now: that holder may have renewed since it was seen last.
		c.guard = max(c.guard, now+max(c.patience(prev), c.patience(rec)))
	}
	if rec.Holder == "" && (prev.Holder != "" || !c.known) {
		c.freed = now
		if c.held {
			c.freed = 0
		}
	}
	switch {
	case !c.known: // candidates seldom start at the same moment
		c.seen = now
	case gap || !rec.sameTerm(prev): // in a gap the holder may have renewed, and that been put back
		c.seen = now + c.jitter(min(max(minJitter, c.latency/2), maxJitter))
	}
	if rec.Holder != "" && rec.Holder != c.identity {
		c.holdOff = 0 // the one who resigned was relieved
	}
	another := rec.Holder == c.identity && !held // somebody else in this candidate's name
	if another && c.held {
		c.noticeTwin(now)
	}
	c.twin = another && (c.twin || c.held)
	if !held {
		c.highest = max(c.highest, c.tokenOf(rec))
	}
	c.rec, c.known, c.held = rec, true, held
	if rec.Exists { // one that is deleted takes both along
		c.first = ParseNext(rec.Next)
	}
	if holder := cmp.Or(rec.Holder, rec.Note.Holder); holder != "" {
		c.before = NameOf(holder)
	}
	c.change++
	c.outdated = c.reading
	// What goes against another version can't be carried out any more.
	c.unanswered = slices.DeleteFunc(slices.Clone(c.unanswered), func(w write) bool { return w.base.Exists })
	if !held {
		c.lose(now)
	}
}

// noticeTwin takes in that somebody else begins to write the lock in this
// candidate's name. In leader-for-life nothing shows when that one is gone, so the
// lock is left to it for a while, and for longer each time.
func (c *candidate) noticeTwin(now time.Duration) {
	if now > c.twinAt+twinMemory {
		c.twins = 0
	}
	if c.forLife() {
		c.guard = max(c.guard, now+c.settings.LeaseDuration<<min(c.twins, maxTwins))
	}
	c.twins++
	c.twinAt = now
}

// tokenOf is the token of another's term as far as rec tells, 0 if it does not.
func (c *candidate) tokenOf(rec Record) uint64 {
	switch {
	case rec.Note.Token > max(rec.Version, c.highest)+tokenLead:
		return 0
	case rec.elected() && rec.Note.Token == 0:
		return rec.Version // it is not noted yet, and not above the version
	}
	return rec.Note.Token
}

// lose draws the consequences of a lock that is not, or no longer, this process'.
func (c *candidate) lose(now time.Duration) {
	c.term, c.resume = nil, 0
	if c.resigning && c.rec.Holder == "" {
		c.holdOff = now + c.settings.LeaseDuration // it may have held the lock for long after resigning
	}
	c.resigning = c.resigning && c.releasable()
	switch {
	case c.twin:
		c.end(lossTwin, now)
	case c.rec.Holder == "":
		c.end(lossErased, now)
	default:
		c.end(lossTaken, now)
	}
}

// holds tells whether rec is by a write of this process, or just what the last
// process of this candidate claimed by.
func (c *candidate) holds(rec Record, gap bool, now time.Duration) bool {
	switch {
	case !rec.Exists || rec.Holder != c.identity:
		return false
	case !c.known:
		c.resume = c.resumable(rec)
		return c.resume != 0
	}
	return c.continues(rec, gap, now) || slices.ContainsFunc(c.sent(), func(w write) bool {
		return !w.base.Exists && (gap || !c.rec.Exists) && c.made(rec, w)
	})
}

// continues tells whether rec, in this candidate's name, follows on what was known:
// by nothing but an edit of labels, or by a write of this process against the known
// version. After a gap it may also have been put back; then it is believed only while
// nobody else can have led since. A write that creates the lock does not follow: who
// knows what came and went before it.
func (c *candidate) continues(rec Record, gap bool, now time.Duration) bool {
	recent := func(sent time.Duration) bool {
		return !gap || !c.forLife() && now < sent+c.settings.RenewDeadline
	}
	if c.held && rec.sameTerm(c.rec) {
		return c.term == nil && !gap || c.term != nil && recent(c.term.renewed)
	}
	return slices.ContainsFunc(c.sent(), func(w write) bool {
		return w.base.Exists && w.base.Version == c.rec.Version && c.made(rec, w) && recent(w.first.sent)
	})
}

// made tells whether the write, or one of its tries, led to rec.
func (c *candidate) made(rec Record, w write) bool {
	if rec.Note.Write == "" {
		return !rec.RenewTime.Before(w.first.wall) && !rec.RenewTime.After(w.last.wall)
	}
	number, ok := strings.CutPrefix(rec.Note.Write, c.process+".")
	n, err := strconv.Atoi(number)
	return ok && err == nil && n >= w.first.number && n <= w.last.number
}

// resumable returns the token of the last process of this candidate if rec is the
// very state that it claimed by, or, for life, that it left when it was stopped:
// then nobody can have led since. Else it returns 0. Being named is not enough:
// anybody can write a name, or put back an old state.
func (c *candidate) resumable(rec Record) uint64 {
	switch {
	case c.last == nil, c.last.LockVersion != rec.Version, !rec.elected():
		return 0
	case c.last.Role != RoleLeader && !c.forLife():
		return 0
	case c.last.Role != RoleLeader:
		return cmp.Or(rec.Note.Token, rec.Version) // what was not noted is at most the version
	case rec.Note.Token != 0 && rec.Note.Token != c.last.FencingToken:
		return 0
	}
	return c.last.FencingToken
}

// sent returns the writes that may have been carried out or may still be.
func (c *candidate) sent() []write {
	if c.writing == nil {
		return c.unanswered
	}
	return append(slices.Clip(c.unanswered), *c.writing)
}

// hides tells whether somebody whom rec does not show may claim, as far as what
// was seen before and rec itself can tell: the holder that was known, when
// somebody else erased it, by hand or like client-go's LeaderElector does; or one
// that came and went in a gap. Such a holder may be cut off, not know it, and
// claim on until its lease has run out.
func (c *candidate) hides(rec Record, held, gap bool, now time.Duration) bool {
	prev := c.rec
	another := c.known && prev.Holder != "" && !c.held // one that was seen
	switch {
	case c.forLife():
		// There is no end to wait for, but time for that holder to see it.
		return another && prev.Holder != c.identity && rec.Holder == c.identity && !held
	case c.known && rec.Version < prev.Version:
		return true // the datastore was restored: whoever led meanwhile may not have heard of it
	case held:
		return c.known && gap && !c.continues(rec, gap, now)
	case another && rec.Holder == prev.Holder:
		return false
	case !c.known && rec.Exists:
		return rec.Holder == "" && !rec.released() && !rec.releasedByOther()
	case !c.known:
		return c.last != nil // an earlier process of this candidate was here, and so was the lock perhaps
	case rec.elected():
		return another && !follows(rec, prev) // else it has waited for those before it
	case rec.released():
		return (another || gap) && !follows(rec, prev)
	case rec.Holder != "":
		return another // of one that was not seen, its own lease is at least as long
	case another && prev.Note.Holder == "" && rec.releasedByOther():
		return false // another program's release can't be told from an erasure; it is believed
	}
	return another || gap
}

// follows tells whether the write that made rec replaced prev: else there was
// another in between, or somebody put an old state back. Between polls there often
// is another, and it has to do that the write is not older than what was known.
func follows(rec, prev Record) bool {
	return rec.Note.After == prev.Version || rec.Missed && rec.Note.After > prev.Version
}

// settle draws the conclusions of the time.
func (c *candidate) settle(now time.Duration) {
	if c.claiming && !c.leads(now) {
		c.end(lossExpired, now)
	}
}

// end ends the claim, if there is one.
func (c *candidate) end(why lossReason, now time.Duration) {
	if !c.claiming {
		return
	}
	c.claiming, c.loss, c.handover = false, why, 0
	c.busyUntil = now + min(c.grace, forever-now)
}

// working takes in that the application began to work for a claim.
func (c *candidate) working() { c.busy = true }

// worked takes in that the application has let go of the last claim.
func (c *candidate) worked(now time.Duration) {
	c.busy = false
	c.leaveBy = now + c.settings.RenewDeadline
}

// resign ends the claim and frees the lock; for a lease-duration, or until
// another one holds it, this candidate stands back.
func (c *candidate) resign(why lossReason, now time.Duration) {
	if !c.claiming && !c.releasable() {
		return // nothing to give up
	}
	c.end(why, now)
	c.resigning = true
	c.retry, c.failures = now, 0
}

// yield is resign for a leader who need not lead on, and tells whether it is done: only
// if the lock names somebody who is to follow. In leader-for-life the Pod leads on.
func (c *candidate) yield(now time.Duration) bool {
	me := NameOf(c.identity)
	if !c.leads(now) || c.forLife() || !slices.ContainsFunc(c.first, func(name string) bool { return name != me }) {
		return false
	}
	c.resign(lossYielded, now)
	return true
}

// obey gives the lock up if that is what it asks for, and tells whether that is new.
// The request speaks of one term, which ends by it: so it is obeyed once, whatever
// becomes of it. It may have been seen already by the process whose claim this one
// could resume.
func (c *candidate) obey(now time.Duration) (request Handover, obeyed bool) {
	if c.resigning || !c.asked() {
		return Handover{}, false
	}
	c.resign(lossHandover, now)
	return c.rec.Handover, true
}

// asked tells whether the lock asks this candidate to give it up.
func (c *candidate) asked() bool {
	token := c.heldToken()
	return !c.unyielding && token != 0 && c.rec.Handover.Token == token && c.rec.Handover.To != NameOf(c.identity)
}

// unheeded says why this candidate, the holder, does not do what the lock asks for,
// empty if it does or nothing is asked.
func (c *candidate) unheeded() string {
	h, token := c.rec.Handover, c.heldToken()
	switch {
	case token == 0:
		return "" // it is for the holder to say
	case c.rec.HandoverFault != "":
		return c.rec.HandoverFault
	case h.Token == 0 || c.asked():
		return ""
	case h.Token != token:
		return fmt.Sprintf("%s speaks of the claim with token %d, and this one's is %d", HandoverAnnotation, h.Token, token)
	}
	if c.unyielding {
		return HandoverAnnotation + " is not for this leader, whose application is stopped by the end of its Pod alone"
	}
	return fmt.Sprintf("%s is to %q, who leads already", HandoverAnnotation, h.To)
}

// stop ends the claim and frees the lock where the mode says so.
func (c *candidate) stop(now time.Duration) {
	c.end(lossStopped, now)
	c.stopping = true
	c.leaveBy = now + c.settings.RenewDeadline
	c.retry, c.failures = now, 0
}

// releasable tells whether the lock is this candidate's to free. In
// leader-for-life it is its Pod's, whichever process took it.
func (c *candidate) releasable() bool {
	return c.held || c.forLife() && c.named() && !c.twin
}

// denied takes in that the lock may not be read or written, or no more.
func (c *candidate) denied(now time.Duration) {
	// One that stops is not kept: its namespace or its permissions are being removed.
	c.leaveBy = min(c.leaveBy, now+c.settings.RetryPeriod)
}

// leaveAt is when a candidate that stops ends whether or not it has released.
func (c *candidate) leaveAt() time.Duration {
	switch {
	case !c.stopping:
		return forever
	case c.busy:
		return c.busyUntil
	}
	return c.leaveBy
}

// done tells whether a candidate that stops has nothing left to release.
func (c *candidate) done() bool {
	switch {
	case !c.stopping || c.busy || c.writing != nil:
		return false
	case !c.known, c.forLife() && !c.resigning:
		return true
	}
	return !c.doubt && !c.releasable()
}

// next says what to write now, or when to ask again. It does nothing that rec does
// not justify: every write goes against rec's version.
func (c *candidate) next(now time.Duration) (operation, time.Duration) {
	deadline := c.claimEnd()
	switch {
	case c.writing != nil || !c.known || c.rec.Foreign != "":
		return opNone, deadline
	case c.doubt && now < c.doubtAt:
		return opNone, min(deadline, c.doubtAt)
	case c.doubt:
		return opNone, deadline // a reading is under way
	}
	op, at := c.wish(now)
	if op != opNone {
		at = max(at, c.retry)
	}
	if op == opNone || now < at {
		return opNone, min(at, deadline)
	}
	return op, now
}

// wish is the next write that the record and the candidate's state call for, and
// the earliest time for it.
func (c *candidate) wish(now time.Duration) (operation, time.Duration) {
	leaving := c.resigning || c.stopping && !c.forLife() // in leader-for-life the Pod may live on, and its lock with it
	switch {
	case c.busy && !c.claiming:
		return c.hold(now)
	case leaving && c.releasable():
		return opRelease, now
	case c.stopping || c.resigning:
		return opNone, forever
	case c.claiming && c.forLife():
		if !c.term.noted {
			return opRenew, now // who asks for a handover has to know the token
		}
		return opNone, forever
	case c.claiming:
		return opRenew, c.renewal()
	case c.held, c.forLife() && c.named():
		// A claim begins with a write, whatever the lock says already: it proves that
		// nobody changed the lock, and makes whatever is still under way come too late.
		return opRenew, max(c.guard, c.holdOff)
	case !c.rec.Exists && c.source != c.reading:
		return opNone, forever // a creation goes against nothing: the reading that has begun may know better
	case c.rec.Holder == "":
		return opAcquire, max(c.seen, c.guard, c.holdOff) + c.courtesy()
	case c.forLife():
		return opNone, forever
	}
	// Another holder, or this candidate's name by another hand.
	return opAcquire, max(c.seen+c.patience(c.rec), c.guard, c.holdOff) + c.courtesy()
}

// courtesy is how much longer than it has to this candidate leaves a lock that is
// due to others: the one whom the last holder released it to, then those whom the
// lock names, one after the other. Two that went at once would both write, and one
// write would be for nothing just when an API server has the most to do. If those
// before this one are gone, that is all that it costs.
func (c *candidate) courtesy() time.Duration {
	me, to := NameOf(c.identity), ""
	if c.rec.released() && !c.forLife() {
		to = c.rec.Note.To
	}
	line := slices.DeleteFunc(slices.Clone(c.first), func(name string) bool {
		return name == to || name == c.before // who held the lock last is over, or stands back
	})
	if to != "" {
		line = slices.Insert(line, 0, to)
	}
	switch {
	case len(line) == 0, line[0] == me:
		return 0
	case len(line) > 1 && line[1] == me:
		return shortCourtesy
	}
	return longCourtesy
}

// hold keeps the lock while the application still works for a claim that is over,
// for as long as it was granted: so that nobody else begins beside it.
func (c *candidate) hold(now time.Duration) (operation, time.Duration) {
	if c.term == nil || c.forLife() || now >= c.busyUntil {
		return opNone, forever
	}
	return opRenew, c.renewal()
}

// renewal is when the lock is to be renewed.
func (c *candidate) renewal() time.Duration {
	return c.term.renewed + c.settings.RenewDeadline/renewFraction
}

// send notes that op is sent now and returns the record to write, and over which.
func (c *candidate) send(op operation, now time.Duration, wall time.Time) (base, want Record) {
	base, want = c.rec, c.rec
	c.writes++
	want.Note = Note{Holder: c.identity, Write: c.process + "." + strconv.Itoa(c.writes)}
	if base.Exists {
		want.Note.After = base.Version
	}
	wall = wall.Truncate(time.Microsecond) // as the Lease stores it
	switch op {
	case opNone:
	case opRelease:
		want.Holder, want.Note.Released, want.Note.Token = "", true, c.knownToken()
		if c.asked() {
			want.Note.To, want.Note.Why = base.Handover.To, base.Handover.Why
		}
	case opRenew:
		want.RenewTime = wall
		want.Note.Token = c.knownToken()
	case opAcquire:
		if c.handover = 0; base.Holder == "" {
			c.handover = c.freed
		}
		want.Holder = c.identity
		want.AcquireTime, want.RenewTime = wall, wall
		if base.Exists {
			want.Transitions = (base.Transitions + 1) & math.MaxInt32 // the API takes no negative ones
		}
		want.Note.Token = c.knownToken()
	}
	if op != opRenew {
		want.Handover, want.HandoverFault = Handover{}, "" // it is done, or speaks of another's term
	}
	if op != opRelease && !c.forLife() {
		want.LeaseDuration, want.Note.LeaseDuration = c.settings.LeaseDuration, c.settings.LeaseDuration
		if want.RenewTime.Equal(base.RenewTime) {
			// A renewal has to differ from the one before, or standbys can't see it.
			want.RenewTime = want.RenewTime.Add(time.Microsecond)
		}
	}
	try := attempt{c.writes, want.RenewTime, now}
	c.writing = &write{op: op, base: base, first: try, last: try, change: c.change}
	return base, want
}

// answered returns the write that was under way.
func (c *candidate) answered(now time.Duration) write {
	w := *c.writing
	c.writing = nil
	c.latency = now - w.last.sent
	return w
}

// written takes in that the write has led to rec.
func (c *candidate) written(rec Record, now time.Duration) {
	w := c.answered(now)
	c.failures = 0
	switch {
	case c.change == w.change: // it went against what is known: nothing was in between
		c.unanswered = nil
		c.adopt(rec, rec.Holder == c.identity, false, now)
	case rec.Version > c.rec.Version:
		// Something else was seen meanwhile, and yet it was written: a lock was made and
		// deleted, or the datastore restored. A reading tells what it is worth.
		c.remember(w)
		c.distrust(now + doubtPatience)
		return
	default:
		// The watch was quicker, and has seen as much or more. If that is still this
		// process' the write counts; if not, the term is over already.
	}
	if !c.held {
		return // released, or lost meanwhile
	}
	if c.term == nil {
		token := c.newToken()
		c.term = &term{token: token, noted: c.rec.Note.Token == token}
		if !w.base.Exists {
			c.term.made = w.base.Version
		}
		c.highest = max(c.highest, c.term.token)
	} else {
		c.term.noted = true
	}
	c.term.renewed = w.last.sent
	if c.busy || c.stopping || c.resigning {
		return // held for the application, or released next
	}
	c.claiming = true // the answer may have come too late for it: settle tells
}

// newToken is the fencing token of a term that begins: the version of the lock,
// which one counter of the datastore gives out for all writes; or that of the last
// process, if nobody can have led since.
func (c *candidate) newToken() uint64 {
	if c.resume != 0 {
		return c.resume
	}
	return max(c.rec.Version, c.highest+1)
}

// heldToken is the token of the term that this process holds, or may resume, else 0.
func (c *candidate) heldToken() uint64 {
	if c.term != nil {
		return c.term.token
	}
	return c.resume
}

// knownToken is the token of the term, 0 when only the answer to the write that
// begins it will tell.
func (c *candidate) knownToken() uint64 {
	switch {
	case c.heldToken() != 0:
		return c.heldToken()
	case c.highest > c.rec.Version: // versions went back: the token can't be one of them
		return c.highest + 1
	}
	return 0
}

// refused takes in that the write found another record than the one that it was
// to replace.
func (c *candidate) refused(now time.Duration) {
	w := c.answered(now)
	c.failures++
	if c.failures > 1 {
		c.retry = now + backoff(c.failures-1, c.settings.RetryPeriod)
	}
	if c.change == w.change { // else the watch was quicker than the answer
		c.distrust(now + doubtPatience)
	}
}

// failed takes in that the write got no answer, or one that says nothing about the
// lock.
func (c *candidate) failed(now time.Duration) {
	w := c.answered(now)
	c.remember(w)
	c.failures++
	if c.term != nil {
		// A leader counts from when it sent: a request that hung has waited enough.
		c.retry = w.last.sent + c.retryPause(now)
	} else {
		pause := backoff(c.failures, c.settings.RetryPeriod)
		c.retry = now + pause + c.jitter(pause/5)
	}
	if c.stopping || c.resigning {
		// Did an acquire or renew that was cut short get through? Only a read tells.
		c.distrust(now)
	}
}

// retryPause is how long after one try a leader makes the next: the retry-period,
// and less when that would be a good part of what is left of the claim, which is lost
// if the API server comes back between the last try and its end.
func (c *candidate) retryPause(now time.Duration) time.Duration {
	left := c.claimEnd() - now
	return min(c.settings.RetryPeriod, max(firstBackoff, left/retryFraction))
}

// remember keeps a write whose outcome is unknown.
func (c *candidate) remember(w write) {
	if w.op == opRelease {
		return
	}
	if last := len(c.unanswered) - 1; last >= 0 && c.unanswered[last].change == w.change {
		w.first = c.unanswered[last].first // one more try
		c.unanswered = c.unanswered[:last]
	}
	c.unanswered = append(slices.Clip(c.unanswered), w)
	c.unanswered = c.unanswered[max(0, len(c.unanswered)-maxUnanswered):]
}

// distrust stops all writes until the lock has been seen anew; it has
// to be read again at the given time.
func (c *candidate) distrust(at time.Duration) {
	c.doubt, c.doubtAt, c.doubtful = true, at, c.reading
}

// outread tells whether the reading that is under way has to be ended for a new
// one, because it began too early to end the doubt.
func (c *candidate) outread(now time.Duration) bool {
	return c.doubt && now >= c.doubtAt && c.reading == c.doubtful
}

// backoff is the pause after so many failures in a row.
func backoff(failures int, retryPeriod time.Duration) time.Duration {
	return min(firstBackoff<<min(failures-1, 16), maxBackoff*retryPeriod)
}

// overdue tells whether the holder has missed the time to renew.
func (c *candidate) overdue(now time.Duration) bool {
	return !c.forLife() && now >= c.seen+c.patience(c.rec)
}

// patience is how long rec's holder may take to renew. It may promise more or
// less than this candidate would; the longer of the two is safe while a rollout
// changes the setting. What no candidate may promise was written by a hand, and
// is not waited for.
func (c *candidate) patience(rec Record) time.Duration {
	promised := rec.LeaseDuration
	if rec.elected() && rec.Note.LeaseDuration > 0 {
		promised = rec.Note.LeaseDuration
	}
	if promised > maxLeaseDuration {
		promised = 0
	}
	return max(c.settings.LeaseDuration, promised)
}
