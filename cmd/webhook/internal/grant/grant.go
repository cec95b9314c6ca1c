package grant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
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
)

// Config configures a Granter.
type Config struct {
	// Candidates are the injected pods. Required.
	Candidates candidates.Source
	// Client reads Roles and RoleBindings from the cache and writes them. Required.
	Client client.Client
	// Live reads lock objects from the API server. Required.
	Live client.Reader
	// Cache holds the Roles and RoleBindings with elector's label. Required.
	Cache cache.Cache
	// Events tells pods why they are not granted their lock. Required.
	Events events.EventRecorder
	// Metrics registers those of this package. Required.
	Metrics prometheus.Registerer
	// ForbidLeaderForLife grants no ConfigMaps.
	ForbidLeaderForLife bool
}

// Granter keeps the grants right.
type Granter struct {
	Config
	latency prometheus.Histogram
	// refused remembers how often each lock was, for the next pause.
	refused workqueue.TypedRateLimiter[lock]
	shared  shared
}

// The pauses between looks at a lock object that is not elector's: somebody may
// annotate it.
const (
	minRefusedPause = time.Second
	maxRefusedPause = 30 * time.Second
)

const (
	// maxRetry bounds the pause after a failed request.
	maxRetry = 30 * time.Second
	// stalePause is how soon a lock is looked at again when the cache was behind.
	stalePause = 50 * time.Millisecond
	// workers bounds the requests in flight. An API server takes up to 100ms for
	// each write of a Role or RoleBinding by somebody who may not escalate: it lists
	// what that somebody may do, and waits for its watch cache to be up to date. So
	// two writes are waited for, not worked at, and many can wait at a time.
	workers = 32
	// reconcileTimeout keeps a hung request from blocking a worker.
	reconcileTimeout = 30 * time.Second
)

// indexLock finds RoleBindings by their lock.
const indexLock = "elector.io/lock"

// New validates the configuration and indexes the cache, which must not have
// been started yet.
func New(ctx context.Context, c Config) (*Granter, error) {
	if c.Candidates == nil || c.Client == nil || c.Live == nil || c.Cache == nil || c.Events == nil || c.Metrics == nil {
		return nil, errors.New("grant needs candidates, a client, a live reader, a cache, an event recorder and a registerer of metrics")
	}
	if err := c.Cache.IndexField(ctx, &rbacv1.RoleBinding{}, indexLock, roleNames); err != nil {
		return nil, fmt.Errorf("indexing role bindings: %w", err)
	}
	if _, err := c.Cache.GetInformer(ctx, &rbacv1.Role{}); err != nil {
		return nil, fmt.Errorf("watching roles: %w", err)
	}
	latency := newLatency()
	if err := c.Metrics.Register(latency); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return &Granter{Config: c, latency: latency, refused: newRefused()}, nil
}

func newRefused() workqueue.TypedRateLimiter[lock] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[lock](minRefusedPause, maxRefusedPause)
}

// Run keeps the grants right until ctx ends; then no request is in flight any
// more. It may be called again, but not twice at a time. Two processes that both
// run it do no harm: they want the same.
func (g *Granter) Run(ctx context.Context) error {
	g.refused = newRefused()
	waiting := &waiting{latency: g.latency, since: map[lock]time.Time{}}
	pods := candidates.Watched(candidates.Pod.Contends, nil)
	pods.Added = waiting.begin
	return locks.Loop{
		Name: "grant", Workers: workers, Timeout: reconcileTimeout, MaxRetry: maxRetry,
		Reconcile: func(ctx context.Context, l lock) (reconcile.Result, error) {
			result, granted, err := g.reconcile(ctx, l)
			switch {
			case err == nil:
				waiting.end(l, granted)
			case apierrors.IsNotFound(err): // the cache still had a Role that is gone
				klog.FromContext(ctx).V(1).Info("looking again", "err", err)
				return reconcile.Result{RequeueAfter: stalePause}, nil
			}
			return result, err
		},
		Sources: []source.TypedSource[lock]{
			locks.Changes(g.Candidates, pods),
			locks.Changes(g.Candidates, olderPods()),
			locks.Changes(g.Cache, locks.Watched{Object: &rbacv1.Role{}, Locks: locksOfGrant, Settled: g.settled}),
			locks.Changes(g.Cache, locks.Watched{Object: &rbacv1.RoleBinding{}, Locks: locksOfGrant, Settled: g.settled}),
		},
	}.Run(ctx)
}

// roleNames are the index of a RoleBinding.
func roleNames(obj client.Object) (names []string) {
	for _, l := range locksOfGrant(obj) {
		names = append(names, roleName(l))
	}
	return names
}

// locksOfGrant returns the lock a Role or RoleBinding is for, as a list of none
// or one.
func locksOfGrant(obj client.Object) []lock {
	if l, ok := lockOf(obj.GetNamespace(), obj.GetName()); ok {
		return []lock{l}
	}
	return nil
}

// settled reports whether a Role or RoleBinding is what its name says, and needed.
func (g *Granter) settled(obj client.Object) bool {
	l, ok := lockOf(obj.GetNamespace(), obj.GetName())
	if !ok || !isRight(l, obj) {
		return false
	}
	return slices.ContainsFunc(g.Candidates.OfLock(l), candidates.Pod.Contends)
}

