package fit

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
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Config configures a Guide. All fields but the last two are required.
type Config struct {
	// Live reads lock objects and Pods at the API server, and patches lock objects.
	Live client.Client
	// Candidates are the injected pods.
	Candidates candidates.Source
	// Cache holds the lock objects with elector's label.
	Cache cache.Cache
	// Asked tells leaders that they were asked, as often as they are. Events tells why
	// they were not, of which it is enough to be told now and then.
	Asked, Events events.EventRecorder
	// Metrics registers those of this package.
	Metrics prometheus.Registerer
	// Namespaces are those in which leaders are asked. Default: all.
	Namespaces *locks.Namespaces
	// ForbidLeaderForLife leaves ConfigMaps alone.
	ForbidLeaderForLife bool
}

// Guide leads leadership to candidates whose application works.
type Guide struct {
	Config
	// asked counts the handovers asked for, by what was wrong with the leader.
	asked *prometheus.CounterVec
	// reading holds who reads a Pod, which may be large: one at a time.
	reading chan struct{}
	// adopted bounds the reads of locks that the cache does not have.
	adopted flowcontrol.RateLimiter

	mu sync.Mutex
	// misled are the locks whose leader is not fit while another candidate is.
	misled map[locks.Lock]bool
}

const (
	// maxRetry bounds the pause after a failed request.
	maxRetry = 30 * time.Second
	// conflictPause is how soon a lock is looked at again that was not as the cache had
	// it.
	conflictPause = 100 * time.Millisecond
	// doubtPause is the same for pods.
	doubtPause = time.Second
	// requestTimeout is for all requests of one look, below what is left of the
	// manager's lease when its claim ends.
	requestTimeout = 2 * time.Second
	// workers bounds the requests in flight.
	workers = 4
	// adoptedPause is how often a lock is read that the cache does not have, because
	// nobody tells of it, and that five times a second at most of all such locks.
	adoptedPause                      = 30 * time.Second
	adoptedPerSecond, adoptedAtOnce   = 5, 20
	reasonAsked, reasonNobody, action = "HandoverAsked", "NoFitCandidate", "Guide"
	// reasonRefused tells of an annotation that came when nobody could refuse it.
	reasonRefused = "FailoverIgnored"
)

// New validates the configuration.
func New(c Config) (*Guide, error) {
	if c.Live == nil || c.Candidates == nil || c.Cache == nil || c.Asked == nil || c.Events == nil || c.Metrics == nil {
		return nil, errors.New("fit needs a client, candidates, a cache, two event recorders and a registerer of metrics")
	}
	g := &Guide{
		Config: c, misled: map[locks.Lock]bool{}, reading: make(chan struct{}, 1),
		adopted: flowcontrol.NewTokenBucketRateLimiter(adoptedPerSecond, adoptedAtOnce),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elector_webhook_handovers_total",
			Help: "Handovers asked for because the leader's application did not work, by what was wrong: broken or unready.",
		}, []string{"reason"}),
	}
	for _, state := range []fitness.State{fitness.Broken, fitness.Unready} {
		g.asked.WithLabelValues(string(state))
	}
	unfit := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "elector_webhook_unfit_leaders",
		Help: "Locks whose leader's application does not work while that of another candidate does, as the replica that leads sees them.",
	}, func() float64 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return float64(len(g.misled))
	})
	if err := errors.Join(c.Metrics.Register(g.asked), c.Metrics.Register(unfit)); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return g, nil
}

// Run works until ctx ends; then no request is in flight any more. It may be called
// again, but not twice at a time, and begins without any memory. Two processes that
// both run it do no harm: every write is against the version that was judged.
func (g *Guide) Run(ctx context.Context) error {
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		clear(g.misled)
	}()
	w := &worker{Guide: g, memories: map[locks.Lock]*memory{}}
	return locks.Loop{
		Name: "fit", Namespaces: g.Namespaces, Reconcile: w.reconcile, Forget: w.forget, Workers: workers, MaxRetry: maxRetry,
		Sources: append(locks.Sources(g.Cache, g.ForbidLeaderForLife, byFacts), locks.Changes(g.Candidates, candidates.Watched(anyPod, view))),
	}.Run(ctx)
}

// byFacts has all of a lock's Facts matter.
func byFacts(mode elector.Mode) locks.Watched {
	w := locks.OfObjects(mode)
	w.View = func(obj client.Object) any { return locks.FactsOf(obj) }
	return w
}

// anyPod of a lock matters.
func anyPod(candidates.Pod) bool { return true }

// view is what matters in a pod, besides its lock.
func view(pod candidates.Pod) any {
	type seen struct {
		fitness.Fitness
		contends bool
		failover any
		refused  bool
	}
	return seen{pod.Fitness, pod.Contends(), pod.Failover, pod.Refused}
}

// worker is a Guide during one claim of the manager.
type worker struct {
	*Guide
	mu       sync.Mutex
	memories map[locks.Lock]*memory
}

