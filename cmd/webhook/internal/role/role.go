package role

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/history"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Config configures a Labeller.
type Config struct {
	// Pods reads Pods from the API server and patches them, through the subresource
	// status. Required.
	Pods client.Client
	// Candidates are the injected pods. Required.
	Candidates candidates.Source
	// Cache holds the lock objects with elector's label. Required.
	Cache cache.Cache
	// Locks reads and watches locks that the cache does not have. Required.
	Locks client.WithWatch
	// Metrics registers those of this package. Required.
	Metrics prometheus.Registerer
	// Namespaces are those in which pods are labelled. Default: all.
	Namespaces *locks.Namespaces
	// ForbidLeaderForLife leaves the pods of ConfigMaps alone.
	ForbidLeaderForLife bool
	// Became is told of each leader that was labelled and had not been before.
	// Default: nobody is.
	Became func(history.Change)
}

// Labeller keeps the labels right.
type Labeller struct {
	Config
	// changes counts the labels written, by role.
	changes *prometheus.CounterVec
}

const (
	// maxRetry bounds the pause after a pass that failed. It is short: a Service may
	// be without its endpoint. The pod that failed has a pause of its own.
	maxRetry = 5 * time.Second
	// conflictPause is how soon a pod that changed meanwhile is looked at again; the
	// cache has caught up by then.
	conflictPause = 20 * time.Millisecond
	// requestTimeout is for each request. It is below what is left of the manager's
	// lease when its claim ends, so that the next manager comes after it.
	requestTimeout = 2 * time.Second
	// workers bounds the requests in flight.
	workers = 8
)

// New validates the configuration.
func New(c Config) (*Labeller, error) {
	if c.Pods == nil || c.Candidates == nil || c.Cache == nil || c.Locks == nil || c.Metrics == nil {
		return nil, errors.New("role needs a client for pods, candidates, a cache, a client for locks and a registerer of metrics")
	}
	changes := newChanges()
	if err := c.Metrics.Register(changes); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return &Labeller{Config: c, changes: changes}, nil
}

func newChanges() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "elector_webhook_role_changes_total",
		Help: "Labels elector.io/role written, by role.",
	}, []string{"role"})
}

// Run keeps the labels right until ctx ends; then no request is in flight any
// more. It may be called again, but not twice at a time, and no two processes
// must run it.
func (r *Labeller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	w := newWorker(r)
	defer func() {
		cancel()
		if w.unlabelled != nil {
			w.unlabelled.wait()
		}
	}()
	unlabelled := source.TypedFunc[locks.Lock](func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[locks.Lock]) error {
		w.unlabelled = newFollower(ctx, byName{r.Locks}, func(l locks.Lock, before, after locks.Said) {
			if p, ok := locks.PartingOf(before, after); ok {
				w.parted(l, p)
			}
			locks.Add(queue, 0, l)
		})
		return nil
	})
	return locks.Loop{
		Name: "role", Namespaces: r.Namespaces, Reconcile: w.reconcile, Forget: w.forget, Workers: workers, MaxRetry: maxRetry,
		Sources: append([]source.TypedSource[locks.Lock]{unlabelled, locks.Changes(r.Candidates, candidates.Watched(anyPod, view))},
			locks.Partings(r.Cache, r.ForbidLeaderForLife, w.parted)...),
	}.Run(ctx)
}

// nobody is where there is no pod.
var nobody candidates.Pod

// worker is a Labeller during one claim of the manager.
type worker struct {
	*Labeller
	unlabelled *follower

	mu sync.Mutex
	// pasts are of the locks that had a leader in this claim, or lost one.
	pasts map[locks.Lock]past

	failing failing
}

// past is what a worker remembers of a lock.
type past struct {
	// led tells that a pod was labelled leader in this claim, and leader is the one
	// that may still have the label, nil if none: the cache may not know it yet.
	led    bool
	leader *candidates.Pod
	// answered is the pod of which the API server said that it has the label.
	answered types.UID
	// former is the pod that was labelled leader last and is so no more, and parting
	// how the lock's last holder lost it, for those who are told of the next one.
	former  *candidates.Pod
	parting locks.Parting
	// told is the leader that they know of: in this claim or the one of a manager
	// before, which labelled it.
	told types.UID
}

func newWorker(r *Labeller) *worker { return &worker{Labeller: r, pasts: map[locks.Lock]past{}} }

