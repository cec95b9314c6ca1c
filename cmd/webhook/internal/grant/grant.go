package grant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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
	"github.com/elector-io/elector/cmd/webhook/internal/look"
	"github.com/elector-io/elector/elector"
)

// Config configures a Granter.
type Config struct {
	// Candidates are the injected pods. Required.
	Candidates candidates.Source
	// Client reads Roles and RoleBindings from the cache and writes them. Required.
	Client client.Client
	// Live reads Roles and RoleBindings from the API server, as the cache has only
	// those with elector's label. Required.
	Live client.Reader
	// Objects looks at lock objects. Required.
	Objects Objects
	// Cache holds the Roles and RoleBindings, and the lock objects, with elector's
	// label. Required.
	Cache cache.Cache
	// Events tells pods why they are not granted their lock. Required.
	Events events.EventRecorder
	// Metrics registers those of this package. Required.
	Metrics prometheus.Registerer
	// Adopted is told of locks whose object others made and gave to elector, at each
	// look: their holders are not in the cache. Default: nobody is told.
	Adopted func(locks.Lock)
	// Namespaces are those in which locks are granted. Default: all.
	Namespaces *locks.Namespaces
	// ForbidLeaderForLife grants no ConfigMaps.
	ForbidLeaderForLife bool
}

// Objects looks at lock objects at the API server; a look.Looker does.
type Objects interface {
	Look(ctx context.Context, l locks.Lock) (look.Sight, error)
	Watch(ctx context.Context, l locks.Lock, news func()) error
}

// Granter keeps the grants right.
type Granter struct {
	Config
	latency prometheus.Histogram
	revoked *prometheus.CounterVec
	// refused remembers how often each lock was, for the next pause.
	refused workqueue.TypedRateLimiter[lock]
	shared  shared
	// told is why each lock is refused, as far as that was logged.
	told sync.Map // of lock: string
	// attention is for the locks of whose objects the cache does not tell.
	attention *attention
	pairs     pairs
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
	if c.Candidates == nil || c.Client == nil || c.Live == nil || c.Objects == nil || c.Cache == nil || c.Events == nil || c.Metrics == nil {
		return nil, errors.New("grant needs candidates, a client, a live reader, lock objects, a cache, an event recorder and a registerer of metrics")
	}
	if err := c.Cache.IndexField(ctx, &rbacv1.RoleBinding{}, indexLock, roleNames); err != nil {
		return nil, fmt.Errorf("indexing role bindings: %w", err)
	}
	if _, err := c.Cache.GetInformer(ctx, &rbacv1.Role{}); err != nil {
		return nil, fmt.Errorf("watching roles: %w", err)
	}
	latency, revoked := newLatency(), newRevoked()
	if err := errors.Join(c.Metrics.Register(latency), c.Metrics.Register(revoked)); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return &Granter{Config: c, latency: latency, revoked: revoked, refused: newRefused()}, nil
}

func newRefused() workqueue.TypedRateLimiter[lock] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[lock](minRefusedPause, maxRefusedPause)
}

