// Package memory keeps locks in the memory of one process: for tests of programs
// that contend with package elector, without an API server. A lock in it behaves
// as one in a cluster does: every write goes against the version that was seen, one
// counter counts all writes, and observers see all changes in order.
//
// It is no way to elect between processes, and nothing in it outlives the process.
package memory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/elector-io/elector/elector"
)

// Store keeps any number of locks by namespace and name, of both modes. The zero
// value is empty and ready. It is safe for use by several goroutines.
type Store struct {
	mu      sync.Mutex
	version uint64
	locks   map[key]elector.Record
	history []change      // of all locks; what observers have not seen yet is in it
	changed chan struct{} // closed and replaced by every change
}

type key struct{ namespace, name string }

type change struct {
	key key
	rec elector.Record
}

// Lock returns the lock that candidate contends for.
func (s *Store) Lock(candidate elector.Description) (elector.Lock, error) {
	candidate = candidate.WithDefaults()
	if err := candidate.Validate(""); err != nil {
		return nil, err
	}
	return &lock{s, candidate, key{candidate.Namespace, candidate.Settings.Lock}}, nil
}

// Get returns a lock as it is.
func (s *Store) Get(namespace, name string) elector.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(key{namespace, name})
}

// Edit changes a lock as somebody else would who does not contend: edit gets the
// record as it is, which does not exist if there is none, and returns what it
// shall be. One that does not exist any more is deleted. The version is the
// store's affair.
func (s *Store) Edit(namespace, name string, edit func(elector.Record) elector.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{namespace, name}
	before := s.get(k)
	after := edit(before)
	if after.Transitions != before.Transitions && after.Note == before.Note {
		after.Note = elector.Note{} // it speaks of another term
	}
	s.put(k, after)
}

// get returns the lock as it is; s.mu is held.
func (s *Store) get(k key) elector.Record {
	if rec, ok := s.locks[k]; ok {
		return rec
	}
	return elector.Record{Version: s.version}
}

// put writes the lock and returns it as written; s.mu is held.
func (s *Store) put(k key, rec elector.Record) elector.Record {
	if s.locks == nil {
		s.locks = map[key]elector.Record{}
	}
	s.version++
	rec.Version, rec.Object = s.version, nil
	if rec.Exists {
		s.locks[k] = rec
	} else {
		rec = elector.Record{Version: s.version}
		delete(s.locks, k)
	}
	s.history = append(s.history, change{k, rec})
	if s.changed != nil {
		close(s.changed)
		s.changed = nil // made by who waits next
	}
	return rec
}

// after returns the changes of a lock after the first n of all, how many there are
// in all, and what tells of the next.
func (s *Store) after(k key, n int) (found []elector.Record, total int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.history[n:] {
		if c.key == k {
			found = append(found, c.rec)
		}
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return found, len(s.history), s.changed
}

type lock struct {
	store     *Store
	candidate elector.Description
	key       key
}

// Describe implements elector.Lock.
func (l *lock) Describe() elector.Description { return l.candidate }

// Observe implements elector.Lock.
func (l *lock) Observe(ctx context.Context, see func(elector.Record)) error {
	l.store.mu.Lock()
	rec, n := l.store.get(l.key), len(l.store.history)
	l.store.mu.Unlock()
	see(rec)
	for {
		changes, total, changed := l.store.after(l.key, n)
		n = total
		for _, rec := range changes {
			see(rec)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Put implements elector.Lock.
func (l *lock) Put(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	if err := ctx.Err(); err != nil {
		return elector.Record{}, fmt.Errorf("writing: %w", err)
	}
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	now := l.store.get(l.key)
	if now.Exists != base.Exists || now.Exists && now.Version != base.Version {
		return elector.Record{}, errors.Join(elector.ErrConflict, fmt.Errorf("it is at version %d, not %d", now.Version, base.Version))
	}
	want.Exists = true
	if l.candidate.Settings.Mode == elector.ModeLeaderForLife {
		// Such a lock is never handed on: it goes, and a new one is made. It has no times.
		want.Exists = !base.Exists || want.Holder == base.Holder
		want.AcquireTime, want.RenewTime = time.Time{}, time.Time{}
	}
	return l.store.put(l.key, want), nil
}
