package grant

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// maxRecheck is how long a lock goes without a look while the cache does not
	// tell of its object: it bounds how long a foreign object stays granted.
	maxRecheck = 30 * time.Second
	// recheckSpread keeps looks apart, and leaves them time to be within maxRecheck.
	recheckSpread = 10 * time.Second
	// recheckCost is the time that each such lock takes of all: no more than 100
	// looks a second, however many there are. Above some 2,000 of them the pauses
	// grow.
	recheckCost = 10 * time.Millisecond
	// maxWatched bounds the watches, which share the manager's connection to the API
	// server. One costs some 50 KB.
	maxWatched = 64
	// rewatch is the pause after a watch ended.
	rewatch = 5 * time.Second
)

// attention is for the locks that pods contend for and whose object the cache
// does not tell about: it is absent, adopted, or somebody else's. They are looked
// at again and again; the first of them are also watched, so that their news come
// at once.
type attention struct {
	// watch calls news when something may have changed, until the watch ends.
	watch func(ctx context.Context, l lock, news func()) error
	// look is told of a lock to be looked at.
	look func(lock)
	// begin runs a function until the attention ends, or stop is called.
	begin func(work func(context.Context)) (stop func())

	mu sync.Mutex
	// paid holds the end of the lock's watch, or nil for want of a place.
	paid    map[lock]func()
	watched int
}

// pay keeps the lock under attention and returns when to look at it again.
func (a *attention) pay(l lock) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.paid[l] == nil {
		a.paid[l] = a.follow(l)
	}
	pause := maxRecheck - recheckSpread + rand.N(recheckSpread/2) //nolint:gosec // spreads requests
	return max(pause, time.Duration(len(a.paid))*recheckCost)
}

// forget ends the attention: the cache tells of the lock, or nobody contends for
// it.
func (a *attention) forget(l lock) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if stop := a.paid[l]; stop != nil {
		stop()
		a.watched--
	}
	delete(a.paid, l)
}

// follow watches the lock if there is a place.
func (a *attention) follow(l lock) (stop func()) {
	if a.watched == maxWatched {
		return nil
	}
	a.watched++
	return a.begin(func(ctx context.Context) {
		for {
			if err := a.watch(ctx, l, func() { a.look(l) }); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).V(1).Info("watching a lock by its name failed", "lock", klog.KRef(l.Namespace, l.Name), "mode", l.Mode, "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(rewatch):
			}
		}
	})
}