// past returns what is remembered of a lock.
func (w *worker) past(l locks.Lock) past {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pasts[l]
}

// remember changes what is remembered of a lock.
func (w *worker) remember(l locks.Lock, change func(*past)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pasts[l]
	change(&p)
	w.pasts[l] = p
}

// parted notes how a lock's holder lost it. The lock is looked at after that. One
// that no pod of ours is about is none of ours: anybody may make any number of them.
func (w *worker) parted(l locks.Lock, p locks.Parting) {
	if len(w.Candidates.OfLock(l)) == 0 {
		return
	}
	w.remember(l, func(past *past) { past.parting = p })
}

// reconcile makes the labels of one lock's pods right.
func (w *worker) reconcile(ctx context.Context, l locks.Lock) (reconcile.Result, error) {
	if w.ForbidLeaderForLife && l.Mode == elector.ModeLeaderForLife {
		return reconcile.Result{}, nil
	}
	pods := w.Candidates.OfLock(l)
	needed := needed(pods)
	if !needed {
		w.forgetLeaders(l)
	}
	labelled := ptr.Deref(w.past(l).leader, nobody) // of which the cache may know nothing
	w.failing.keep(l, append(pods, labelled)...)
	said, known, err := w.holder(ctx, l, needed)
	if err != nil {
		return reconcile.Result{}, err
	}
	p := decide(said.Holder, pods)
	if !known {
		p = plan{standbys: p.standbys}
	} else {
		w.know(l, said.Holder, pods)
	}
	err = w.write(ctx, l, said.Version, pods, p)
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: conflictPause}, nil
	}
	if ctx.Err() != nil {
		err = nil // the next manager goes on
	}
	if err != nil {
		return reconcile.Result{}, err // the pod that failed has a pause, and the next pass does the rest
	}
	return reconcile.Result{RequeueAfter: w.failing.next(l)}, nil
}

// forgetLeaders forgets who led.
func (w *worker) forgetLeaders(l locks.Lock) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pasts, l)
}

// forget forgets all about a lock whose pods are not to be labelled any more.
func (w *worker) forget(l locks.Lock) {
	w.forgetLeaders(l)
	w.failing.keep(l)
	w.unlabelled.forget(l, false)
}

// know notes that the leader has its label, if so: it is told no more when that is
// put right.
func (w *worker) know(l locks.Lock, holder string, pods []candidates.Pod) {
	for _, pod := range pods {
		if leads(pod, holder) && pod.Role == elector.RoleLeader {
			w.remember(l, func(past *past) { past.told = pod.UID })
		}
	}
}

// holder returns what the lock says of its holder, if it is known already.
func (w *worker) holder(ctx context.Context, l locks.Lock, needed bool) (said locks.Said, known bool, err error) {
	object := locks.Object(l.Mode)
	err = w.Cache.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, object)
	switch {
	case err == nil:
		w.unlabelled.forget(l, needed)
		return locks.SaidBy(object), true, nil
	case !apierrors.IsNotFound(err):
		return locks.Said{}, false, fmt.Errorf("reading the lock: %w", err)
	case !needed:
		w.unlabelled.forget(l, false)
		return locks.Said{}, true, nil
	}
	said, known = w.unlabelled.holder(l)
	return said, known, nil
}

// write carries the plan for the lock's pods out, in its order. It ends with the
// first request that fails, so that a pod whose requests take long to fail does not
// take much of the other locks' time. A pod that failed is left out until its pause
// is over.
func (w *worker) write(ctx context.Context, l locks.Lock, version string, pods []candidates.Pod, p plan) error {
	var rest []candidates.Pod
	former := slices.DeleteFunc(p.former, func(pod candidates.Pod) bool {
		if w.waitedFor(l, pod) {
			return false
		}
		rest = append(rest, pod)
		return true
	})
	done, err := w.demote(ctx, l, former)
	if err != nil {
		return err
	}
	if done && p.leader != nobody && !w.failing.paused(p.leader) {
		if err := w.promote(ctx, l, version, p.leader, pods); err != nil {
			return err
		}
	}
	for _, pod := range append(rest, p.standbys...) {
		if w.failing.paused(pod) {
			continue
		}
		if err := w.label(ctx, pod, Standby); err != nil {
			return err
		}
	}
	if p.cheap != nobody && !w.failing.paused(p.cheap) {
		return w.label(ctx, p.cheap, Leader)
	}
	return nil
}

