package gate

import "time"

const (
	// KillMargin is how long before the end of a claim everything is killed: what a
	// kill may take, and the next leader be early.
	KillMargin = 300 * time.Millisecond
	// LockPause is after a try to take the lock file's lock while the elector looks
	// whether anybody has it.
	LockPause = 10 * time.Millisecond
	// maxClaim is the longest that a claim may be: what is longer was written by a hand,
	// or before the machine was started.
	maxClaim = 24 * time.Hour
)

// exitStopped is the exit code of a child that ended well, as if nothing was left to
// do, but was told to: it has to be started again. A shell says so of SIGTERM.
const exitStopped = 128 + 15

// Sight is what the status directory says at one moment.
type Sight struct {
	// Token is the fencing token of the claim, 0 if there is none.
	Token uint64
	// Until is when the claim ends if it is not renewed, by CLOCK_BOOTTIME. Without a
	// claim it is until when the lock is held for the work of the last one, 0 if it is
	// not.
	Until time.Duration
}

// Action is what a Machine wants done.
type Action int

// What a Machine wants done. Each is answered by the method that is named there.
const (
	// Wait is to wait for the time that is given, or for anything to happen before.
	Wait Action = iota
	// Lock is to take a share of the lock file's lock; Locked or LockRefused.
	Lock
	// Unlock is to let go of it; Unlocked.
	Unlock
	// Start is to start the child; Started.
	Start
	// Terminate is to send the child SIGTERM; Terminated.
	Terminate
	// Kill is to kill everything that the child has left or started; Killed.
	Kill
)

// Machine decides what a gate does. It is pure: no I/O, no clock. All times are by
// CLOCK_BOOTTIME.
//
// Whoever has one tells it what happens, with See first after every wakeup, and does
// what Next says until that is Wait.
type Machine struct {
	grace, least time.Duration

	phase phase
	sight Sight
	retry time.Duration // no try to lock before

	// Of the child.
	token    uint64        // of the claim under which it was started
	deadline time.Duration // the end of what is known of that claim
	foreign  bool          // another claim has been seen since
	lost     bool          // its claim was seen to be over
	told     bool          // it was told to end, by whomever
	stopped  bool          // ... because of its claim
}

type phase int

const (
	closed phase = iota
	locked       // the lock is there, and the claim not looked at again
	open         // the child runs
	killed
)

// NewMachine makes the machine of a gate that is closed. A child has stopGrace to end
// before the end of its claim, and is not started unless leastClaim is left of it.
func NewMachine(stopGrace, leastClaim time.Duration) *Machine {
	return &Machine{grace: max(stopGrace, KillMargin), least: leastClaim}
}

// See takes in what the status directory says at now.
func (m *Machine) See(s Sight, now time.Duration) {
	if s.Until > now+maxClaim {
		s = Sight{}
	}
	m.sight = s
	if m.phase != open {
		return
	}
	switch {
	case s.Token != 0 && s.Token != m.token:
		// From here on nothing that is said is about the child's claim.
		m.foreign, m.lost = true, true
	case s.Token == 0:
		m.lost = true
		if s.Until > 0 && !m.foreign {
			m.deadline = s.Until
		}
	case !m.foreign:
		m.deadline = s.Until
	}
}

// Locked takes in that the lock is there. What was seen before counts no more: the
// elector may have found it free since, and released.
func (m *Machine) Locked() { m.phase, m.sight = locked, Sight{} }

// LockRefused takes in that the lock could not be had, and when to try again.
func (m *Machine) LockRefused(again time.Duration) { m.retry = again }

// Unlocked takes in that the lock is let go of.
func (m *Machine) Unlocked() { m.phase = closed }

// Started takes in that the child was started for the claim that was seen last.
func (m *Machine) Started() {
	m.phase, m.token, m.deadline = open, m.sight.Token, m.sight.Until
}

// Signalled takes in that somebody else told the child to end. It is not told twice:
// many programs take that for impatience.
func (m *Machine) Signalled() { m.told = true }

// Terminated takes in that the child was told to end.
func (m *Machine) Terminated() { m.told, m.stopped = true, true }

// Killed takes in that all was killed.
func (m *Machine) Killed() { m.phase = killed }

// Open tells whether the child was started.
func (m *Machine) Open() bool { return m.phase >= open }

// ExitCode is how the gate ends when the child ended with code.
func (m *Machine) ExitCode(code int) int {
	if m.stopped && code == 0 {
		return exitStopped
	}
	return code
}

// Next says what to do at now, or until when there is nothing to do.
func (m *Machine) Next(now time.Duration) (Action, time.Duration) {
	switch {
	case m.phase == closed && !m.good(now):
		return Wait, forever
	case m.phase == closed && now < m.retry:
		return Wait, m.retry
	case m.phase == closed:
		return Lock, now
	case m.phase == locked && m.good(now):
		return Start, now
	case m.phase == locked:
		return Unlock, now
	case m.phase == killed:
		return Wait, forever
	}
	kill, term := m.deadline-KillMargin, m.deadline-m.grace
	switch {
	case now >= kill:
		return Kill, now
	case m.told:
		return Wait, kill
	case m.lost, now >= term:
		return Terminate, now
	}
	return Wait, term
}

// good tells whether there is a claim of which enough is left to start the child.
func (m *Machine) good(now time.Duration) bool {
	return m.sight.Token != 0 && m.sight.Until-now >= m.least
}

const forever = time.Duration(1<<63 - 1)