// memory returns what was seen of the lock. No lock is looked at twice at a time.
func (w *worker) memory(l locks.Lock) *memory {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.memories[l]
	if m == nil {
		m = &memory{}
		w.memories[l] = m
	}
	return m
}

// forget forgets a lock that no pod is about any more, or where nobody is asked.
func (w *worker) forget(l locks.Lock) {
	w.mu.Lock()
	delete(w.memories, l)
	w.mu.Unlock()
	w.note(l, false)
}

// note takes down whether the lock's leader is not fit while another candidate is.
func (g *Guide) note(l locks.Lock, misled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if misled {
		g.misled[l] = true
	} else {
		delete(g.misled, l)
	}
}

// reconcile looks at one lock.
func (w *worker) reconcile(ctx context.Context, l locks.Lock) (reconcile.Result, error) {
	if w.ForbidLeaderForLife && l.Mode == elector.ModeLeaderForLife {
		return reconcile.Result{}, nil
	}
	pods := w.Candidates.OfLock(l)
	if len(pods) == 0 {
		w.forget(l)
		return reconcile.Result{}, nil
	}
	ended := func(p candidates.Pod) bool { return !p.Contends() }
	pods = slices.DeleteFunc(pods, ended)
	seen, err := w.see(ctx, l, len(pods))
	if err != nil {
		return reconcile.Result{}, err
	}
	m := w.memory(l)
	d := decide(m, l, seen.Facts, pods, time.Now())
	w.note(l, d.misled)
	if d.ask.Token != 0 || d.write {
		late, err := w.write(ctx, l, seen.Facts, d)
		if err != nil || late != 0 {
			return reconcile.Result{RequeueAfter: late}, err
		}
	}
	w.tell(ctx, l, seen.version, d)
	w.tellRefused(ctx, m, pods)
	m.done(d, time.Now())
	return reconcile.Result{RequeueAfter: sooner(d.again, seen.pause)}, nil
}

// sight is what was seen of a lock. It is zero of one that is not there.
type sight struct {
	locks.Facts
	// version is the object's.
	version string
	// pause is for how long nobody will tell if it says something else; 0 if somebody
	// will.
	pause time.Duration
}

// see returns what the lock says. Of a lock that has one pod nothing is to be
// decided.
func (w *worker) see(ctx context.Context, l locks.Lock, pods int) (sight, error) {
	object := locks.Object(l.Mode)
	err := w.Cache.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, object)
	switch {
	case err == nil:
		return sight{Facts: locks.FactsOf(object), version: object.GetResourceVersion()}, nil
	case !apierrors.IsNotFound(err):
		return sight{}, fmt.Errorf("reading the lock: %w", err)
	case pods < 2:
		return sight{}, nil
	case !w.adopted.TryAccept():
		return sight{pause: adoptedPause}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	object, err = w.read(ctx, l)
	if apierrors.IsNotFound(err) || err == nil && !locks.MayUse(object) {
		return sight{pause: adoptedPause}, nil
	}
	if err != nil {
		return sight{}, err
	}
	facts, err := factsOf(object)
	return sight{facts, object.GetResourceVersion(), adoptedPause}, err
}

// read returns the lock object as the API server has it.
func (w *worker) read(ctx context.Context, l locks.Lock) (client.Object, error) {
	object := locks.Object(l.Mode)
	if err := w.Live.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, object); err != nil {
		return nil, fmt.Errorf("reading the lock: %w", err)
	}
	return object, nil
}

func factsOf(object client.Object) (locks.Facts, error) {
	trimmed, err := locks.Trim(object.DeepCopyObject())
	if err != nil {
		return locks.Facts{}, err
	}
	return locks.FactsOf(trimmed.(client.Object)), nil
}

// write writes what was decided if lock and pods are as they were taken to be. If
// they are not it returns how soon to look again. What is sent is waited for, also
// when the claim ends meanwhile.
func (w *worker) write(ctx context.Context, l locks.Lock, facts locks.Facts, d decision) (late time.Duration, err error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	object, err := w.read(ctx, l)
	if apierrors.IsNotFound(err) {
		return conflictPause, nil
	}
	if err != nil {
		return 0, err
	}
	now, err := factsOf(object)
	switch {
	case err != nil:
		return 0, err
	case !locks.MayUse(object):
		return adoptedPause, nil // its label was taken off, and it was not adopted
	case now != facts:
		return conflictPause, nil
	}
	if pause := w.memory(l).overdue(object, time.Now()); pause > 0 && d.ask.Token == 0 {
		return pause, nil
	}
	if d.ask.Token != 0 {
		if sure, err := w.sure(ctx, l, d); err != nil || !sure {
			return doubtPause, err
		}
	}
	patch, err := patchFor(object, d)
	if err != nil {
		return 0, err
	}
	object = locks.Object(l.Mode) // of which the name alone is read
	object.SetNamespace(l.Namespace)
	object.SetName(l.Name)
	switch err := w.Live.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch)); {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return conflictPause, nil
	case err != nil:
		return 0, fmt.Errorf("writing to the lock: %w", err)
	}
	return 0, nil
}

