// Package locks is what the manager's reconcilers share: which lock a Pod
// contends for, who holds a lock, and the news of both.
package locks

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/inject"
)

// Lock names one lock; everything is decided per lock.
type Lock struct {
	Namespace string
	Mode      elector.Mode
	Name      string
}

// Kind is the lock object's kind.
func (l Lock) Kind() schema.GroupVersionKind {
	if l.Mode == elector.ModeLeaderForLife {
		return corev1.SchemeGroupVersion.WithKind("ConfigMap")
	}
	return coordinationv1.SchemeGroupVersion.WithKind("Lease")
}

// String is what the lock is called in Events and logs.
func (l Lock) String() string { return l.Kind().Kind + " " + l.Namespace + "/" + l.Name }

// AdoptAnnotation on a lock object, with the value "true", says that elector may
// use it although it did not make it.
const AdoptAnnotation = inject.Prefix + "adopt"

// MayUse reports whether a lock object is elector's to touch: an annotation on a
// pod must not become a way to someone else's objects.
func MayUse(object metav1.Object) bool {
	return object.GetLabels()[kube.ManagedByLabel] == kube.ManagedBy || object.GetAnnotations()[AdoptAnnotation] == "true"
}

// OfPod returns the lock that an injected pod contends for, or did until it
// ended. It is what the pod says, not a proof.
func OfPod(pod *corev1.Pod) (Lock, bool) {
	status, ok := inject.StatusOf(pod)
	if !ok || pod.Labels[inject.LabelInjected] != "true" {
		return Lock{}, false
	}
	return Lock{Namespace: pod.Namespace, Mode: status.Mode, Name: status.Lock}, true
}

// Ended reports whether the pod's phase is one that it never leaves.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Identity is what the pod's candidate writes into the lock.
func Identity(pod *corev1.Pod) string { return elector.Identity(pod.Name, string(pod.UID)) }

// Object is an empty lock object of the mode, as the cache holds it: of a
// ConfigMap the metadata alone.
func Object(mode elector.Mode) client.Object {
	if mode == elector.ModeLeaderForLife {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}
	}
	return &coordinationv1.Lease{}
}

// Trim is a cache's transform that keeps of a lock object what names its holder.
// There may be thousands of them, and each is written every few seconds.
func Trim(obj any) (any, error) {
	object, ok := obj.(client.Object)
	if !ok {
		return obj, nil
	}
	kept := metav1.ObjectMeta{
		Namespace: object.GetNamespace(), Name: object.GetName(), UID: object.GetUID(), ResourceVersion: object.GetResourceVersion(),
		Labels: object.GetLabels(),
	}
	switch o := obj.(type) {
	case *coordinationv1.Lease:
		return &coordinationv1.Lease{ObjectMeta: kept, Spec: coordinationv1.LeaseSpec{HolderIdentity: o.Spec.HolderIdentity}}, nil
	case *metav1.PartialObjectMetadata:
		kept.OwnerReferences = o.OwnerReferences
		return &metav1.PartialObjectMetadata{TypeMeta: o.TypeMeta, ObjectMeta: kept}, nil
	}
	return obj, nil
}

// indexPod finds Pods by their lock, ended ones included.
const indexPod = "elector.io/lock-of-pod"

// IndexPods makes Pods work on the cache, which must not have been started yet.
func IndexPods(ctx context.Context, cache client.FieldIndexer) error {
	if err := cache.IndexField(ctx, &corev1.Pod{}, indexPod, podIndex); err != nil {
		return fmt.Errorf("index pods: %w", err)
	}
	return nil
}

func podIndex(obj client.Object) []string {
	if l, ok := OfPod(obj.(*corev1.Pod)); ok {
		return []string{string(l.Mode) + "/" + l.Name}
	}
	return nil
}

// Pods returns the cached pods of the lock, ended ones included.
func Pods(ctx context.Context, cache client.Reader, l Lock) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := cache.List(ctx, &pods, client.InNamespace(l.Namespace), client.MatchingFields{indexPod: string(l.Mode) + "/" + l.Name})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	return pods.Items, nil
}