// waitedFor reports whether a pod that may be labelled leader has to lose the label
// before another gets it: whoever may create pods can make one that cannot be
// written to, but not one that this manager labelled.
func (w *worker) waitedFor(l locks.Lock, pod candidates.Pod) bool {
	return w.past(l).answered == pod.UID || w.failing.inARow(pod) < patience
}

// demote takes the leader's label off pods, and reports whether none of them has
// it any more.
func (w *worker) demote(ctx context.Context, l locks.Lock, pods []candidates.Pod) (done bool, err error) {
	done = true
	for _, pod := range pods {
		if w.failing.paused(pod) {
			done = false
			continue
		}
		if err := w.label(ctx, pod, Standby); err != nil {
			return false, err
		}
		w.remember(l, func(past *past) {
			past.former = &pod
			if past.leader != nil && past.leader.UID == pod.UID {
				past.leader, past.answered = nil, ""
			}
		})
	}
	return done, nil
}

// promote labels the leader once no other pod of the lock that is waited for can
// have the label.
func (w *worker) promote(ctx context.Context, l locks.Lock, version string, leader candidates.Pod, pods []candidates.Pod) error {
	others, err := w.others(ctx, l, leader, pods)
	if err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(pod candidates.Pod) bool { return !w.waitedFor(l, pod) })
	if done, err := w.demote(ctx, l, others); err != nil || !done {
		return err
	}
	// Before it is sent: its answer may get lost.
	w.remember(l, func(past *past) { past.led, past.leader, past.answered = true, new(labelled(leader)), "" })
	if err := w.label(ctx, leader, Leader); err != nil {
		return err
	}
	w.remember(l, func(past *past) { past.answered = leader.UID })
	w.tell(l, version, leader, pods)
	return nil
}

// tell tells that the pod has been labelled leader, unless it had been before, and
// only the label was lost meanwhile.
func (w *worker) tell(l locks.Lock, version string, leader candidates.Pod, pods []candidates.Pod) {
	var again bool
	var change history.Change
	w.remember(l, func(past *past) {
		again = past.told == leader.UID
		change = history.Change{Lock: l, Version: version, Leader: leader, Parting: past.parting, Before: ptr.Deref(past.former, nobody)}
		past.told, past.parting, past.former = leader.UID, locks.Parting{}, nil
	})
	if w.Became == nil || again && change.Parting == (locks.Parting{}) {
		return
	}
	i := slices.IndexFunc(pods, func(pod candidates.Pod) bool { return pod.UID == change.Before.UID })
	if change.Gone = i < 0; !change.Gone {
		change.Before = pods[i] // the newest that is known
	}
	w.Became(change)
}

// labelled is the pod as it is when it has been labelled leader.
func labelled(leader candidates.Pod) candidates.Pod {
	if lacksCost(leader) {
		leader.Cost = candidates.CostOurs
	}
	leader.Role = elector.RoleLeader
	return leader
}

// others returns those of the lock's pods that may be labelled leader though the
// cache does not say so, except the one that is about to be. At the first time in a
// claim the API server is asked for each, because the cache may not have what the
// manager before wrote: not with a list of the namespace's leaders, which may hold
// any number of large pods of any locks. After that is remembered what was written.
// A pod that is not even in the cache yet begins as a standby.
func (w *worker) others(ctx context.Context, l locks.Lock, leader candidates.Pod, pods []candidates.Pod) (others []candidates.Pod, err error) {
	switch past := w.past(l); {
	case past.led && (past.leader == nil || past.leader.UID == leader.UID):
		return nil, nil
	case past.led:
		return []candidates.Pod{*past.leader}, nil
	}
	for _, pod := range pods {
		if pod.UID == leader.UID || pod.Role == elector.RoleLeader { // which it was until a moment ago
			continue
		}
		now, err := w.read(ctx, pod)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading a pod's label: %w", err)
		}
		if err == nil && now.UID == pod.UID && now.Labels[inject.LabelRole] == Leader {
			pod.Role, pod.Cost = elector.RoleLeader, candidates.CostOf(now)
			others = append(others, pod)
		}
	}
	return others, nil
}

// read returns what the API server says of the pod, or of another one of its name.
func (w *worker) read(ctx context.Context, pod candidates.Pod) (*metav1.PartialObjectMetadata, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	now := &metav1.PartialObjectMetadata{}
	now.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	return now, w.Pods.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: pod.Name}, now)
}

