package elector_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

// described is a lock that says whatever it is told to.
type described struct {
	elector.Lock
	is elector.Description
}

func (d described) Describe() elector.Description { return d.is }

func TestNew(t *testing.T) {
	t.Parallel()
	var store memory.Store
	lock, err := store.Lock(describe("a_1", elector.ModeLease))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg elector.Config
		err string
	}{
		"a lock alone":     {elector.Config{Lock: lock}, ""},
		"no lock":          {elector.Config{}, "lock must not be nil"},
		"a lock of nobody": {elector.Config{Lock: described{lock, elector.Description{}}}, `lock "" is not allowed`},
		"negative grace":   {elector.Config{Lock: lock, Grace: -1}, `grace "-1ns" is not allowed: it must not be negative`},
	} {
		e, err := elector.New(tc.cfg)
		switch {
		case tc.err == "" && (err != nil || e.IsLeader() || e.Leader() != "" || e.Check() != nil):
			t.Errorf("%s: got %v, leader: %v", name, err, e.IsLeader())
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || e != nil):
			t.Errorf("%s: got %v, %v; want %q", name, e, err, tc.err)
		}
	}
	if err := elector.Run(t.Context(), elector.Config{}); err == nil {
		t.Error("Run runs without a lock")
	}
}

// TestResumesItsOwn starts with what an earlier process told: only this very candidate's claim is gone on with at once.
func TestResumesItsOwn(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*elector.Status)
		resumes bool
	}{
		"its own":            {func(*elector.Status) {}, true},
		"another identity's": {func(s *elector.Status) { s.Identity = "a_2" }, false},
		"another lock's":     {func(s *elector.Status) { s.Lock = "db" }, false},
		"another namespace":  {func(s *elector.Status) { s.Namespace = "" }, false},
		"another mode's":     {func(s *elector.Status) { s.Mode = elector.ModeLeaderForLife }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var store memory.Store
				lock, err := store.Lock(describe("a_1", elector.ModeLease))
				if err != nil {
					t.Fatal(err)
				}
				rec, err := lock.Put(t.Context(), elector.Record{}, elector.Record{
					Holder: "a_1", LeaseDuration: 15 * time.Second, RenewTime: time.Now(), Note: elector.Note{Holder: "a_1", Write: "p.1", Token: 1},
				})
				if err != nil {
					t.Fatal(err)
				}
				last := elector.Status{Role: elector.RoleLeader, Identity: "a_1", Lock: "web", Namespace: "ns", Mode: elector.ModeLease, FencingToken: 1, LockVersion: rec.Version}
				tc.change(&last)
				e, err := elector.New(elector.Config{Lock: lock, Clock: newBubbleClock(), Last: &last})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan error)
				go func() { done <- e.Run(ctx) }()
				synctest.Wait()
				if s := e.Status(); e.IsLeader() != tc.resumes || tc.resumes && s.FencingToken != 1 {
					t.Errorf("leads: %v, with token %d", e.IsLeader(), s.FencingToken)
				}
				time.Sleep(16 * time.Second)
				if !e.IsLeader() {
					t.Error("it does not lead when the lease has run out")
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestResignWhenNotRunning holds that nobody waits for a loop that is not there.
func TestResignWhenNotRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		lock, _ := store.Lock(describe("a_1", elector.ModeLease))
		e, err := elector.New(elector.Config{Lock: lock, Clock: newBubbleClock()})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := e.Resign(t.Context()); !errors.Is(err, elector.ErrNotRunning) || time.Since(began) > time.Second {
			t.Errorf("before: %v, after %v", err, time.Since(began))
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		synctest.Wait()
		if err := e.Run(t.Context()); err == nil {
			t.Error("it runs twice")
		}
		if err := e.Resign(t.Context()); err != nil || e.IsLeader() {
			t.Errorf("while it runs: %v, leads: %v", err, e.IsLeader())
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := e.Resign(t.Context()); !errors.Is(err, elector.ErrNotRunning) {
			t.Errorf("after it has run: %v", err)
		}
		time.Sleep(time.Hour)
		if err := e.Check(); err != nil {
			t.Errorf("it is taken for stuck: %v", err)
		}
		ctx, stop = context.WithCancel(t.Context())
		go func() { done <- e.Run(ctx) }()
		synctest.Wait()
		if !e.IsLeader() {
			t.Error("it does not lead when it runs again")
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestBecomeOfNobody holds that a lock which can't be used is no reason to wait.
func TestBecomeOfNobody(t *testing.T) {
	t.Parallel()
	if leading, err := elector.Become(t.Context(), described{}); err == nil || leading != nil {
		t.Errorf("got %v, %v", leading, err)
	}
}
