package grant

import (
	"context"
	"fmt"
	"slices"

	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// watched is a kind of objects and what a change of one of them is about.
type watched struct {
	obj client.Object
	// locks returns the locks that an object is about.
	locks func(client.Object) []lock
	// quiet says that only a change of the locks is a change: the kubelet often
	// writes to a Pod what does not matter here.
	quiet bool
	// settled says that an object is as it should be, so that nothing follows from
	// its being there: most such news are echoes of our own writes. Optional.
	settled func(client.Object) bool
}

// changes is a source of the locks to look at. controller-runtime's own source
// leaves its handler in the informer for ever; this one takes it out when the
// controller ends, because every claim has a new controller. What the informer
// knows already comes at low priority, so that after a takeover new pods do not
// wait behind the old ones.
func changes(informers cache.Informers, w watched) source.TypedSource[lock] {
	return source.TypedFunc[lock](func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[lock]) error {
		informer, err := informers.GetInformer(ctx, w.obj)
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.obj, err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
			AddFunc: func(obj any, initial bool) {
				priority := 0
				if initial {
					priority = handler.LowPriority
				}
				if !w.isSettled(obj) {
					add(queue, priority, w.of(obj)...)
				}
			},
			UpdateFunc: func(before, after any) {
				was, is := w.of(before), w.of(after)
				if !w.isSettled(after) && (!w.quiet || !slices.Equal(was, is)) {
					add(queue, 0, append(was, is...)...)
				}
			},
			DeleteFunc: func(obj any) {
				if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
					obj = gone.Obj
				}
				add(queue, 0, w.of(obj)...)
			},
		})
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.obj, err)
		}
		context.AfterFunc(ctx, func() { _ = informer.RemoveEventHandler(registration) }) // fails only for foreign handlers
		toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced)
		return nil
	})
}

func (w watched) isSettled(obj any) bool {
	o, ok := obj.(client.Object)
	return ok && w.settled != nil && w.settled(o)
}

func (w watched) of(obj any) []lock {
	if o, ok := obj.(client.Object); ok {
		return w.locks(o)
	}
	return nil
}

// add queues locks. A controller's queue is always one with priorities.
func add(queue workqueue.TypedRateLimitingInterface[lock], priority int, locks ...lock) {
	if q, ok := queue.(priorityqueue.PriorityQueue[lock]); ok {
		q.AddWithOpts(priorityqueue.AddOpts{Priority: ptr.To(priority)}, locks...)
		return
	}
	for _, l := range locks {
		queue.Add(l)
	}
}
