package memory_test

import (
	"context"
	"errors"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

func newLock(t *testing.T, store *memory.Store, mode elector.Mode, identity string) elector.Lock {
	t.Helper()
	lock, err := store.Lock(elector.Description{Settings: elector.Settings{Lock: "web", Mode: mode}, Identity: identity})
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

func deleted(elector.Record) elector.Record { return elector.Record{} }

// TestBecome becomes the leader and loses that, many times at once: nothing panics, and the first loss is the last.
func TestBecome(t *testing.T) {
	for _, mode := range []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife} {
		t.Run(string(mode), func(t *testing.T) {
			for range 50 {
				var store memory.Store
				ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
				leading, err := elector.Become(ctx, newLock(t, &store, mode, "web-0_1"))
				if err != nil || leading.Err() != nil {
					t.Fatal(err, leading.Err())
				}
				for leading.Err() == nil { // the lock goes, and comes back as long as somebody contends
					store.Edit("", "web", deleted)
				}
				if err := context.Cause(leading); err == nil || errors.Is(err, context.Canceled) {
					t.Errorf("the cause is %v", err)
				}
				cancel()
			}
		})
	}
}

func TestBecomeEnds(t *testing.T) {
	var store memory.Store
	ctx, cancel := context.WithCancelCause(klog.NewContext(t.Context(), logr.Discard()))
	lock := newLock(t, &store, elector.ModeLeaderForLife, "web-0_1")
	if _, err := elector.Become(ctx, lock); err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	waiting := make(chan error)
	go func() {
		_, err := elector.Become(ctx, newLock(t, &store, elector.ModeLeaderForLife, "web-1_2"))
		waiting <- err
	}()
	cancel(why)
	if err := <-waiting; !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	if leading, err := elector.Become(t.Context(), nil); err != nil || leading.Err() != nil {
		t.Errorf("outside a cluster: %v, %v", leading, err)
	}
}
