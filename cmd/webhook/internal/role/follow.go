package role

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

const (
	// followAfter is how long the cache may not have a lock before it is looked for: a
	// lock that is new, or changes hands in leader-for-life, is not there for a
	// moment, and then is in the cache.
	followAfter = 3 * time.Second
	// followRetry is the pause after a watch ended.
	followRetry = 5 * time.Second
	// lookAgain is the pause before a lock is looked for again that is not there, or
	// that there are too many watches for.
	lookAgain = 30 * time.Second
	// lookPause is between two looks at any locks. Thousands of pods may contend for
	// locks that nobody makes. Namespaces take turns.
	lookPause = 100 * time.Millisecond
	// lookTimeout bounds one.
	lookTimeout = 5 * time.Second
	// maxWatches bounds the watches, and maxWatchesOf those of one namespace. They
	// share the manager's connection to the API server. One costs some 50 KB.
	maxWatches, maxWatchesOf = 200, 50
	// maxWatched bounds the metadata of what is watched, in bytes: a watch keeps
	// memory for the largest object it has seen, and somebody may fill one with what
	// the API server stores. Larger ones are read now and then.
	maxWatched = 32 << 10
)

// unlabelled reads lock objects that the cache does not have.
type unlabelled interface {
	// read returns what the lock says now, and whether it has to be watched: it is
	// there, and the cache will not have it.
	read(context.Context, locks.Lock) (said locks.Said, watched bool, err error)
	// watch tells what the lock says until ctx ends, or the lock is gone, or it fails.
	watch(ctx context.Context, l locks.Lock, see func(locks.Said)) error
}

// follower knows the holders of locks that the cache does not have.
type follower struct {
	objects unlabelled
	// changed is told of another holder; before is nothing if it was not known.
	changed func(l locks.Lock, before, after locks.Said)
	// due are the locks to be looked at.
	due workqueue.TypedDelayingInterface[locks.Lock]
	// begin runs a function until its context is cancelled by the follower's end or
	// by stop.
	begin func(func(context.Context)) (stop func())

	mu       sync.Mutex
	followed map[locks.Lock]*followed
	watches  int
	// watchesOf are those of each namespace that has some.
	watchesOf map[string]int
	// cached are the locks that the cache once had: when it has them no more they
	// are free, as far as is known.
	cached  map[locks.Lock]bool
	running sync.WaitGroup
}

type followed struct {
	stop  func() // ends its watch; nil if there is none
	said  locks.Said
	known bool
}

func newFollower(ctx context.Context, objects unlabelled, changed func(l locks.Lock, before, after locks.Said)) *follower {
	f := &follower{
		objects: objects, changed: changed,
		due: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[locks.Lock]{
			Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[locks.Lock]{Queue: newTurns()}),
		}),
		followed: map[locks.Lock]*followed{}, watchesOf: map[string]int{}, cached: map[locks.Lock]bool{},
	}
	f.begin = func(work func(context.Context)) func() {
		ctx, stop := context.WithCancel(ctx)
		f.running.Go(func() {
			defer stop()
			work(ctx)
		})
		return stop
	}
	f.begin(f.look)
	f.begin(func(ctx context.Context) {
		<-ctx.Done()
		f.due.ShutDown()
	})
	return f
}

// wait returns when nothing is watched any more, after the follower's context
// has ended and nobody calls holder any more.
func (f *follower) wait() { f.running.Wait() }

// holder returns what the lock says of its holder, if that is known, and makes sure
// that it will be.
func (f *follower) holder(l locks.Lock) (said locks.Said, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, ok := f.followed[l]
	if !ok {
		now = &followed{known: f.cached[l]}
		f.followed[l] = now
		f.due.AddAfter(l, followAfter)
	}
	return now.said, now.known
}

// forget stops following the lock, because the cache has it or because nobody
// contends for it any more.
func (f *follower) forget(l locks.Lock, cached bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now, ok := f.followed[l]; ok {
		if now.stop != nil {
			now.stop()
		}
		delete(f.followed, l)
	}
	if cached {
		f.cached[l] = true
	} else {
		delete(f.cached, l)
	}
}

// look looks at locks that are due, one by one, until ctx ends.
func (f *follower) look(ctx context.Context) {
	for {
		l, shutdown := f.due.Get()
		if shutdown {
			return
		}
		f.due.Done(l)
		if f.lookAt(ctx, l) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(lookPause):
			}
		}
	}
}

