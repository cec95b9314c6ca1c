package elector

import (
	"context"
	"errors"
	"strings"
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

// Lock is one lock object as the API server keeps it. Implementations are safe
// for use by several goroutines.
type Lock interface {
	// Observe reports the lock as it is now, by a read that no cache may answer
	// late, and then every change, until ctx ends or it can't go on; the error
	// says why. Every call begins with such a read, so calling again after an
	// error misses nothing but states that are gone already.
	Observe(ctx context.Context, see func(Record)) error
	// Put replaces base by want, if the lock still is what base says, and returns
	// the lock as written. A want without a holder frees the lock. Any other
	// state of the lock is ErrConflict; after any other error the write may or
	// may not have happened.
	Put(ctx context.Context, base, want Record) (Record, error)
}

// Record is the state of a lock at one moment.
type Record struct {
	// Version is the resourceVersion of the object, or of the list that did not
	// have it. It orders records: the API server counts all writes with one
	// counter that never goes back.
	Version uint64
	// Exists tells whether the object is there.
	Exists bool
	// Foreign says why an object of the lock's name is not a lock and must not be
	// touched; empty for a lock.
	Foreign string
	// Holder is the identity of the holder, empty when the lock is free.
	Holder string
	// LeaseDuration is what the holder promised to renew within; 0 in
	// leader-for-life, where only the lock's end frees it.
	LeaseDuration time.Duration
	// AcquireTime and RenewTime are the holder's wall clock. They are written for
	// people and for other programs; elector only looks whether they change.
	AcquireTime, RenewTime time.Time
	// Transitions counts changes of the holder.
	Transitions int32
	// Elected tells that an elector made this term of the lease, not another
	// program that uses the same lock.
	Elected bool
	// Released tells that the last holder itself freed the lock. A lock without a
	// holder that is not Released was erased by somebody else, and its last holder
	// may not know yet.
	Released bool
	// Token is the fencing token the holder wrote down, 0 if it wrote none.
	Token uint64
	// Object is the implementation's own form of the lock.
	Object any
}

// sameTerm tells whether nothing about the holder and its renewals differs: an
// edit of labels is no sign of life.
func (r Record) sameTerm(o Record) bool {
	return r.Exists == o.Exists && r.Holder == o.Holder && r.LeaseDuration == o.LeaseDuration &&
		r.AcquireTime.Equal(o.AcquireTime) && r.RenewTime.Equal(o.RenewTime) && r.Transitions == o.Transitions
}

// Identity is the holder identity of a Pod: its name and its UID, because a
// recreated Pod of the same name is another candidate.
func Identity(podName, podUID string) string { return podName + "_" + podUID }

// NameOf returns the name in an identity: what stands before the last
// underscore. Pod names have none.
func NameOf(identity string) string {
	if i := strings.LastIndexByte(identity, '_'); i > 0 {
		return identity[:i]
	}
	return identity
}
