package elector

import (
	"context"
	"errors"
	"time"
)

// ErrConflict is what Lock.Put returns when the lock is not, or no longer, what
// the base record said.
var ErrConflict = errors.New("the lock has changed")

// ErrDenied is wrapped by what Lock.Observe and Lock.Put return when the API
// server refuses whoever asks, whatever is asked: a permission is missing, or is
// no more. A candidate that contends goes on all the same, because permissions
// come late; one that stops does not wait for them.
var ErrDenied = errors.New("permission denied")

// Lock is one lock object, and who contends for it. Implementations are safe for
// use by several goroutines.
type Lock interface {
	// Describe returns the one description of the candidate that the lock was made
	// for: what it contends for, and under which name. It never changes.
	Describe() Description
	// Observe reports the lock as it is now, by a read that began after the call and
	// that no cache may answer late, and then every change in order, until ctx ends,
	// or it can't go on, which is an error, or it is time to begin anew, which is
	// none. What changed between two calls is missed; the candidate knows that.
	Observe(ctx context.Context, see func(Record)) error
	// Put replaces base by want, if the lock still is what base says, and returns
	// the lock as written. A want without a holder frees the lock. Any other
	// state of the lock is ErrConflict; after any other error the write may or
	// may not have happened, or happen still.
	Put(ctx context.Context, base, want Record) (Record, error)
}

// Record is the state of a lock at one moment.
type Record struct {
	// Version is the resourceVersion of the object, or of the list that did not
	// have it. It orders records that come from the same datastore: that counts all
	// writes with one counter. After a restore from a backup it starts from there.
	Version uint64
	// Exists tells whether the object is there.
	Exists bool
	// Foreign says why an object of the lock's name is not a lock and must not be
	// touched; empty for a lock.
	Foreign string
	// Holder is the identity of the holder, empty when the lock is free.
	Holder string
	// LeaseDuration is what the lock says its holder promised to renew within; 0 in
	// leader-for-life, where only the lock's end frees it.
	LeaseDuration time.Duration
	// AcquireTime and RenewTime are the holder's wall clock. They are written for
	// people and for other programs; elector only looks whether they change.
	AcquireTime, RenewTime time.Time
	// Transitions counts changes of the holder; it begins again after its maximum.
	Transitions int32
	// Note is what the elector wrote that last wrote this term of the lock. It is
	// empty if there is none, or if it speaks of another term.
	Note Note
	// Handover is what the lock asks of its holder; without a token nothing is asked.
	// A record that is wanted without it takes the request off the lock.
	Handover Handover
	// HandoverFault says why what the lock asks of its holder cannot be understood.
	HandoverFault string
	// Next names the candidates that go first when the lock becomes free, as
	// FormatNext writes them. Only others write it: it is never taken off the lock.
	Next string
	// Missed tells that states in between may have been missed though Observe goes
	// on: where the lock is polled.
	Missed bool
	// Object is the implementation's own form of the lock.
	Object any
}

// Note is what an elector writes beside the holder. A hand or another program
// that changes the holder leaves it as it was, and so gives itself away.
type Note struct {
	// Holder is the identity of the elector that wrote it, also when it released.
	Holder string
	// Write names the very write: no two writes of any processes have the same.
	Write string
	// After is the version that the write replaced, 0 if it made the lock. So
	// whoever knows that version knows that nothing was in between, and a state that
	// somebody put back is told from one that follows.
	After uint64
	// Token is the fencing token of the term, 0 if that is not known yet.
	Token uint64
	// LeaseDuration is what the holder promised to renew within.
	LeaseDuration time.Duration
	// Released tells that the write freed the lock.
	Released bool
	// To and Why are the request for a handover that a release obeyed: whom the others
	// leave the lock for a second, and what for.
	To, Why string
}

// elected tells whether the holder took the lock by elector's rules: only after
// whoever held it before was surely over.
func (r Record) elected() bool {
	return r.Holder != "" && r.Note.Holder == r.Holder && !r.Note.Released
}

// released tells whether the last holder itself freed the lock. A lock without a
// holder that is not released was erased by somebody else, and its last holder
// may not know yet.
func (r Record) released() bool { return r.Exists && r.Holder == "" && r.Note.Released }

// releasedByOther tells whether the lock looks as client-go's LeaderElector leaves
// it when it releases its own (leaderelection.go, release: a lease of one second),
// or as nobody has ever held it.
func (r Record) releasedByOther() bool {
	return r.Exists && r.Holder == "" && r.Note.Holder == "" && (r.LeaseDuration == time.Second || r.RenewTime.IsZero())
}

// sameTerm tells whether nothing about the holder and its renewals differs: an
// edit of labels is no sign of life.
func (r Record) sameTerm(o Record) bool {
	return r.Exists == o.Exists && r.Holder == o.Holder && r.LeaseDuration == o.LeaseDuration &&
		r.AcquireTime.Equal(o.AcquireTime) && r.RenewTime.Equal(o.RenewTime) && r.Transitions == o.Transitions && r.Note.Write == o.Note.Write
}
