package locks

import (
	"context"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// minRetry is the first pause after a failed request; it doubles.
const minRetry = 20 * time.Millisecond

// Loop looks at locks, during one claim of the manager. Fields without a default
// are required.
type Loop struct {
	// Name is the loop's, in logs and in controller-runtime's metrics.
	Name string
	// Reconcile looks at one lock. It is called for many locks at a time, and for
	// each of them once at a time.
	Reconcile func(context.Context, Lock) (reconcile.Result, error)
	// Forget is called instead where the manager does not work, or no more: what is
	// known of the lock is out of date from then on. Default: nothing is remembered.
	Forget func(Lock)
	// Workers bounds how many locks are looked at together.
	Workers int
	// MaxRetry bounds the pause after a failure.
	MaxRetry time.Duration
	// Timeout ends a Reconcile. Default: none.
	Timeout time.Duration
	// Sources tell which locks to look at.
	Sources []source.TypedSource[Lock]
	// Namespaces limits which locks are looked at, and tells when that changes.
	// Default: all.
	Namespaces *Namespaces
}

// Run works until ctx ends; then no Reconcile is under way any more.
func (l Loop) Run(ctx context.Context) error {
	c, err := controller.NewTypedUnmanaged(l.Name, controller.TypedOptions[Lock]{
		Reconciler:              reconcile.TypedFunc[Lock](l.reconcile),
		MaxConcurrentReconciles: l.Workers,
		ReconciliationTimeout:   l.Timeout,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[Lock](minRetry, l.MaxRetry),
		SkipNameValidation:      new(true), // the name is used again by the next claim
		Logger:                  klog.FromContext(ctx),
		LogConstructor: func(lock *Lock) klog.Logger {
			log := klog.FromContext(ctx).WithName(l.Name)
			if lock == nil {
				return log.V(1) // the controller's about itself
			}
			return log.WithValues("lock", klog.KRef(lock.Namespace, lock.Name), "mode", lock.Mode)
		},
	})
	if err != nil {
		return err
	}
	for _, s := range append(l.Namespaces.Changes(), l.Sources...) {
		if err := c.Watch(s); err != nil {
			return err
		}
	}
	return c.Start(ctx)
}

// reconcile looks at the lock if it is in a namespace that is selected, and else
// forgets it.
func (l Loop) reconcile(ctx context.Context, lock Lock) (reconcile.Result, error) {
	selected, _, err := l.Namespaces.Selected(ctx, lock.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !selected {
		if l.Forget != nil {
			l.Forget(lock)
		}
		return reconcile.Result{}, nil
	}
	return l.Reconcile(ctx, lock)
}