// label writes the label, and the deletion cost that goes with it, and returns when
// the API server has it. A pod that is gone needs none. Once sent, the answer is
// waited for also if ctx ends, because the next manager relies on nothing being
// under way.
func (w *worker) label(ctx context.Context, pod candidates.Pod, role string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	sent, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	err := w.patch(sent, pod, role)
	log := klog.FromContext(ctx)
	if err != nil && w.isGone(sent, pod, err) {
		w.failing.forget(pod)
		return nil
	}
	if err != nil {
		overtaken := role == Leader && apierrors.IsConflict(err) // it changed, and is judged again
		if !overtaken && w.failing.note(pod) == patience && !w.waitedFor(pod.Lock, pod) {
			log.Info("cannot label a pod, and the leader does not wait for it any more", "pod", klog.KRef(pod.Namespace, pod.Name), "role", role, "err", err)
		}
		return fmt.Errorf("labelling %s %s: %w", klog.KRef(pod.Namespace, pod.Name), role, err)
	}
	w.failing.forget(pod)
	if string(pod.Role) == role {
		return nil // it was about the cost alone
	}
	w.changes.WithLabelValues(role).Inc()
	if role == Standby {
		log = log.V(1) // a change of leaders shows in one line, not in one per pod
	}
	log.Info("labelled", "pod", klog.KRef(pod.Namespace, pod.Name), "role", role)
	return nil
}

// patch sends one patch to the pod, or a second one if the cost is what the first
// is refused for: somebody has given the pod a cost of its own meanwhile, or admits
// none. The label is what others rely on.
func (w *worker) patch(ctx context.Context, pod candidates.Pod, role string) error {
	patch, err := patchFor(pod, role)
	if err != nil {
		return err
	}
	// The subresource takes labels and annotations, too, and lets nobody touch the
	// spec: who has the manager's ServiceAccount must not be able to give a pod
	// another image.
	err = w.Pods.Status().Patch(ctx, pod.Object(), patch)
	if !changesCost(pod, role) || !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		return err
	}
	klog.FromContext(ctx).V(1).Info("cannot write a pod's deletion cost", "pod", klog.KRef(pod.Namespace, pod.Name), "err", err)
	pod.Cost = candidates.CostTheirs // which stays as it is
	if patch, err = patchFor(pod, role); err != nil {
		return err
	}
	return w.Pods.Status().Patch(ctx, pod.Object(), patch)
}

// changesCost reports whether the pod's deletion cost changes with the label.
func changesCost(pod candidates.Pod, role string) bool {
	if role == Leader {
		return lacksCost(pod)
	}
	return pod.Cost == candidates.CostOurs
}

// isGone reports whether writing to the pod failed because it is there no more.
// A conflict may mean that another pod has its name.
func (w *worker) isGone(ctx context.Context, pod candidates.Pod, err error) bool {
	if apierrors.IsConflict(err) || apierrors.IsInvalid(err) {
		var now *metav1.PartialObjectMetadata
		if now, err = w.read(ctx, pod); err == nil {
			return now.UID != pod.UID
		}
	}
	return apierrors.IsNotFound(err)
}

// The paths of what is written, in a JSON patch.
const (
	uidPath  = "/metadata/uid"
	rolePath = "/metadata/labels/elector.io~1role"
	costPath = "/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost"
)

// patchFor sets the label on this very pod. A leader is made only of the version
// that was judged; that a pod is none may be written at any time, and takes the
// leader's cost away, if it is that still.
func patchFor(pod candidates.Pod, role string) (client.Patch, error) {
	meta := map[string]any{"uid": pod.UID, "labels": map[string]string{inject.LabelRole: role}}
	var content any = map[string]any{"metadata": meta}
	kind := types.MergePatchType
	switch cost := changesCost(pod, role); {
	case role == Leader:
		meta["resourceVersion"] = pod.Version
		if cost {
			meta["annotations"] = map[string]string{corev1.PodDeletionCost: candidates.LeaderCost}
		}
	case cost:
		kind = types.JSONPatchType
		content = []map[string]any{
			{"op": "test", "path": uidPath, "value": pod.UID},
			{"op": "add", "path": rolePath, "value": role},
			{"op": "test", "path": costPath, "value": candidates.LeaderCost},
			{"op": "remove", "path": costPath},
		}
	}
	patch, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("making a patch: %w", err)
	}
	return client.RawPatch(kind, patch), nil
}
