// Package event tells about a pod where people look: at the pod, and at the
// workload that made it, which is there longer.
//
// Events are help, not a record: one that cannot be written is lost, and equal
// ones are counted, not repeated. Nothing here runs during admission, so a
// dry-run makes none.
package event

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Recorder records an event about a Pod also for its workload.
type Recorder struct {
	events.EventRecorder
	// Owners reads the metadata of ReplicaSets and Jobs from the API server.
	Owners client.Reader
}

// readTimeout is for finding the workload.
const readTimeout = 5 * time.Second

// Eventf implements events.EventRecorder.
func (r Recorder) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	r.EventRecorder.Eventf(regarding, related, eventType, reason, action, note, args...)
	pod, ok := regarding.(*corev1.Pod)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	owner, err := workload(ctx, r.Owners, pod)
	if err != nil {
		klog.Background().V(1).Info("Cannot find the workload to tell of a pod", "pod", klog.KObj(pod), "err", err)
	}
	if owner != nil {
		r.EventRecorder.Eventf(owner, nil, eventType, reason, action, note, args...)
	}
}

// passing are the kinds that a workload makes its pods by.
var passing = map[schema.GroupKind]bool{
	{Group: "apps", Kind: "ReplicaSet"}: true,
	{Group: "batch", Kind: "Job"}:       true,
}

// workload returns the pod's controller, or that one's own: the Deployment of a
// ReplicaSet, the CronJob of a Job. It is nil for a pod of nobody, and the nearest
// one known when there is an error.
func workload(ctx context.Context, reader client.Reader, pod *corev1.Pod) (runtime.Object, error) {
	owner := controllerOf(pod)
	if owner == nil {
		return nil, nil // not owner itself: a nil pointer is an object
	}
	if !passing[owner.GroupVersionKind().GroupKind()] {
		return owner, nil
	}
	between := metav1.PartialObjectMetadata{TypeMeta: owner.TypeMeta}
	err := reader.Get(ctx, client.ObjectKeyFromObject(owner), &between)
	if err != nil || between.UID != owner.UID {
		return owner, err
	}
	if above := controllerOf(&between); above != nil {
		return above, nil
	}
	return owner, nil
}

func controllerOf(obj metav1.Object) *metav1.PartialObjectMetadata {
	ref := metav1.GetControllerOf(obj)
	if ref == nil {
		return nil
	}
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: ref.APIVersion, Kind: ref.Kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: obj.GetNamespace(), Name: ref.Name, UID: ref.UID},
	}
}