// Run keeps the grants right until ctx ends; then no request is in flight any
// more. It may be called again, but not twice at a time. Two processes that both
// run it do no harm: they want the same.
func (g *Granter) Run(ctx context.Context) error {
	g.refused, g.told = newRefused(), sync.Map{}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unheard := source.TypedFunc[lock](func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[lock]) error {
		g.attention = &attention{
			watch: g.Objects.Watch, look: func(l lock) { locks.Add(queue, 0, l) }, paid: map[lock]func(){}, shares: map[string]share{},
			begin: func(work func(context.Context)) func() {
				ctx, stop := context.WithCancel(ctx)
				watching.Go(func() { defer stop(); work(ctx) })
				return stop
			},
		}
		return nil
	})
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
		Sources: append([]source.TypedSource[lock]{
			unheard,
			locks.Changes(g.Candidates, pods),
			locks.Changes(g.Candidates, olderPods()),
			locks.Changes(g.Cache, locks.Watched{Object: &rbacv1.Role{}, Locks: locksOfGrant, Settled: g.settled}),
			locks.Changes(g.Cache, locks.Watched{Object: &rbacv1.RoleBinding{}, Locks: locksOfGrant, Settled: g.settled}),
		}, append(locks.Comings(g.Cache, g.ForbidLeaderForLife), g.Namespaces.Changes()...)...),
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
	if role != nil && have.role == nil && l.Mode == elector.ModeLeaderForLife {
		defer g.pairs.lock(l)()
	}
	var seen verdict
	if role == nil {
		g.attention.forget(l)
	} else if seen, err = g.judge(ctx, l, have); err != nil {
		return reconcile.Result{}, false, err
	}
	switch {
	case seen.unknown:
		return reconcile.Result{}, false, nil
	case seen.refusal != "":
		role, bindings = nil, nil
	}
	done, err := g.write(ctx, have, role, bindings)
	var foreign *foreignError
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		// A namespace that goes away takes pods and grants with it.
		return reconcile.Result{}, false, nil
	case errors.As(err, &foreign):
		seen.refusal, seen.again = foreign.refusal(l), maxRefusedPause
	case err != nil:
		return reconcile.Result{}, false, err
	}
	g.shared.tell(g.Events, l, have.pods)
	if seen.refusal == "" {
		g.refused.Forget(l)
		g.told.Delete(l)
		return reconcile.Result{RequeueAfter: seen.again}, done.granted, nil
	}
	g.tell(ctx, l, have, seen, done)
	if seen.again > 0 {
		seen.again = min(seen.again, g.refused.When(l))
	}
	return reconcile.Result{RequeueAfter: seen.again}, done.granted, nil
}

// verdict is what is thought of a lock that pods contend for.
type verdict struct {
	// refusal says why the lock is not granted, or is empty.
	refusal string
	// object is the lock's, if there is one.
	object *metav1.PartialObjectMetadata
	// again is when to look again; 0 if there will be news.
	again time.Duration
	// unknown tells that nothing can be thought before there are news.
	unknown bool
}

// judge looks at the lock's object. Of one that elector made, the cache has the
// news; another one is paid attention to.
func (g *Granter) judge(ctx context.Context, l lock, have state) (verdict, error) {
	selected, known, err := g.Namespaces.Selected(ctx, l.Namespace)
	if err != nil || !known {
		return verdict{unknown: true}, err
	}
	if reason := forbidden(l, selected, g.ForbidLeaderForLife); reason != "" {
		g.attention.forget(l)
		return verdict{refusal: reason}, nil // the manager may not even look
	}
	found, err := g.Objects.Look(ctx, l)
	if err != nil {
		return verdict{}, err
	}
	seen := verdict{refusal: refusal(l, found), object: found.Object}
	if seen.refusal == "" {
		reason, again, err := g.withheld(ctx, l, have)
		if err != nil {
			return verdict{}, err
		}
		if reason != "" {
			g.attention.forget(l)
			return verdict{refusal: reason, again: again}, nil
		}
	}
	if found.Object != nil && locks.Ours(found.Object) {
		g.attention.forget(l)
		return seen, nil
	}
	seen.again = g.attention.pay(l)
	if found.Object != nil && locks.Adopted(found.Object) && g.Adopted != nil {
		g.Adopted(l)
	}
	return seen, nil
}

