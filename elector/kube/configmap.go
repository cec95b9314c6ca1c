package kube

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/elector-io/elector/elector"
)

// configMapKind makes the ConfigMap that operator-sdk's leader-for-life makes,
// one without data that its leader's Pod owns, so that the garbage collector
// frees the lock. The lock is all in the metadata; reading no more than that
// keeps the core API's types, a megabyte and a half, out of the sidecar.
type configMapKind struct{ pod metav1.OwnerReference }

var coreVersion = schema.GroupVersion{Version: "v1"}

func (configMapKind) groupVersion() schema.GroupVersion { return coreVersion }
func (configMapKind) resource() string                  { return "configmaps" }
func (configMapKind) newObject() object                 { return &metav1.PartialObjectMetadata{} }
func (configMapKind) newList() list                     { return &metav1.PartialObjectMetadataList{} }
func (configMapKind) writable() bool                    { return false }

func (configMapKind) first(l list) object {
	if items := l.(*metav1.PartialObjectMetadataList).Items; len(items) > 0 {
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
		// Taking it over would be taking somebody's configuration.
		return elector.Record{Foreign: "the ConfigMap " + obj.GetNamespace() + "/" + obj.GetName() +
			" is not a lock: no Pod owns it and it has no label " + ManagedByLabel + "=" + ManagedBy}
	}
	return elector.Record{}
}

// apply makes this candidate's Pod the owner; nobody else's is ever written.
func (k configMapKind) apply(obj object, _ elector.Record) {
	obj.SetOwnerReferences([]metav1.OwnerReference{k.pod})
}
