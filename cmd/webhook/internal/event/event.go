// Package event tells about a pod where people look: at the pod, and at the
// workload that made it, which is there longer.
//
// Events are help, not a record: one that cannot be written is lost, and so are
// those about the pods of a namespace beyond some ten a second, or of all beyond
// fifty. What is said of a lock's object, once, when something was done to it, has
// an allowance of its own in each namespace: no pods, however many, silence it. One
// that says the same of the same object is written again when the API server has
// nearly forgotten it, not before, but for those of Anew. Nothing here runs during admission, so a dry-run
// makes none.
//
// Whoever may create pods writes their owner references. A workload is told only
// if it is of a kind that makes pods, in the pod's namespace, and, where another
// one is behind it, there: so a forged reference makes an Event about an object of
// that namespace at worst, where its author may make Events' causes anyway. It
// costs a read at most, of which there are a few a second.
package event

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/webhook/internal/workload"
)

// Recorder records an event about a Pod also for its workload.
type Recorder struct {
	events.EventRecorder
	owners client.Reader

	// said is when what was said of which object, nil if that does not matter; behind
	// the workload behind a ReplicaSet or a Job.
	said, behind *lru.Cache
	// ofPods and reads are what is let through of all namespaces, about pods and
	// their workloads. No lock is held while waiting: there is no waiting.
	ofPods, reads flowcontrol.RateLimiter
	// writes are what is let through of one namespace.
	writes *lru.Cache // by subject
	mu     sync.Mutex // from looking what was said to noting it
}

// subject is what Events of a namespace are about: its pods and their workloads,
// or other objects, such as its locks.
type subject struct {
	namespace string
	pods      bool
}

const (
	// sayAgain is below what API servers keep an Event for by default, an hour.
	sayAgain = 45 * time.Minute
	// remembered bounds said and behind, each: some megabytes.
	remembered = 4096
	// The Events written about each subject, per second and at once.
	writesPerSecond, writesAtOnce = 10, 200
	// subjects bounds how many allowances are remembered. One that was forgotten
	// begins anew, which the bound over all pods makes good.
	subjects = 1024
	// The Events written about pods of all namespaces, and the workloads read, per
	// second and at once. There is no bound over other objects: each Event about
	// one tells of a write that took longer.
	ofPodsPerSecond, ofPodsAtOnce = 50, 1000
	readsPerSecond, readsAtOnce   = 5, 50
	// readTimeout is for finding the workload.
	readTimeout = 5 * time.Second
)

// New returns a recorder that reads the metadata of ReplicaSets and Jobs with
// owners, from the API server.
func New(recorder events.EventRecorder, owners client.Reader) *Recorder {
	return &Recorder{
		EventRecorder: recorder, owners: owners, said: lru.New(remembered), behind: lru.New(remembered),
		ofPods: flowcontrol.NewTokenBucketRateLimiter(ofPodsPerSecond, ofPodsAtOnce), writes: lru.New(subjects),
		reads: flowcontrol.NewTokenBucketRateLimiter(readsPerSecond, readsAtOnce),
	}
}

// Anew returns a recorder that says the same of the same object whenever it is told
// to. It has allowances of its own, beside those of r: what it says silences nobody.
func (r *Recorder) Anew() *Recorder {
	return &Recorder{
		EventRecorder: r.EventRecorder, owners: r.owners, behind: r.behind,
		ofPods: flowcontrol.NewTokenBucketRateLimiter(ofPodsPerSecond, ofPodsAtOnce), writes: lru.New(subjects),
		reads: flowcontrol.NewTokenBucketRateLimiter(readsPerSecond, readsAtOnce),
	}
}

// Eventf implements events.EventRecorder. The workload's Event has the same related
// object.
func (r *Recorder) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	note = fmt.Sprintf(note, args...)
	pod, ofPod := regarding.(*corev1.Pod)
	if !r.mayTell(regarding, ofPod, reason, note) {
		return
	}
	r.EventRecorder.Eventf(regarding, related, eventType, reason, action, "%s", note)
	if !ofPod {
		return
	}
	if owner := r.workload(pod); owner != nil && r.mayTell(owner, ofPod, reason, note) {
		r.EventRecorder.Eventf(owner, related, eventType, reason, action, "%s", note)
	}
}

// who is an object.
type who struct {
	client.ObjectKey
	uid types.UID
}

// what is said of an object.
type what struct {
	who
	reason, note string
}

// mayTell reports whether it is time to tell, and takes it as told.
func (r *Recorder) mayTell(regarding runtime.Object, ofPod bool, reason, note string) bool {
	object, err := meta.Accessor(regarding)
	if err != nil {
		return true // a reference, say, of which nothing is known
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w, now := what{who{client.ObjectKey{Namespace: object.GetNamespace(), Name: object.GetName()}, object.GetUID()}, reason, note}, time.Now()
	if r.said != nil {
		if at, ok := r.said.Get(w); ok && now.Sub(at.(time.Time)) < sayAgain {
			return false
		}
	}
	// The namespace's first: what it has no allowance for takes nothing from others.
	if !r.allowance(subject{w.Namespace, ofPod}).TryAccept() || ofPod && !r.ofPods.TryAccept() {
		return false
	}
	if r.said != nil {
		r.said.Add(w, now)
	}
	return true
}

func (r *Recorder) allowance(s subject) flowcontrol.RateLimiter {
	if known, ok := r.writes.Get(s); ok {
		return known.(flowcontrol.RateLimiter)
	}
	fresh := flowcontrol.NewTokenBucketRateLimiter(writesPerSecond, writesAtOnce)
	r.writes.Add(s, fresh)
	return fresh
}

// workload returns the pod's controller, or that one's own: the Deployment of a
// ReplicaSet, the CronJob of a Job. It is nil for a pod of nobody, or of something
// that makes no pods, or if it cannot be found out now.
func (r *Recorder) workload(pod *corev1.Pod) runtime.Object {
	owner := controllerOf(pod)
	if owner == nil {
		return nil // not owner itself: a nil pointer is an object
	}
	kind, ok := workload.KindOf(owner.APIVersion, owner.Kind)
	switch {
	case !ok:
		return nil
	case kind.Behind.Empty():
		return owner
	}
	// All three: a reference in another namespace may well name the UID.
	key := who{client.ObjectKeyFromObject(owner), owner.UID}
	if known, ok := r.behind.Get(key); ok {
		return known.(runtime.Object)
	}
	if !r.reads.TryAccept() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	between := metav1.PartialObjectMetadata{TypeMeta: owner.TypeMeta}
	switch err := r.owners.Get(ctx, client.ObjectKeyFromObject(owner), &between); {
	case err == nil && between.UID == owner.UID:
	case err == nil, apierrors.IsNotFound(err):
		return nil // it is gone, or never was
	default:
		klog.Background().V(1).Info("cannot find the workload to tell of a pod", "pod", klog.KObj(pod), "err", err)
		return nil
	}
	found := owner
	if behind := controllerOf(&between); behind != nil && behind.GroupVersionKind().GroupKind() == kind.Behind {
		found = behind
	}
	r.behind.Add(key, found)
	return found
}

func controllerOf(obj metav1.Object) *metav1.PartialObjectMetadata {
	ref := workload.Controller(obj)
	if ref == nil {
		return nil
	}
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: ref.APIVersion, Kind: ref.Kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: obj.GetNamespace(), Name: ref.Name, UID: ref.UID},
	}
}