// tell says to whom it concerns that the lock is not granted: to its pods, and if
// it was granted until now, on its object.
func (g *Granter) tell(ctx context.Context, l lock, have state, seen verdict, done written) {
	log := klog.FromContext(ctx)
	if before, _ := g.told.Swap(l, seen.refusal); before != seen.refusal {
		log.Info("refused to grant", "reason", seen.refusal)
	}
	if len(done.revoked) > 0 && seen.object != nil {
		g.revoked.WithLabelValues(string(l.Mode)).Inc()
		log.Info("took back what was granted", "reason", seen.refusal, "serviceAccounts", done.revoked)
		// Before the pods: Events beyond some a second are lost, and there may be many.
		g.Events.Eventf(seen.object, nil, corev1.EventTypeWarning, "LockRevoked", "Revoke",
			"%s. Until now pods with the ServiceAccount %s could use it as their lock", seen.refusal, strings.Join(done.revoked, ", "))
	}
	for _, pod := range have.pods {
		g.Events.Eventf(pod.Object(), nil, corev1.EventTypeWarning, "LockNotGranted", "Grant", "%s", seen.refusal)
	}
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

// written is what write changed: granted tells whether a binding was added, and
// revoked names the accounts of those that were removed.
type written struct {
	granted bool
	revoked []string
}

// write goes from have to the given Role and RoleBindings. The Role comes before
// its bindings and goes after them: the API server refuses a binding whose Role is
// not there, unless its writer has the verb bind, which the manager does without. A
// binding whose name is taken keeps no other from being made.
func (g *Granter) write(ctx context.Context, have state, role *rbacv1.Role, bindings []*rbacv1.RoleBinding) (done written, err error) {
	log := klog.FromContext(ctx)
	current := map[string]*rbacv1.RoleBinding{}
	for i := range have.bindings {
		current[have.bindings[i].Name] = &have.bindings[i]
	}
	if role != nil && (have.role == nil || !sameRole(have.role, role)) {
		if err := g.put(ctx, role, have.role != nil); err != nil {
			return done, fmt.Errorf("writing the role: %w", err)
		}
	}
	var taken error
	for _, want := range bindings {
		got, exists := current[want.Name]
		delete(current, want.Name)
		if exists && sameBinding(got, want) {
			continue
		}
		if exists && got.RoleRef != want.RoleRef {
			// The role of a binding cannot be changed.
			if err := g.remove(ctx, got); err != nil {
				return done, fmt.Errorf("deleting the role binding: %w", err)
			}
			exists = false
		}
		err := g.put(ctx, want, exists)
		if foreign := (*foreignError)(nil); errors.As(err, &foreign) {
			taken = foreign
			continue
		}
		if err != nil {
			return done, fmt.Errorf("writing the role binding: %w", err)
		}
		done.granted = done.granted || !exists
		log.Info("granted", "serviceAccount", want.Subjects[0].Name)
	}
	for _, surplus := range current {
		if err := g.remove(ctx, surplus); err != nil {
			return done, fmt.Errorf("deleting the role binding: %w", err)
		}
		for _, subject := range surplus.Subjects {
			done.revoked = append(done.revoked, subject.Name)
		}
		log.Info("removed a grant", "roleBinding", surplus.Name)
	}
	slices.Sort(done.revoked)
	if role == nil && have.role != nil {
		if err := g.remove(ctx, have.role); err != nil {
			return done, fmt.Errorf("deleting the role: %w", err)
		}
	}
	return done, taken
}

// fieldOwner owns what is applied.
const fieldOwner = client.FieldOwner("elector-webhook")

// put creates obj, or makes what obj says true of the object that is there, if
// that is elector's. It does not depend on the cache being right about that: to
// create is only quicker than to apply, and an object without elector's label is
// not in the cache.
func (g *Granter) put(ctx context.Context, obj client.Object, exists bool) error {
	if !exists {
		err := g.Client.Create(ctx, obj.DeepCopyObject().(client.Object), fieldOwner)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	var there metav1.PartialObjectMetadata
	there.SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	if err := g.Live.Get(ctx, client.ObjectKeyFromObject(obj), &there); err != nil {
		return err
	}
	if !locks.Ours(&there) {
		return &foreignError{kind: there.Kind, namespace: obj.GetNamespace(), name: obj.GetName()}
	}
	// Of the very object that was seen to be elector's.
	obj.SetUID(there.UID)
	obj.SetResourceVersion(there.ResourceVersion)
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
