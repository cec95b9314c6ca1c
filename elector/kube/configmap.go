package kube

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/elector-io/elector/elector"
)

// configMapKind makes the ConfigMap that operator-sdk's leader-for-life makes,
// one without data that its leader's Pod owns, so that the garbage collector
// frees the lock.
type configMapKind struct{ pod metav1.OwnerReference }

func (configMapKind) groupVersion() schema.GroupVersion { return corev1.SchemeGroupVersion }
func (configMapKind) resource() string                  { return "configmaps" }
func (configMapKind) newObject() object                 { return &corev1.ConfigMap{} }
func (configMapKind) newList() list                     { return &corev1.ConfigMapList{} }
func (configMapKind) freeByDelete() bool                { return true }

func (configMapKind) first(l list) object {
	if items := l.(*corev1.ConfigMapList).Items; len(items) > 0 {
		return &items[0]
	}
	return nil
}

// record takes the first Pod among the owners for the holder; its UID counts, not
// only its name.
func (configMapKind) record(obj object) elector.Record {
	for _, owner := range obj.GetOwnerReferences() {
		if owner.Kind == "Pod" && owner.APIVersion == "v1" {
			return elector.Record{Holder: elector.Identity(owner.Name, string(owner.UID))}
		}
	}
	if obj.GetLabels()[ManagedByLabel] != ManagedBy {
		// To own somebody's configuration would be to have it deleted with the Pod.
		return elector.Record{Foreign: "the ConfigMap " + obj.GetNamespace() + "/" + obj.GetName() +
			" is not a lock: no Pod owns it and it has no label " + ManagedByLabel + "=" + ManagedBy}
	}
	return elector.Record{}
}

// apply makes this candidate's Pod the owner; nobody else's is ever written.
func (k configMapKind) apply(obj object, _ elector.Record) {
	obj.SetOwnerReferences(append(obj.GetOwnerReferences(), k.pod))
}
