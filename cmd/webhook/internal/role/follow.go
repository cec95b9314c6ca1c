package role

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

const (
	// followAfter is how long the cache may not have a lock before it is watched by
	// name: a lock that is new, or changes hands in leader-for-life, is not there for
	// a moment, and then is in the cache.
	followAfter = 3 * time.Second
	// followRetry is the pause after a watch by name failed.
	followRetry = 5 * time.Second
)

// follower watches by their names locks that the cache does not have.
type follower struct {
	// open returns the lock to watch; changed is told of another holder.
	open    func(locks.Lock) (elector.Lock, error)
	changed func(locks.Lock)
	// begin runs a function until its context is cancelled by the follower's end or
	// by stop.
	begin func(func(context.Context)) (stop func())

	mu       sync.Mutex
	followed map[locks.Lock]*followed
	// cached are the locks that the cache once had: when it has them no more they
	// are free, as far as is known.
	cached  map[locks.Lock]bool
	running sync.WaitGroup
}

type followed struct {
	stop   func()
	holder string
	known  bool
}

func newFollower(ctx context.Context, open func(locks.Lock) (elector.Lock, error), changed func(locks.Lock)) *follower {
	f := &follower{open: open, changed: changed, followed: map[locks.Lock]*followed{}, cached: map[locks.Lock]bool{}}
	f.begin = func(work func(context.Context)) func() {
		ctx, stop := context.WithCancel(ctx)
		f.running.Go(func() {
			defer stop()
			work(ctx)
		})
		return stop
	}
	return f
}

// wait returns when nothing is watched any more, after the follower's context
// has ended and nobody calls holder any more.
func (f *follower) wait() { f.running.Wait() }

// holder returns who holds the lock, if that is known, and makes sure that it
// will be.
func (f *follower) holder(l locks.Lock) (identity string, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, ok := f.followed[l]
	if !ok {
		now = &followed{known: f.cached[l], stop: f.begin(func(ctx context.Context) { f.follow(ctx, l) })}
		f.followed[l] = now
	}
	return now.holder, now.known
}

// forget stops watching the lock, because the cache has it or because nobody
// contends for it any more.
func (f *follower) forget(l locks.Lock, cached bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now, ok := f.followed[l]; ok {
		now.stop()
		delete(f.followed, l)
	}
	if cached {
		f.cached[l] = true
	} else {
		delete(f.cached, l)
	}
}

// follow watches the lock until ctx ends.
func (f *follower) follow(ctx context.Context, l locks.Lock) {
	for pause := followAfter; ; pause = followRetry {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		lock, err := f.open(l)
		if err == nil {
			err = lock.Observe(ctx, func(r elector.Record) { f.see(ctx, l, r.Holder) })
		}
		if ctx.Err() == nil && err != nil {
			klog.FromContext(ctx).V(1).Info("Watching a lock by its name failed", "lock", klog.KRef(l.Namespace, l.Name), "mode", l.Mode, "err", err)
		}
	}
}

// see notes the holder, unless the lock is not followed any more.
func (f *follower) see(ctx context.Context, l locks.Lock, holder string) {
	f.mu.Lock()
	now := f.followed[l]
	news := ctx.Err() == nil && now != nil && (!now.known || now.holder != holder)
	if news {
		now.holder, now.known = holder, true
	}
	f.mu.Unlock()
	if news {
		f.changed(l)
	}
}

// opener returns locks to be watched with the client configuration.
func opener(client *rest.Config) func(locks.Lock) (elector.Lock, error) {
	return func(l locks.Lock) (elector.Lock, error) {
		return kube.New(client, kube.Config{Candidate: elector.Description{
			Settings: elector.Settings{Lock: l.Name, Mode: l.Mode}, Namespace: l.Namespace,
			Identity: elector.Identity("manager", "observer"), // required, and never written here
		}})
	}
}
