// Package workload knows the kinds of objects that make Pods. Whoever may create a
// pod writes its owner references: what is not of a known kind, or has a name that
// no object can have, is not believed to be one.
package workload

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Kind is a kind that makes Pods in its namespace.
type Kind struct {
	// APIVersion is its version here.
	APIVersion string
	// Behind is the kind of which one may be behind it, and is there longer; empty if
	// there is none.
	Behind schema.GroupKind
	// ByCost tells that it deletes first the Pods that are cheap to delete.
	ByCost bool
}

var kinds = map[schema.GroupKind]Kind{
	{Kind: "ReplicationController"}:      {APIVersion: "v1", ByCost: true}, // a ReplicaSet inside
	{Group: "apps", Kind: "ReplicaSet"}:  {APIVersion: "apps/v1", Behind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, ByCost: true},
	{Group: "apps", Kind: "StatefulSet"}: {APIVersion: "apps/v1"},
	{Group: "apps", Kind: "DaemonSet"}:   {APIVersion: "apps/v1"},
	{Group: "batch", Kind: "Job"}:        {APIVersion: "batch/v1", Behind: schema.GroupKind{Group: "batch", Kind: "CronJob"}},
}

// KindOf returns what is known of a kind, in whatever version. Any other makes no
// pods, as far as is known: it may be a Node, or nothing at all.
func KindOf(apiVersion, kind string) (Kind, bool) {
	group, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return Kind{}, false
	}
	known, ok := kinds[schema.GroupKind{Group: group.Group, Kind: kind}]
	return known, ok
}

const (
	// MaxName bounds an object's name, in bytes. The API server takes any for an
	// owner's.
	MaxName = validation.DNS1123SubdomainMaxLength
	// maxUID is the length of a UUID.
	maxUID = 36
)

// Controller returns what an object says to be its controller, nil if that is
// nothing, or can be nothing.
func Controller(of metav1.Object) *metav1.OwnerReference {
	ref := metav1.GetControllerOf(of)
	if ref == nil || len(ref.Name) > MaxName || len(ref.UID) > maxUID {
		return nil
	}
	return ref
}
