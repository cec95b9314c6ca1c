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
	// looks a second, however many there are. Every namespace with such locks has an
	// equal part of that. Above some 2,000 locks of one namespace, or fewer if others
	// have some, its pauses grow, and no other's.
	recheckCost = 10 * time.Millisecond
	// maxWatched bounds the watches, and maxWatchedOf those of one namespace. They
	// share the manager's connection to the API server. One costs some 50 KB, but
	// megabytes, for as long as it goes on, if somebody fills the object's metadata
	// up to what the API server stores.
	maxWatched, maxWatchedOf = 16, 4
	// rewatch is the pause after a watch ended.
	rewatch = 5 * time.Second
)

// attention is for the locks that pods contend for and whose object the cache
// does not tell about: it is absent, adopted, or somebody else's. They are looked
// at again and again; the first of each namespace are also watched, so that their
// news come at once.
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
	// shares are those of the namespaces that paid has locks of.
	shares map[string]share
}

// share is how many locks of a namespace are paid attention to, and watched.
type share struct{ paid, watched int }

// pay keeps the lock under attention and returns when to look at it again.
func (a *attention) pay(l lock) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := a.shares[l.Namespace]
	stop, known := a.paid[l]
	if !known {
		of.paid++
	}
	if stop == nil && of.watched < maxWatchedOf && a.watched < maxWatched {
		stop = a.follow(l)
		of.watched++
		a.watched++
	}
	a.paid[l], a.shares[l.Namespace] = stop, of
	pause := maxRecheck - recheckSpread + rand.N(recheckSpread/2) //nolint:gosec // spreads requests
	return max(pause, time.Duration(of.paid*len(a.shares))*recheckCost)
}

// forget ends the attention: the cache tells of the lock, or nobody contends for
// it.
func (a *attention) forget(l lock) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stop, known := a.paid[l]
	if !known {
		return
	}
	of := a.shares[l.Namespace]
	of.paid--
	if stop != nil {
		stop()
		of.watched--
		a.watched--
	}
	a.shares[l.Namespace] = of
	if of.paid == 0 {
		delete(a.shares, l.Namespace)
	}
	delete(a.paid, l)
}

// follow watches the lock until it is told to stop.
func (a *attention) follow(l lock) (stop func()) {
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
