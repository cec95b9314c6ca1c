package elector

import "time"

// operation is a write that the candidate wants done on its lock.
type operation string

const (
	opNone    operation = ""
	opAcquire operation = "acquire"
	opRenew   operation = "renew"
	opRelease operation = "release"
)

// A claim ends for one of these reasons.
type lossReason string

const (
	lossExpired  lossReason = "expired"  // it could not be renewed in time
	lossTaken    lossReason = "taken"    // the lock names another holder
	lossErased   lossReason = "erased"   // the lock names no holder, or is gone
	lossResigned lossReason = "resigned" // Resign was called
	lossStopped  lossReason = "stopped"  // Run's context ended
	lossUntold   lossReason = "untold"   // the claim could not be announced
)

const (
	// handoverJitter spreads the candidates that see a lock become free at the
	// same moment, so that most see the first one's write before they try.
	handoverJitter = 8 * time.Millisecond
	// doubtPatience is how long after a conflict the watch may take to show what
	// changed before the lock is read again.
	doubtPatience = 200 * time.Millisecond
	// firstBackoff is the pause after a standby's first failed request; it
	// doubles up to maxBackoff retry-periods.
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 2
	// renewFraction of the renew-deadline passes between renewals: seldom enough
	// to cost little, often enough for two more tries when one hangs.
	renewFraction = 3
)

// claim is the period in which a candidate tells its application that it leads.
type claim struct {
	token uint64
	// renewed is when the last successful renew was sent, on the Clock; the claim
	// ends renew-deadline later. Neither plays a part in leader-for-life.
	renewed time.Duration
	// noted tells that the lock says the token, for a restarted process to read. It
	// takes a renewal: the token is the version of the write that acquired.
	noted bool
}

// candidate is what one candidate knows and what it does next. It is pure: no
// I/O, no clock, no goroutine; every time is a Clock's.
type candidate struct {
	settings Settings
	identity string
	jitter   func(time.Duration) time.Duration

	known bool          // rec has been read at least once
	rec   Record        // the newest state of the lock that was seen
	seen  time.Duration // when the holder or its renewal in rec was seen to change, plus a jitter

	claim *claim // nil for a standby
	loss  lossReason

	freed time.Duration // when another holder was seen to be gone; 0 when the last one was this candidate

	// guard is until when a holder that somebody else erased may still claim.
	guard time.Duration

	retry    time.Duration // no write before
	failures int           // writes failed in a row
	holdOff  time.Duration // after resigning: no acquire before

	doubt    bool          // a write found rec out of date, or its outcome is unknown
	doubtAt  time.Duration // when to read again if nothing newer was seen
	attempt  int           // the reading that rec may come from
	doubtful int           // readings up to this one can't dispel the doubt

	busy      bool // the application has not let go of the last claim yet
	resigning bool // release, then hold off
	stopping  bool // release, then end
}

// leads tells whether the claim holds at now.
func (c *candidate) leads(now time.Duration) bool {
	return c.claim != nil && now < c.claimEnd()
}

// claimEnd is when the claim ends by itself: after renew-deadline in lease mode,
// never in leader-for-life, nor without a claim.
func (c *candidate) claimEnd() time.Duration {
	if c.claim == nil || c.settings.Mode == ModeLeaderForLife {
		return forever
	}
	return c.claim.renewed + c.settings.RenewDeadline
}

const forever = time.Duration(1<<63 - 1)

// mine tells whether the lock names this candidate.
func (c *candidate) mine() bool { return c.rec.Exists && c.rec.Holder == c.identity }

// observe takes in a state of the lock that reading number attempt saw at now.
func (c *candidate) observe(rec Record, attempt int, now time.Duration) {
	// A reading that began after the doubt did is right even if it goes back:
	// etcd may have been restored from a backup.
	afresh := c.doubt && attempt > c.doubtful
	if c.known && rec.Version < c.rec.Version && (!afresh || c.claim != nil) {
		return // late news
	}
	if afresh || rec.Version > c.rec.Version {
		c.doubt = false
	}
	c.adopt(rec, now)
	switch {
	case c.mine():
	case c.rec.Holder == "":
		c.end(lossErased)
	default:
		c.end(lossTaken)
	}
}

