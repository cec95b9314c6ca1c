package reap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// Config configures a Reaper.
type Config struct {
	// Locks reads and writes lock objects at the API server. Required.
	Locks client.Client
	// Candidates are the injected pods. Required.
	Candidates candidates.Source
	// Cache holds the lock objects with elector's label. Required.
	Cache cache.Cache
	// Events tells pods that stay that their lock was freed. Required.
	Events events.EventRecorder
	// Metrics registers those of this package. Required.
	Metrics prometheus.Registerer
	// Namespaces are those in which locks are freed. Default: all.
	Namespaces *locks.Namespaces
	// ForbidLeaderForLife leaves ConfigMaps alone.
	ForbidLeaderForLife bool
}

// Reaper frees the locks of dead Pods.
type Reaper struct {
	Config
	// reaped counts the locks that were freed, by mode.
	reaped *prometheus.CounterVec
	// reading holds who reads a stranger: one at a time.
	reading chan struct{}

	mu sync.Mutex
	// queue takes locks to be looked at; nil while the Reaper does not run.
	queue workqueue.TypedRateLimitingInterface[locks.Lock]
	// strangers are the locks that pods hold whom nobody watches.
	strangers map[locks.Lock]bool
}

const (
	// maxRetry bounds the pause after a failed request.
	maxRetry = 10 * time.Second
	// conflictPause is how soon a lock that changed meanwhile is looked at again.
	conflictPause = 20 * time.Millisecond
	// requestTimeout is for a read and a write, below what is left of the manager's
	// lease when its claim ends.
	requestTimeout = 2 * time.Second
	// strangerPause is how often a pod is looked at that holds a lock and is none of
	// its candidates as far as is known.
	strangerPause = 10 * time.Second
	// strangerCost is the time that each such lock takes of all: no more than 50 looks
	// a second, however many there are.
	strangerCost = 20 * time.Millisecond
	// workers bounds the requests in flight. A node that shuts down ends many pods
	// at once.
	workers = 8
)

// New validates the configuration.
func New(c Config) (*Reaper, error) {
	if c.Locks == nil || c.Candidates == nil || c.Cache == nil || c.Events == nil || c.Metrics == nil {
		return nil, errors.New("reap needs a client for locks, candidates, a cache, an event recorder and a registerer of metrics")
	}
	reaped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "elector_webhook_reaped_locks_total",
		Help: "Locks freed because their holder's Pod had ended, by mode.",
	}, []string{"mode"})
	if err := c.Metrics.Register(reaped); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return &Reaper{Config: c, reaped: reaped, reading: make(chan struct{}, 1)}, nil
}

// Run frees locks until ctx ends; then no request is in flight any more. It may
// be called again, but not twice at a time. Two processes that both run it do no
// harm: every write is against the version that was judged.
func (r *Reaper) Run(ctx context.Context) error {
	defer r.listen(nil)
	asked := source.TypedFunc[locks.Lock](func(_ context.Context, queue workqueue.TypedRateLimitingInterface[locks.Lock]) error {
		r.listen(queue)
		return nil
	})
	return locks.Loop{
		Name: "reap", Namespaces: r.Namespaces, Reconcile: r.reconcile, Workers: workers, MaxRetry: maxRetry,
		Sources: append(locks.Holders(r.Cache, r.ForbidLeaderForLife), asked, locks.Changes(r.Candidates, candidates.Watched(anyPod, view))),
	}.Run(ctx)
}

// listen sets where Look puts locks, and forgets what was known.
func (r *Reaper) listen(queue workqueue.TypedRateLimitingInterface[locks.Lock]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue, r.strangers = queue, map[locks.Lock]bool{}
}

// Look asks for a look at a lock of whose holders the cache does not tell. It does
// nothing while the Reaper does not run.
func (r *Reaper) Look(l locks.Lock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queue != nil {
		locks.Add(r.queue, 0, l)
	}
}

func isDead(pod candidates.Pod) bool { return pod.Dead }

// anyPod is for the news of pods. One that comes to contend may find the lock in the
// hands of a pod that nobody watches; one that goes, without its marks, may hold it.
func anyPod(candidates.Pod) bool { return true }

// view is what matters here in a pod.
func view(pod candidates.Pod) any { return [2]bool{pod.Dead, pod.Contends()} }

// freeable returns the pod whose lock is to be freed: the dead one that the lock
// names, if any.
func freeable(l locks.Lock, holder string, pods []candidates.Pod) (pod candidates.Pod, ok bool) {
	i := slices.IndexFunc(pods, func(pod candidates.Pod) bool { return pod.Lock == l && pod.Dead && pod.Identity() == holder })
	if i < 0 {
		return candidates.Pod{}, false
	}
	return pods[i], true
}

// reconcile frees the lock if a dead pod holds it.
func (r *Reaper) reconcile(ctx context.Context, l locks.Lock) (reconcile.Result, error) {
	if r.ForbidLeaderForLife && l.Mode == elector.ModeLeaderForLife {
		return reconcile.Result{}, nil
	}
	pods := r.Candidates.OfLock(l)
	if suspect, err := r.suspect(ctx, l, pods); err != nil || !suspect {
		r.watch(l, false)
		return reconcile.Result{}, err
	}
	// What is sent is waited for, also when the claim ends meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	object := locks.Object(l.Mode)
	if err := r.Locks.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, object); err != nil {
		r.watch(l, false)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	holder := kube.HolderOf(object)
	pod, ok := freeable(l, holder, pods)
	if !ok && locks.MayUse(object) && isStranger(holder, pods) {
		var err error
		if pod, err = r.stranger(ctx, l, holder); err != nil {
			return reconcile.Result{}, err
		}
		ok = pod.Dead
	}
	pause := r.watch(l, pod.UID != "" && !ok)
	if !ok {
		return reconcile.Result{RequeueAfter: pause}, nil
	}
	log := klog.FromContext(ctx)
	if !locks.MayUse(object) {
		log.Info("left the lock of a dead pod alone", "reason", "it is not elector's", "pod", klog.KRef(pod.Namespace, pod.Name))
		return reconcile.Result{}, nil
	}
	switch err := r.free(ctx, object); {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return reconcile.Result{RequeueAfter: conflictPause}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("freeing the lock: %w", err)
	}
	r.reaped.WithLabelValues(string(l.Mode)).Inc()
	log.Info("freed the lock of a dead pod", "pod", klog.KRef(pod.Namespace, pod.Name), "uid", pod.UID, "phase", pod.Phase)
	if !pod.Deleting { // else nobody will look at it, and its namespace may be going, too
		r.Events.Eventf(pod.Object(), nil, corev1.EventTypeNormal, "LockReaped", "Reap",
			"Freed %s: pod %s held it and has ended with phase %s", l, pod.Name, pod.Phase)
	}
	return reconcile.Result{}, nil
}

// free frees the lock if its object is still the one that was read.
func (r *Reaper) free(ctx context.Context, object client.Object) error {
	if lease, ok := object.(*coordinationv1.Lease); ok {
		if err := kube.Release(lease); err != nil {
			return err
		}
		return r.Locks.Update(ctx, lease)
	}
	return r.Locks.Delete(ctx, object, client.Preconditions{UID: new(object.GetUID()), ResourceVersion: new(object.GetResourceVersion())})
}