// reconcile makes the grants of one lock what they should be. granted tells
// whether one was added.
func (g *Granter) reconcile(ctx context.Context, l lock) (result reconcile.Result, granted bool, err error) {
	have, err := g.read(ctx, l)
	if err != nil {
		return reconcile.Result{}, false, err
	}
	role, bindings := desired(l, have.pods)
	reason, news := "", false
	if role != nil {
		object, err := g.object(ctx, l)
		if err != nil {
			return reconcile.Result{}, false, fmt.Errorf("reading the lock object: %w", err)
		}
		if reason = refusal(l, object, g.ForbidLeaderForLife); reason == "" {
			reason = withheld(l, have.pods, g.Candidates)
			news = reason != "" // when it changes
		}
		if reason != "" {
			role, bindings = nil, nil
		}
	}
	granted, err = g.write(ctx, have, role, bindings)
	// A namespace that goes away takes pods and grants with it.
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return reconcile.Result{}, false, nil
	}
	if err != nil {
		return reconcile.Result{}, false, err
	}
	g.shared.tell(g.Events, l, have.pods)
	if reason == "" {
		g.refused.Forget(l)
		return reconcile.Result{}, granted, nil
	}
	klog.FromContext(ctx).Info("refused to grant", "reason", reason)
	for _, pod := range have.pods {
		g.Events.Eventf(pod.Object(), nil, corev1.EventTypeWarning, "LockNotGranted", "Grant", "%s", reason)
	}
	if news {
		return reconcile.Result{}, false, nil
	}
	return reconcile.Result{RequeueAfter: g.refused.When(l)}, false, nil
}

// state is what the cache has about one lock. role is nil if there is none.
type state struct {
	pods     []candidates.Pod // that contend for it
	role     *rbacv1.Role
	bindings []rbacv1.RoleBinding
}

func (g *Granter) read(ctx context.Context, l lock) (state, error) {
	var bindings rbacv1.RoleBindingList
	if err := g.Client.List(ctx, &bindings, client.InNamespace(l.Namespace), client.MatchingFields{indexLock: roleName(l)}); err != nil {
		return state{}, fmt.Errorf("listing role bindings: %w", err)
	}
	contend := slices.DeleteFunc(g.Candidates.OfLock(l), candidates.Pod.Ended)
	s := state{pods: contend, bindings: bindings.Items, role: &rbacv1.Role{}}
	err := g.Client.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: roleName(l)}, s.role)
	if apierrors.IsNotFound(err) {
		s.role, err = nil, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("reading the role: %w", err)
	}
	return s, nil
}

// object returns the lock object's metadata as it is now, or nil. An object that
// the mode forbids to touch is not read: the manager may not.
func (g *Granter) object(ctx context.Context, l lock) (metav1.Object, error) {
	if g.ForbidLeaderForLife && l.Mode != elector.ModeLease {
		return nil, nil
	}
	var object metav1.PartialObjectMetadata
	object.SetGroupVersionKind(l.Kind())
	err := g.Live.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, &object)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &object, nil
}

// write goes from have to the given Role and RoleBindings. The Role comes before
// its bindings and goes after them. granted tells whether a binding was added.
func (g *Granter) write(ctx context.Context, have state, role *rbacv1.Role, bindings []*rbacv1.RoleBinding) (granted bool, err error) {
	log := klog.FromContext(ctx)
	current := map[string]*rbacv1.RoleBinding{}
	for i := range have.bindings {
		current[have.bindings[i].Name] = &have.bindings[i]
	}
	if role != nil && (have.role == nil || !sameRole(have.role, role)) {
		if err := g.put(ctx, role, have.role != nil); err != nil {
			return granted, fmt.Errorf("writing the role: %w", err)
		}
	}
	for _, want := range bindings {
		got, exists := current[want.Name]
		delete(current, want.Name)
		if exists && sameBinding(got, want) {
			continue
		}
		if exists && got.RoleRef != want.RoleRef {
			// The role of a binding cannot be changed.
			if err := g.remove(ctx, got); err != nil {
				return granted, fmt.Errorf("deleting the role binding: %w", err)
			}
			exists = false
		}
		if err := g.put(ctx, want, exists); err != nil {
			return granted, fmt.Errorf("writing the role binding: %w", err)
		}
		granted = granted || !exists
		log.Info("granted", "serviceAccount", want.Subjects[0].Name)
	}
	for _, surplus := range current {
		if err := g.remove(ctx, surplus); err != nil {
			return granted, fmt.Errorf("deleting the role binding: %w", err)
		}
		log.Info("removed a grant", "roleBinding", surplus.Name)
	}
	if role == nil && have.role != nil {
		if err := g.remove(ctx, have.role); err != nil {
			return granted, fmt.Errorf("deleting the role: %w", err)
		}
	}
	return granted, nil
}

// fieldOwner owns what is applied.
const fieldOwner = client.FieldOwner("elector-webhook")

// put creates obj, or makes what obj says true of the object that is there. It
// does not depend on the cache being right about that: to create is only quicker
// than to apply.
func (g *Granter) put(ctx context.Context, obj client.Object, exists bool) error {
	if !exists {
		err := g.Client.Create(ctx, obj.DeepCopyObject().(client.Object), fieldOwner)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return err
	}
	u := client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: content})
	return g.Client.Apply(ctx, u, fieldOwner, client.ForceOwnership)
}

// remove deletes the very object that was read, not one that took its place.
func (g *Granter) remove(ctx context.Context, obj client.Object) error {
	err := g.Client.Delete(ctx, obj, client.Preconditions{UID: new(obj.GetUID())})
	return client.IgnoreNotFound(err)
}
