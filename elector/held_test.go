package elector_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

// witness notes what a candidate announces, and when it renews.
type witness struct {
	elector.Lock

	mu        sync.Mutex
	clock     elector.Clock
	announced []elector.Status
	sent      time.Duration // the last write
	freed     int           // announcements before the release
}

func (w *witness) Put(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	w.mu.Lock()
	w.sent = w.clock.Now()
	if want.Holder == "" {
		w.freed = len(w.announced)
	}
	w.mu.Unlock()
	return w.Lock.Put(ctx, base, want)
}

func (w *witness) announce(s elector.Status) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.announced = append(w.announced, s)
	return nil
}

// runWitness runs a candidate whose work goes on until it is let go.
func runWitness(t *testing.T, store *memory.Store, identity string, let <-chan struct{}) (e *elector.Elector, w *witness, stop func()) {
	t.Helper()
	lock, err := store.Lock(describe(identity, elector.ModeLease))
	if err != nil {
		t.Fatal(err)
	}
	w = &witness{Lock: lock, clock: newBubbleClock()}
	e, err = elector.New(elector.Config{Lock: w, Clock: w.clock, Announce: w.announce, Callbacks: elector.Callbacks{
		OnStartedLeading: func(ctx context.Context) {
			<-ctx.Done()
			<-let
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return e, w, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// While the lock is held for work, the status says until when, at each renewal anew; and
// not any more before the lock is freed.
func TestHeldIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		let := make(chan struct{})
		e, w, stop := runWitness(t, &store, "a_1", let)
		time.Sleep(time.Minute)
		if !e.IsLeader() || e.Status().HeldUntilBoottime != nil {
			t.Fatalf("a leader alone says %+v", e.Status())
		}
		if err := e.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		var said []int64
		for range 6 {
			s := e.Status()
			if s.Role != elector.RoleStandby || s.HeldUntilBoottime == nil || s.ValidUntilBoottime != nil || s.FencingToken != 0 {
				t.Fatalf("a standby that holds the lock for work says %+v", s)
			}
			w.mu.Lock()
			surely := w.sent + elector.DefaultRenewDeadline
			last := w.announced[len(w.announced)-1]
			w.mu.Unlock()
			if got := *s.HeldUntilBoottime; got != surely.Milliseconds() {
				t.Errorf("it is held until %d, the last renewal says %d", got, surely.Milliseconds())
			}
			if last.HeldUntilBoottime == nil || *last.HeldUntilBoottime != *s.HeldUntilBoottime {
				t.Errorf("announced is %+v, and said %+v", last, s)
			}
			said = append(said, *s.HeldUntilBoottime)
			time.Sleep(elector.DefaultRenewDeadline / 3)
			synctest.Wait()
		}
		if !slices.IsSorted(said) || len(slices.Compact(said)) < 5 {
			t.Errorf("renewals are not told: it is held until %d", said)
		}
		close(let)
		time.Sleep(time.Second)
		w.mu.Lock()
		if w.freed == 0 || w.announced[w.freed-1].HeldUntilBoottime != nil {
			t.Errorf("the lock is freed, and was held by what was told: %d of %+v", w.freed, w.announced)
		}
		w.mu.Unlock()
		if s := e.Status(); s.HeldUntilBoottime != nil {
			t.Errorf("the lock is free, and held by what it says: %+v", s)
		}
		stop()
	})
}

// Yield hands over if somebody is to follow, and at once.
func TestYield(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		let := make(chan struct{})
		close(let)
		e, _, stop := runWitness(t, &store, "a_1", let)
		time.Sleep(time.Minute)
		other, _, stopOther := runWitness(t, &store, "b_1", let)
		yield := func(e *elector.Elector) bool {
			t.Helper()
			yielded, err := e.Yield(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return yielded
		}
		time.Sleep(time.Minute)
		if yield(e) || !e.IsLeader() {
			t.Error("it yields to nobody")
		}
		name := func(next string) {
			store.Edit("ns", "web", func(r elector.Record) elector.Record {
				r.Next = next
				return r
			})
			time.Sleep(time.Second)
		}
		if name("a"); yield(e) || !e.IsLeader() {
			t.Error("it yields to itself")
		}
		if name("b"); yield(other) {
			t.Error("a standby has nothing to yield")
		}
		if !yield(e) || e.IsLeader() {
			t.Error("it does not yield to whom the lock names")
		}
		time.Sleep(100 * time.Millisecond)
		if !other.IsLeader() {
			t.Error("whom it yielded to does not lead")
		}
		stop()
		stopOther()
		if _, err := e.Yield(t.Context()); err == nil {
			t.Error("one that does not run yields")
		}
	})
}
