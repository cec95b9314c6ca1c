package sim

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

// inMemory returns a lock in memory, and the store that it is in.
func inMemory(t *testing.T, store *memory.Store, mode elector.Mode, identity string) elector.Lock {
	t.Helper()
	lock, err := store.Lock(elector.Description{Settings: elector.Settings{Lock: lockName, Mode: mode}, Identity: identity})
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

// TestResignInTime holds that Resign ends with its context, also when the loop hangs.
func TestResignInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		hang := make(chan struct{})
		hanging := false
		e, err := elector.New(elector.Config{Lock: inMemory(t, &store, elector.ModeLease, "web-0_1"), Clock: newNode(1), Announce: func(s elector.Status) error {
			if hanging && s.Role == elector.RoleStandby {
				<-hang
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()
		time.Sleep(time.Second)
		if !e.IsLeader() {
			t.Fatal("it does not lead")
		}
		hanging = true
		resigning, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		began := time.Now()
		if err := e.Resign(resigning); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		if e.IsLeader() {
			t.Error("it answers that it leads while its end is being announced")
		}
		close(hang)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := e.Resign(t.Context()); !errors.Is(err, elector.ErrNotRunning) {
			t.Errorf("after Run: %v", err)
		}
	})
}

// TestReturnsAtOnce holds that a claim goes on when OnStartedLeading has returned.
func TestReturnsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		started := 0
		e, err := elector.New(elector.Config{
			Lock: inMemory(t, &store, elector.ModeLease, "web-0_1"), Clock: newNode(1),
			Callbacks: elector.Callbacks{OnStartedLeading: func(context.Context) { started++ }},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()
		time.Sleep(time.Hour)
		if !e.IsLeader() || started != 1 {
			t.Errorf("leads: %v, started %d times", e.IsLeader(), started)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestMemory holds that locks in memory behave as those in a cluster.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		var all []*elector.Elector
		var stops []func()
		for _, identity := range []string{"web-0_1", "web-1_2", "web-2_3"} {
			e, err := elector.New(elector.Config{Lock: inMemory(t, &store, elector.ModeLease, identity), Clock: newNode(1)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
			ended := make(chan error, 1)
			go func() { ended <- e.Run(ctx) }()
			all = append(all, e)
			stops = append(stops, func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		}
		last := uint64(0)
		for range all {
			time.Sleep(time.Minute)
			leaders := 0
			for i, e := range all {
				s := e.Status()
				if s.Role != elector.RoleLeader {
					continue
				}
				leaders++
				if s.FencingToken <= last {
					t.Errorf("token %d after %d", s.FencingToken, last)
				}
				last = s.FencingToken
				stops[i]()
				stops[i] = func() {}
			}
			if leaders != 1 {
				t.Errorf("%d leaders", leaders)
			}
		}
	})
	for name, d := range map[string]elector.Description{
		"no lock":     {Identity: "web-0_1"},
		"no identity": {Settings: elector.Settings{Lock: lockName}},
	} {
		if _, err := new(memory.Store).Lock(d); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
