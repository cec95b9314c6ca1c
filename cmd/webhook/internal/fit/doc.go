// Package fit makes leadership follow the application: when a leader's app does
// not work and another candidate's does, it asks the leader for a handover, and it
// notes on each lock who goes first when it becomes free.
//
// # What is guaranteed
//
// A leader is asked only if its app was broken (or not Ready, as its pod chooses
// with elector.io/handover-when) for elector.io/unready-for without a break, as far
// as this manager has seen, and another candidate was fit for as long; once for a
// claim; and each time after a longer pause than before, up to ten minutes, until a
// leader was fit for ten minutes. When no other candidate is fit nothing moves,
// whatever ails the leader: a chain of sick leaders would be worse than one. A crash
// loop is one failure, not many: its app runs for a moment between two crashes, and
// that is a break only if it lasts for elector.io/unready-for.
//
// Time is this manager's own, by a clock that only grows, and begins when the
// manager does: one that restarts asks late and never early. Before it asks, it reads
// lock and pods anew, so that a manager that was frozen does not act on what it
// remembers.
//
// It only ever asks. The holder obeys if the request speaks of its claim, after it
// has told its app; a holder of another program, or an elector that does not know
// requests yet, stays. So no failure of this package, and nobody who forges what it
// reads, makes two leaders. Without a manager everything is as if there were no such
// package.
//
// # What is not
//
// Pods' status is believed: whoever may write pods/status of a leader can make it
// hand over, and could as well delete it.
//
// A lock's elector.io/next is help, not a promise: it is written after the pods'
// status has changed, at most once a second per lock. Who is fit again is named
// twenty times in a row before there are ten seconds between two such notes; who is
// new, and who leaves, does not wait for that. Whom it does not name waits up to a
// second longer than he would, and leads then if nobody else came.
package fit