// sure reports whether the API server has the leader, and who is to follow, as they
// were judged.
func (w *worker) sure(ctx context.Context, l locks.Lock, d decision) (bool, error) {
	is, err := w.pod(ctx, l, d.leader.Name)
	if err != nil || is.UID != d.leader.UID || is.Failover != d.leader.Failover || !asIll(is.Fitness, d.leader.Fitness) {
		return false, err
	}
	if d.ask.To == "" {
		return true, nil
	}
	to, err := w.pod(ctx, l, d.ask.To)
	return to.Lock == l && isFit(to), err
}

// asIll reports whether a pod is as it was judged. A container of its app that runs
// again may have found that it leads, and never look again.
func asIll(is, was fitness.Fitness) bool {
	return is.State == was.State && is.Turn == was.Turn && (was.Works || !is.Works)
}

// pod reads a pod; one that is gone is none.
func (w *worker) pod(ctx context.Context, l locks.Lock, name string) (is candidates.Pod, err error) {
	err = w.live(ctx, l.Namespace, name, func(pod *corev1.Pod) { is = candidates.Of(pod) })
	return is, err
}

// live reads a pod as the API server has it, if it is there, and lets look at it.
func (w *worker) live(ctx context.Context, namespace, name string, look func(*corev1.Pod)) error {
	select {
	case w.reading <- struct{}{}:
		defer func() { <-w.reading }()
	case <-ctx.Done():
		return fmt.Errorf("reading a pod: %w", ctx.Err())
	}
	var pod corev1.Pod
	if err := w.Live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &pod); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("reading a pod: %w", err)
	}
	look(&pod)
	return nil
}

// patchFor changes the two annotations of this version of the object, and nothing
// else.
func patchFor(object metav1.Object, d decision) ([]byte, error) {
	annotations := map[string]any{}
	if d.write {
		annotations[elector.NextAnnotation] = d.next
		if d.next == "" {
			annotations[elector.NextAnnotation] = nil
		}
	}
	if d.ask.Token != 0 {
		annotations[elector.HandoverAnnotation] = d.ask.String()
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": object.GetUID(), "resourceVersion": object.GetResourceVersion(), "annotations": annotations,
	}})
	if err != nil {
		return nil, fmt.Errorf("making a patch: %w", err)
	}
	return patch, nil
}

// tellRefused tells pods, once, and their workload that what somebody wrote about
// failover on pods that run is not what they get. If they cannot be read it is told
// another time.
func (w *worker) tellRefused(ctx context.Context, m *memory, pods []candidates.Pod) {
	for _, p := range pods {
		h := m.pods[p.UID]
		if !p.Refused {
			h.toldRefused = false
		}
		if !p.Refused || h.toldRefused {
			continue
		}
		refusal, err := w.refusal(ctx, p)
		if err != nil {
			klog.FromContext(ctx).V(1).Info("cannot read what a pod asks for", "pod", klog.KRef(p.Namespace, p.Name), "err", err)
			continue
		}
		if h.toldRefused = true; refusal != "" {
			w.Events.Eventf(p.Object(), p.Object(), corev1.EventTypeWarning, reasonRefused, action, "%s; on a pod that runs the default counts instead", refusal)
		}
	}
}

// refusal is what a new pod would be refused with; empty if there is no such pod, or
// nothing to refuse.
func (w *worker) refusal(ctx context.Context, p candidates.Pod) (sentence string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = w.live(ctx, p.Namespace, p.Name, func(pod *corev1.Pod) {
		if _, refused := inject.FailoverOf(pod.Annotations); refused != nil && pod.UID == p.UID {
			sentence = refused.Error()
		}
	})
	return sentence, err
}

// tell says what was done about the leader, and what not.
func (w *worker) tell(ctx context.Context, l locks.Lock, version string, d decision) {
	log, pod, why, at := klog.FromContext(ctx), klog.KRef(d.leader.Namespace, d.leader.Name), d.leader.Fitness.Reason, l.At(version)
	if d.ask.Token != 0 {
		to := d.ask.To
		if to == "" {
			to = "another candidate"
		}
		w.asked.WithLabelValues(string(d.leader.Fitness.State)).Inc()
		log.Info("asked the leader to hand over", "pod", pod, "to", d.ask.To, "token", d.ask.Token, "reason", why)
		w.Asked.Eventf(d.leader.Object(), at, corev1.EventTypeNormal, reasonAsked, action, "Asked pod %s to hand %s over to %s: %s", d.leader.Name, l, to, why)
	}
	if d.allSick {
		log.Info("left a leader alone whose app does not work", "pod", pod, "reason", "no other candidate is fit", "why", why)
		w.Events.Eventf(d.leader.Object(), at, corev1.EventTypeWarning, reasonNobody, action, "Pod %s goes on leading %s, because no other candidate is fit: %s", d.leader.Name, l, why)
	}
	if d.write {
		log.V(1).Info("noted who goes first when the lock becomes free", "next", d.next)
	}
}