// settle draws the conclusions that need no write.
func (c *candidate) settle(now time.Duration) {
	if c.claim != nil && !c.leads(now) {
		c.end(lossExpired)
	}
	if !c.known || c.doubt {
		return
	}
	if !c.mine() {
		c.resigning = false // nothing to release
	}
	if c.mine() && c.claim == nil && c.settings.Mode == ModeLeaderForLife && !c.busy && !c.resigning && !c.stopping && now >= c.holdOff {
		// The lock lives as long as this Pod: being named by it is being elected.
		c.claim = &claim{token: c.rec.Version}
	}
}

// adopt makes rec the known state of the lock.
func (c *candidate) adopt(rec Record, now time.Duration) {
	if c.erased(rec) {
		// Counted from now: that holder may have renewed since it was seen last.
		c.guard = now + c.patience(c.rec)
	}
	if rec.Holder == "" && (c.rec.Holder != "" || !c.known) {
		c.freed = now
		if c.mine() {
			c.freed = 0
		}
	}
	switch {
	case !c.known: // candidates seldom start at the same moment
		c.seen = now
	case !rec.sameTerm(c.rec):
		c.seen = now + c.jitter(handoverJitter)
	}
	if !c.known && rec.Exists && rec.Holder == "" && rec.Elected && !rec.Released {
		c.guard = now + c.patience(rec)
	}
	if rec.Holder != "" && rec.Holder != c.identity {
		c.holdOff = 0 // the one who resigned was relieved
	}
	c.rec, c.known = rec, true
}

// erased tells whether rec replaces another holder that did not release the lock
// itself: by hand, with its object deleted, or by a program that erases others'
// records as client-go's LeaderElector does. That holder may be cut off and
// claim on until its lease has run out.
func (c *candidate) erased(rec Record) bool {
	switch {
	case !c.known || c.settings.Mode != ModeLease:
		return false
	case c.rec.Holder == "" || c.rec.Holder == c.identity || c.rec.Holder == rec.Holder:
		return false
	}
	// Another elector takes a lock by these same rules. Another program's release
	// can't be told from an erasure; it is believed.
	takenByElector := rec.Holder != "" && rec.Elected
	releasedByOther := rec.Exists && rec.Holder == "" && !c.rec.Elected
	return !rec.Released && !takenByElector && !releasedByOther
}

// end ends the claim, if there is one.
func (c *candidate) end(why lossReason) {
	if c.claim != nil {
		c.claim, c.loss = nil, why
	}
}

// resign ends the claim and frees the lock; for a lease-duration, or until
// another one holds it, this candidate stands back.
func (c *candidate) resign(why lossReason, now time.Duration) {
	c.end(why)
	c.resigning = true
	c.holdOff = now + c.settings.LeaseDuration
	c.retry, c.failures = 0, 0
}

// stop ends the claim and frees the lock where the mode says so.
func (c *candidate) stop() {
	c.end(lossStopped)
	c.stopping = true
	c.retry, c.failures = 0, 0
}

// next says what to do now, or when to ask again. It does nothing that rec does
// not justify: every write goes against rec's version.
func (c *candidate) next(now time.Duration) (operation, time.Duration) {
	deadline := c.claimEnd()
	switch {
	case !c.known || c.rec.Foreign != "" || c.busy && c.claim == nil:
		return opNone, deadline
	case c.doubt && now < c.doubtAt:
		return opNone, min(deadline, c.doubtAt)
	case c.doubt:
		return opNone, deadline // a reading is under way
	}
	op, at := c.wish()
	if op != opNone {
		at = max(at, c.retry)
	}
	if op == opNone || now < at {
		return opNone, min(at, deadline)
	}
	return op, now
}

// unsure tells whether the lock has to be read anew.
func (c *candidate) unsure(now time.Duration) bool {
	return c.doubt && now >= c.doubtAt && c.attempt == c.doubtful
}

// done tells whether a candidate that stops has nothing left to release.
func (c *candidate) done() bool {
	switch {
	case !c.stopping || c.busy:
		return false
	case !c.known, c.settings.Mode == ModeLeaderForLife && !c.resigning:
		return true
	}
	return !c.doubt && !c.mine()
}

