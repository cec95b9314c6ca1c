// Package locks is what the manager's reconcilers share: what a lock is, who holds
// it, and the news of that.
package locks

import (
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

// At is the lock's object at a version, for an Event about a pod to relate to:
// recorders take Events with the same objects for one, and go on telling the first.
func (l Lock) At(version string) *metav1.PartialObjectMetadata {
	kind := l.Kind()
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: l.Name, ResourceVersion: version},
	}
}

// MayUse reports whether a lock object is elector's to touch: an annotation on a
// pod must not become a way to someone else's objects.
func MayUse(object metav1.Object) bool { return Ours(object) || Adopted(object) }

// Ours reports whether elector made an object, by its label.
func Ours(object metav1.Object) bool {
	return object.GetLabels()[kube.ManagedByLabel] == kube.ManagedBy
}

// Adopted reports whether an object's owner gave it to elector.
func Adopted(object metav1.Object) bool {
	return object.GetAnnotations()[inject.AnnotationAdopt] == "true"
}

// Object is an empty lock object of the mode, as the cache holds it: of a
// ConfigMap the metadata alone.
func Object(mode elector.Mode) client.Object {
	if mode == elector.ModeLeaderForLife {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}
	}
	return &coordinationv1.Lease{}
}

// Trim is a cache's transform that keeps of a lock object what names its holder, and
// Facts and what it Said, less than 2 KiB whatever the object says. There may be
// thousands of them, and each is written every few seconds.
func Trim(obj any) (any, error) {
	object, ok := obj.(client.Object)
	if !ok {
		return obj, nil
	}
	kept := metav1.ObjectMeta{
		Namespace: object.GetNamespace(), Name: object.GetName(), UID: object.GetUID(), ResourceVersion: object.GetResourceVersion(),
	}
	if object.GetLabels()[kube.ManagedByLabel] == kube.ManagedBy {
		kept.Labels = map[string]string{kube.ManagedByLabel: kube.ManagedBy}
	}
	kept.Annotations = keep(object)
	switch o := obj.(type) {
	case *coordinationv1.Lease:
		return &coordinationv1.Lease{ObjectMeta: kept, Spec: coordinationv1.LeaseSpec{HolderIdentity: new(kube.HolderOf(o))}}, nil
	case *metav1.PartialObjectMetadata:
		kept.OwnerReferences = holders(o.OwnerReferences)
		return &metav1.PartialObjectMetadata{TypeMeta: o.TypeMeta, ObjectMeta: kept}, nil
	}
	return obj, nil
}

// holders returns the owner that holds a ConfigMap, if any: the first Pod. No Pod
// has a longer name or UID.
func holders(owners []metav1.OwnerReference) []metav1.OwnerReference {
	for _, o := range owners {
		if o.Kind == "Pod" && o.APIVersion == "v1" && len(o.Name) <= 253 && len(o.UID) <= 36 {
			return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: o.Name, UID: o.UID}}
		}
	}
	return nil
}
