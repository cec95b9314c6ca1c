package locks

import (
	"context"
	"fmt"
	"slices"

	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// Informers has informers for some kinds; a cache.Cache does.
type Informers interface {
	GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error)
}

// Watched is a kind of objects and what a change of one of them is about.
type Watched struct {
	// Object is of the kind. Required.
	Object client.Object
	// Locks returns the locks that an object is about. Required.
	Locks func(client.Object) []Lock
	// View returns a comparable value of what matters in an object: an update that
	// leaves it and the locks as they were is no change. Default: every update is
	// one.
	View func(client.Object) any
	// Settled says that an object is as it should be, so that nothing follows from
	// its being there: most such news are echoes of our own writes. Default: none
	// is.
	Settled func(client.Object) bool
	// Changed is told of every change of an object, before its locks are queued; after
	// is nil if it is gone. It must not take long. Default: nobody is told.
	Changed func(before, after client.Object)
	// Added is told of the locks of an object that is new, before they are queued.
	// What was there when the watch began is not new. Default: nobody is told.
	Added func([]Lock)
}

// OfObjects is Watched for the lock objects of a mode: a change is another
// holder. Renewals are none.
func OfObjects(mode elector.Mode) Watched {
	return Watched{
		Object: Object(mode),
		Locks: func(obj client.Object) []Lock {
			return []Lock{{Namespace: obj.GetNamespace(), Mode: mode, Name: obj.GetName()}}
		},
		View: func(obj client.Object) any { return kube.HolderOf(obj) },
	}
}

// Sources are those of the locks of each mode that is not forbidden, of whose objects
// watched says what is watched.
func Sources(informers Informers, forbidLeaderForLife bool, watched func(elector.Mode) Watched) []source.TypedSource[Lock] {
	sources := []source.TypedSource[Lock]{Changes(informers, watched(elector.ModeLease))}
	if !forbidLeaderForLife {
		sources = append(sources, Changes(informers, watched(elector.ModeLeaderForLife)))
	}
	return sources
}

// Holders are the sources of the locks that have another holder than before.
func Holders(informers Informers, forbidLeaderForLife bool) []source.TypedSource[Lock] {
	return Sources(informers, forbidLeaderForLife, OfObjects)
}

// Partings are Holders, and tell besides how each holder lost its lock, in their
// order, before the lock is queued. parted must not take long.
func Partings(informers Informers, forbidLeaderForLife bool, parted func(Lock, Parting)) []source.TypedSource[Lock] {
	return Sources(informers, forbidLeaderForLife, func(mode elector.Mode) Watched {
		w := OfObjects(mode)
		w.Changed = func(before, after client.Object) {
			var is Said
			if after != nil {
				is = SaidBy(after)
			}
			if p, ok := PartingOf(SaidBy(before), is); ok {
				parted(w.Locks(before)[0], p)
			}
		}
		return w
	})
}

// Comings are the sources of the locks whose object came or went as one with
// elector's label, and of ConfigMaps also those that changed: somebody may have
// put data into them. Of a Lease no change matters, and there are many.
func Comings(informers Informers, forbidLeaderForLife bool) []source.TypedSource[Lock] {
	return Sources(informers, forbidLeaderForLife, func(mode elector.Mode) Watched {
		w := OfObjects(mode)
		w.View = func(obj client.Object) any { return obj.GetUID() }
		if mode == elector.ModeLeaderForLife {
			w.View = func(obj client.Object) any { return obj.GetResourceVersion() }
		}
		return w
	})
}

// Changes is a source of the locks to look at. controller-runtime's own source
// leaves its handler in the informer for ever; this one takes it out when the
// controller ends, because every claim has a new controller. What the informer
// knows already comes at low priority, so that after a takeover news do not wait
// behind it.
func Changes(informers Informers, w Watched) source.TypedSource[Lock] {
	return source.TypedFunc[Lock](func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[Lock]) error {
		informer, err := informers.GetInformer(ctx, w.Object)
		if err != nil {
			return fmt.Errorf("watching %T: %w", w.Object, err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
			AddFunc: func(obj any, initial bool) {
				priority := 0
				if initial {
					priority = handler.LowPriority
				}
				about := w.of(obj)
				if !initial && w.Added != nil {
					w.Added(about)
				}
				if !w.isSettled(obj) {
					Add(queue, priority, about...)
				}
			},
			UpdateFunc: func(before, after any) {
				w.changed(before, after)
				if was, is := w.of(before), w.of(after); !w.isSettled(after) && (!slices.Equal(was, is) || w.differ(before, after)) {
					Add(queue, 0, append(was, is...)...)
				}
			},
			DeleteFunc: func(obj any) {
				if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
					obj = gone.Obj
				}
				w.changed(obj, nil)
				Add(queue, 0, w.of(obj)...)
			},
		})
		if err != nil {
			return fmt.Errorf("watching %T: %w", w.Object, err)
		}
		context.AfterFunc(ctx, func() { _ = informer.RemoveEventHandler(registration) }) // fails only for foreign handlers
		toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced)
		return nil
	})
}

func (w Watched) changed(before, after any) {
	if w.Changed == nil {
		return
	}
	was, ok := before.(client.Object)
	is, _ := after.(client.Object)
	if ok {
		w.Changed(was, is)
	}
}

func (w Watched) isSettled(obj any) bool {
	o, ok := obj.(client.Object)
	return ok && w.Settled != nil && w.Settled(o)
}

func (w Watched) of(obj any) []Lock {
	if o, ok := obj.(client.Object); ok {
		return w.Locks(o)
	}
	return nil
}

func (w Watched) differ(before, after any) bool {
	was, ok := before.(client.Object)
	is, ok2 := after.(client.Object)
	return w.View == nil || !ok || !ok2 || w.View(was) != w.View(is)
}

// Add queues locks. A controller's queue is always one with priorities.
func Add(queue workqueue.TypedRateLimitingInterface[Lock], priority int, locks ...Lock) {
	if q, ok := queue.(priorityqueue.PriorityQueue[Lock]); ok {
		q.AddWithOpts(priorityqueue.AddOpts{Priority: new(priority)}, locks...)
		return
	}
	for _, l := range locks {
		queue.Add(l)
	}
}