// wish is the next write that the record and the candidate's state call for, and
// the earliest time for it.
func (c *candidate) wish() (operation, time.Duration) {
	forLife := c.settings.Mode == ModeLeaderForLife
	switch {
	case c.mine() && (c.resigning || c.stopping && !forLife):
		return opRelease, 0
	case c.stopping || c.resigning: // in leader-for-life the Pod may live on, and its lock with it
		return opNone, forever
	case c.mine() && forLife && c.claim == nil:
		return opNone, c.holdOff
	case c.mine() && forLife:
		return opNone, forever
	case c.mine() && c.claim == nil:
		return opRenew, max(c.guard, c.holdOff) // resume: before a restart it was this candidate's
	case c.mine() && !c.claim.noted:
		return opRenew, 0
	case c.mine():
		return opRenew, c.claim.renewed + c.settings.RenewDeadline/renewFraction
	case c.rec.Holder == "":
		return opAcquire, max(c.seen, c.guard, c.holdOff)
	case forLife:
		return opNone, forever
	default:
		return opAcquire, max(c.seen+c.patience(c.rec), c.guard, c.holdOff)
	}
}

// want is the record that op writes.
func (c *candidate) want(op operation, wall time.Time) Record {
	w := c.rec
	wall = wall.Truncate(time.Microsecond) // as the Lease stores it
	switch op {
	case opNone:
	case opRelease:
		w.Holder, w.Token = "", 0 // what Put makes of it says "released"
	case opRenew:
		w.RenewTime = wall
		if c.claim != nil {
			w.Token = c.claim.token
		}
	case opAcquire:
		w.Holder, w.Token = c.identity, 0
		w.AcquireTime, w.RenewTime = wall, wall
		if c.rec.Exists {
			w.Transitions++
		}
	}
	if op != opRelease && c.settings.Mode == ModeLease {
		w.LeaseDuration = c.settings.LeaseDuration
		if w.RenewTime.Equal(c.rec.RenewTime) {
			// A renewal has to differ from the one before, or standbys can't see it.
			w.RenewTime = w.RenewTime.Add(time.Microsecond)
		}
	}
	return w
}

// written takes in that op, sent at sent, has led to rec.
func (c *candidate) written(op operation, rec Record, sent, now time.Duration) {
	c.retry, c.failures = 0, 0
	if c.known && rec.Version < c.rec.Version {
		// The watch was quicker, and has seen even more. If it still names this
		// candidate the write below counts; if not, the claim is over already.
		rec = c.rec
	}
	c.adopt(rec, now)
	if op == opRelease || !c.mine() {
		c.resigning = false
		return
	}
	if c.stopping || c.resigning {
		return // released next
	}
	if c.claim == nil {
		token := rec.Version
		if op == opRenew && rec.Token != 0 {
			token = rec.Token // the same claim, resumed
		}
		c.claim = &claim{token: token, noted: rec.Token == token}
	} else {
		c.claim.noted = true // once is enough, should something strip annotations
	}
	c.claim.renewed = sent // the answer may have come too late for it: settle tells
}

// refused takes in that the write found another record than base.
func (c *candidate) refused(base Record, now time.Duration) {
	c.failures++
	if c.failures > 1 {
		c.retry = now + backoff(c.failures-1, c.settings.RetryPeriod)
	}
	if c.rec.Version <= base.Version { // else the watch was quicker than the answer
		c.distrust(now + doubtPatience)
	}
}

// failed takes in that a write got no answer, or one that says nothing about the
// lock.
func (c *candidate) failed(sent, now time.Duration) {
	c.failures++
	if c.claim != nil {
		// A leader counts from when it sent: a request that hung has waited enough.
		c.retry = sent + c.settings.RetryPeriod
	} else {
		pause := backoff(c.failures, c.settings.RetryPeriod)
		c.retry = now + pause + c.jitter(pause/5)
	}
	if c.stopping || c.resigning {
		// Did an acquire or renew that was cut short get through? Only a read tells.
		c.distrust(now)
	}
}

// distrust stops all writes until the lock has been seen anew; it has
// to be read again at the given time.
func (c *candidate) distrust(at time.Duration) {
	c.doubt, c.doubtAt, c.doubtful = true, at, c.attempt
}

// backoff is the pause after so many failures in a row.
func backoff(failures int, retryPeriod time.Duration) time.Duration {
	return min(firstBackoff<<min(failures-1, 16), maxBackoff*retryPeriod)
}

// overdue tells whether the holder has missed the time to renew.
func (c *candidate) overdue(now time.Duration) bool {
	return c.settings.Mode == ModeLease && now >= c.seen+c.patience(c.rec)
}

// patience is how long rec's holder may take to renew. It may promise more or
// less than this candidate would; the longer of the two is safe while a rollout
// changes the setting.
func (c *candidate) patience(rec Record) time.Duration {
	return max(c.settings.LeaseDuration, rec.LeaseDuration)
}
