package elector_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

// midnight is when synctest's clock begins.
var midnight = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// timed notes when each write is sent and how long it may take.
type timed struct {
	flaky
	writes []string
}

func (l *timed) Put(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	until, _ := ctx.Deadline()
	what := "writes"
	if want.Holder == "" {
		what = "releases"
	}
	l.writes = append(l.writes, fmt.Sprintf("%v: %s within %v", time.Since(midnight), what, time.Until(until)))
	return l.flaky.Put(ctx, base, want)
}

// TestWritesInTime holds when a leader writes, and that no write may take longer than the claim that it is for.
func TestWritesInTime(t *testing.T) {
	lock := new(timed)
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		lock.Lock, _ = store.Lock(describe("a_1", elector.ModeLease))
		e, err := elector.New(elector.Config{Lock: lock, Clock: newBubbleClock(), Jitter: func(time.Duration) time.Duration { return 0 }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		time.Sleep(4 * time.Second)
		lock.down.Store(true)
		time.Sleep(12 * time.Second)
		lock.down.Store(false)
		time.Sleep(3 * time.Second)
		if !e.IsLeader() {
			t.Error("it does not lead when the lock can be written again")
		}
		lock.down.Store(true)
		stop()
		time.Sleep(5 * time.Second)
		lock.down.Store(false)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if rec := store.Get("ns", "web"); rec.Holder != "" {
			t.Errorf("%s holds the lock", rec.Holder)
		}
	})
	want := []string{
		"0s: writes within 3.333333333s",
		"3.333333333s: writes within 3.333333333s",
		"6.666666666s: writes within 3.333333333s",
		"8.666666666s: writes within 3.333333333s",
		"10.222222221s: writes within 3.111111112s",
		"11.259259258s: writes within 2.074074075s",
		"11.950617283s: writes within 1.38271605s",
		"12.411522633s: writes within 921.8107ms",
		"12.718792866s: writes within 614.540467ms",
		"12.968792866s: writes within 364.540467ms",
		"13.218792866s: writes within 114.540467ms", // the claim ends at 13.333333333s
		"13.468792866s: writes within 3.333333333s",
		"15.468792866s: writes within 3.333333333s",
		"17.468792866s: writes within 3.333333333s",
		"19s: releases within 3.333333333s",
		"21s: releases within 3.333333333s",
		"23s: releases within 3.333333333s",
		"25s: releases within 3.333333333s",
	}
	if diff := cmp.Diff(want, lock.writes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestKeptThroughOutage holds that a claim survives every outage that ends a little before it does: the tries to renew come
// closer together towards its end.
func TestKeptThroughOutage(t *testing.T) {
	const begin, end = 4 * time.Second, 10*time.Second + 10*time.Second/3 // of the outage, and of the claim, renewed at a third of 10 s
	for back := begin; back <= end-260*time.Millisecond; back += 70 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			var store memory.Store
			lock := new(timed)
			lock.Lock, _ = store.Lock(describe("a_1", elector.ModeLease))
			claims := 0
			go func() {
				_ = elector.Run(t.Context(), elector.Config{
					Lock: lock, Clock: newBubbleClock(), Jitter: func(time.Duration) time.Duration { return 0 },
					Callbacks: elector.Callbacks{OnStartedLeading: func(context.Context) { claims++ }},
				})
			}()
			time.Sleep(begin)
			lock.down.Store(true)
			time.Sleep(back - begin)
			lock.down.Store(false)
			time.Sleep(end)
			if synctest.Wait(); claims != 1 {
				t.Errorf("%d claims when the lock can be written again %v before the end of the first", claims, end-back)
			}
			if n := len(lock.writes); n > 20 {
				t.Errorf("%d writes in half a minute: %q", n, lock.writes)
			}
		})
	}
}

// TestTold holds what is announced, when, and what follows for the lock and those who resigned: nothing before it is told.
func TestTold(t *testing.T) {
	var fails atomic.Bool
	var told []string
	cfg := elector.Config{Announce: func(s elector.Status) error {
		err := ""
		if fails.Load() {
			err = ", in vain"
		}
		told = append(told, fmt.Sprintf("%v: %s of %q with %d since %v%s", time.Since(midnight), s.Role, s.Leader, s.FencingToken, s.Since.Sub(midnight), err))
		if err != "" {
			return errors.New("read-only file system")
		}
		return nil
	}}
	play(t, elector.ModeLease, cfg, func(e *elector.Elector, store *memory.Store) {
		time.Sleep(5 * time.Second)
		fails.Store(true)
		if err := e.Resign(context.Background()); err == nil || e.IsLeader() {
			t.Errorf("a resignation that can't be told: %v, leads: %v", err, e.IsLeader())
		}
		time.Sleep(5 * time.Second)
		if rec := store.Get("ns", "web"); rec.Holder != "a_1" {
			t.Errorf("%q holds the lock before the end of the claim is told", rec.Holder)
		}
		fails.Store(false)
		time.Sleep(2 * time.Second)
		if rec := store.Get("ns", "web"); rec.Holder != "" {
			t.Errorf("%q holds the lock when it is told", rec.Holder)
		}
		fails.Store(true)
		time.Sleep(16 * time.Second)
		if e.IsLeader() {
			t.Error("it leads, and can't tell")
		}
		fails.Store(false)
	})
	want := []string{
		`0s: standby of "" with 0 since 0s`,
		`0s: leader of "a" with 1 since 0s`,
		`3.333333333s: leader of "a" with 1 since 0s`,
		`5s: standby of "" with 0 since 5s, in vain`,
		`7s: standby of "" with 0 since 5s, in vain`,
		`9s: standby of "" with 0 since 5s, in vain`,
		`11s: standby of "" with 0 since 5s`,
	}
	if len(told) < len(want) {
		t.Fatalf("told: %q", told)
	}
	if diff := cmp.Diff(want, told[:len(want)]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := runOnce(t, func(elector.Status) error { return errors.New("no directory") }); err == nil {
		t.Error("Run goes on though an earlier claim could not be withdrawn")
	}
}

func runOnce(t *testing.T, announce func(elector.Status) error) (err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		lock, _ := store.Lock(describe("a_1", elector.ModeLease))
		err = elector.Run(t.Context(), elector.Config{Lock: lock, Clock: newBubbleClock(), Announce: announce})
	})
	return err
}

// TestNewLeaders holds whom OnNewLeader is told of: of each once, in order, with the last of those that came while it had not returned.
func TestNewLeaders(t *testing.T) {
	var told []string
	slow := func(identity string) { told = append(told, identity); time.Sleep(10 * time.Second) }
	play(t, elector.ModeLeaderForLife, elector.Config{Callbacks: elector.Callbacks{OnNewLeader: slow}}, func(_ *elector.Elector, store *memory.Store) {
		for _, holder := range []string{"b_2", "b_2", "c_3", "", "d_4", ""} {
			time.Sleep(time.Second)
			store.Edit("ns", "web", func(r elector.Record) elector.Record {
				r.Exists, r.Holder = true, holder
				r.Foreign = "not to be taken"
				return r
			})
		}
		time.Sleep(time.Minute)
	})
	if diff := cmp.Diff([]string{"a_1", "d_4"}, told); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
