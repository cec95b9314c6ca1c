package grant

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAttention has more locks than places.
func TestAttention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var watches, looks atomic.Int32
		broken := make(chan struct{})
		a := &attention{
			watch: func(ctx context.Context, _ lock, news func()) error {
				watches.Add(1)
				defer watches.Add(-1)
				news()
				select {
				case <-ctx.Done():
				case <-broken:
				}
				return errors.New("ended")
			},
			look: func(lock) { looks.Add(1) },
			begin: func(work func(context.Context)) func() {
				ctx, stop := context.WithCancel(ctx)
				go work(ctx)
				return stop
			},
			paid: map[lock]func(){}, shares: map[string]share{},
		}
		const namespaces = maxWatched/maxWatchedOf + 1
		named := func(i int) lock {
			return lock{Namespace: "shop-" + strconv.Itoa(i%namespaces), Name: strconv.Itoa(i)}
		}
		expect := func(what string, wantWatches, wantLooks int32) {
			t.Helper()
			synctest.Wait()
			if watches.Load() != wantWatches || looks.Swap(0) != wantLooks {
				t.Errorf("%s: %d watches, want %d, and %d looks", what, watches.Load(), wantWatches, wantLooks)
			}
		}
		const some = maxWatched + 10
		for range 2 {
			for i := range some {
				if pause := a.pay(named(i)); pause > maxRecheck || pause < maxRecheck-recheckSpread {
					t.Errorf("lock %d is looked at after %s", i, pause)
				}
			}
		}
		expect("at the beginning", maxWatched, maxWatched)
		a.forget(named(0))
		expect("one is settled", maxWatched-1, 0)
		a.pay(named(some - 1))
		expect("its place is taken", maxWatched, 1)
		close(broken)
		expect("watches end", 0, 0)
		<-time.After(rewatch)
		expect("and begin anew", 0, maxWatched)

		const many = 10_000
		last := time.Duration(0)
		for i := range many {
			last = a.pay(named(i))
		}
		if rate := many / last.Seconds(); rate > 101 {
			t.Errorf("%d locks are looked at %.0f times a second", many, rate)
		}
		for i := range many {
			a.forget(named(i))
			a.forget(named(i))
		}
		if len(a.paid) > 0 || a.watched > 0 || len(a.shares) > 0 {
			t.Errorf("%d locks, %d watches and %d namespaces are left", len(a.paid), a.watched, len(a.shares))
		}
		cancel()
	})
}

// TestAttentionIsShared has a namespace with very many locks that nobody makes:
// it takes from no other.
func TestAttentionIsShared(t *testing.T) {
	a := &attention{
		begin: func(func(context.Context)) func() { return func() {} },
		paid:  map[lock]func(){}, shares: map[string]share{},
	}
	const many = 10_000
	var theirs time.Duration
	pay := func() {
		for i := range many {
			theirs = a.pay(lock{Namespace: "mallory", Name: strconv.Itoa(i)})
		}
	}
	pay()
	web := lock{Namespace: "shop", Name: "web"}
	ours := a.pay(web)
	if a.paid[web] == nil {
		t.Errorf("the only lock of a namespace is not watched, %d of another are", a.watched)
	}
	if ours > maxRecheck {
		t.Errorf("it is looked at after %s", ours)
	}
	pay()
	if rate := many/theirs.Seconds() + 1/ours.Seconds(); rate > 100 {
		t.Errorf("%.0f looks a second", rate)
	}
}