// lookAt reports whether it took a request.
func (f *follower) lookAt(ctx context.Context, l locks.Lock) bool {
	f.mu.Lock()
	now := f.followed[l]
	needed := now != nil && now.stop == nil
	f.mu.Unlock()
	if !needed {
		return false
	}
	asking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	said, watched, err := f.objects.read(asking, l)
	if err != nil {
		if ctx.Err() == nil {
			klog.FromContext(ctx).V(1).Info("reading a lock by its name failed", "lock", klog.KRef(l.Namespace, l.Name), "mode", l.Mode, "err", err)
		}
		f.due.AddAfter(l, lookAgain)
		return true
	}
	f.see(l, now, said)
	if !watched || !f.follow(l, now) {
		f.due.AddAfter(l, lookAgain)
	}
	return true
}

// follow begins to watch the lock, unless there are too many watches.
func (f *follower) follow(l locks.Lock, now *followed) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followed[l] != now {
		return true // it is forgotten
	}
	if f.watches >= maxWatches || f.watchesOf[l.Namespace] >= maxWatchesOf {
		return false
	}
	f.watches++
	f.watchesOf[l.Namespace]++
	now.stop = f.begin(func(ctx context.Context) {
		err := f.objects.watch(ctx, l, func(said locks.Said) { f.see(l, now, said) })
		if ctx.Err() == nil && err != nil {
			klog.FromContext(ctx).V(1).Info("watching a lock by its name failed", "lock", klog.KRef(l.Namespace, l.Name), "mode", l.Mode, "err", err)
		}
		f.mu.Lock()
		f.watches--
		if f.watchesOf[l.Namespace]--; f.watchesOf[l.Namespace] == 0 {
			delete(f.watchesOf, l.Namespace)
		}
		now.stop = nil
		f.mu.Unlock()
		f.due.AddAfter(l, followRetry)
	})
	return true
}

// see notes what the lock says, unless it is not followed any more, or anew.
func (f *follower) see(l locks.Lock, now *followed, said locks.Said) {
	f.mu.Lock()
	before := now.said
	followed := f.followed[l] == now
	news := followed && (!now.known || before.Holder != said.Holder)
	if followed {
		now.said, now.known = said, true
	}
	f.mu.Unlock()
	if news {
		f.changed(l, before, said)
	}
}

// byName is unlabelled at the API server.
type byName struct{ client.WithWatch }

func (b byName) read(ctx context.Context, l locks.Lock) (said locks.Said, watched bool, err error) {
	object := locks.Object(l.Mode)
	err = b.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, object)
	if apierrors.IsNotFound(err) {
		return locks.Said{}, false, nil
	}
	if err != nil {
		return locks.Said{}, false, err
	}
	foreign := object.GetLabels()[kube.ManagedByLabel] != kube.ManagedBy
	said, err = saidBy(object)
	return said, foreign && !tooLarge(object), err
}

// saidBy returns what an object of any size says, and keeps nothing else of it.
func saidBy(object client.Object) (locks.Said, error) {
	trimmed, err := locks.Trim(object)
	if err != nil {
		return locks.Said{}, err
	}
	return locks.SaidBy(trimmed.(client.Object)), nil
}

// tooLarge reports whether the object is not to be watched.
func tooLarge(object client.Object) bool {
	switch o := object.(type) {
	case *coordinationv1.Lease:
		return o.Size() > maxWatched
	case *metav1.PartialObjectMetadata:
		return o.ObjectMeta.Size() > maxWatched
	}
	return false
}

var (
	// errNoObject ends a watch that tells of something else.
	errNoObject = errors.New("a watch tells of no object")
	// errTooLarge ends one that takes much memory.
	errTooLarge = fmt.Errorf("a watch tells of an object with more than %d bytes", maxWatched)
)

func (b byName) watch(ctx context.Context, l locks.Lock, see func(locks.Said)) error {
	// Without a version a watch begins with what is there.
	w, err := b.Watch(ctx, listOf(l.Mode), client.InNamespace(l.Namespace), client.MatchingFields{metav1.ObjectNameField: l.Name})
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		switch event.Type {
		case watch.Added, watch.Modified:
			object, ok := event.Object.(client.Object)
			if !ok {
				return errNoObject
			}
			said, err := saidBy(object)
			if err != nil {
				return err
			}
			see(said)
			if tooLarge(object) {
				return errTooLarge
			}
		case watch.Deleted:
			see(locks.Said{})
			return nil
		case watch.Error:
			return apierrors.FromObject(event.Object)
		case watch.Bookmark:
		}
	}
	return nil
}

func listOf(mode elector.Mode) client.ObjectList {
	if mode == elector.ModeLeaderForLife {
		return &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}}
	}
	return &coordinationv1.LeaseList{}
}
