package kube

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/elector-io/elector/elector"
)

// configMapKind makes the ConfigMap that operator-sdk's leader-for-life makes,
// one without data that its leader's Pod owns, so that the garbage collector
// frees the lock. The lock is all in the metadata; reading no more than that
// keeps the core API's types, a megabyte and a half, out of the sidecar.
func configMapKind(pod metav1.OwnerReference) kind {
	return kind{
		groupVersion: coreVersion,
		resource:     "configmaps",
		newObject:    func() object { return &metav1.PartialObjectMetadata{} },
		newList:      func() list { return &metav1.PartialObjectMetadataList{} },
		first: func(l list) object {
			if items := l.(*metav1.PartialObjectMetadataList).Items; len(items) > 0 {
				return &items[0]
			}
			return nil
		},
		record: configMapRecord,
		// Nobody else's Pod is ever written.
		apply:   func(obj object, _ elector.Record) { obj.SetOwnerReferences([]metav1.OwnerReference{pod}) },
		patched: true,
	}
}

var coreVersion = schema.GroupVersion{Version: "v1"}

// configMapRecord takes the first Pod among the owners for the holder; its UID
// counts, not only its name.
func configMapRecord(obj metav1.Object) elector.Record {
	if obj.GetDeletionTimestamp() != nil {
		return elector.Record{Foreign: fmt.Sprintf("the ConfigMap %s/%s is being deleted, and is waited for by the finalizers %q",
			obj.GetNamespace(), obj.GetName(), obj.GetFinalizers())}
	}
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
