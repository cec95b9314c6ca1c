package kube

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"
)

// HolderOf returns the identity that holds the lock which obj is, empty if nobody
// does. Of a ConfigMap the metadata suffice.
func HolderOf(obj object) string {
	if lease, ok := obj.(*coordinationv1.Lease); ok {
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	return configMapRecord(obj).Holder
}

// Release makes lease say what its holder writes when it releases it, for those
// who know that the holder is dead: others take the lock at once, not only when
// the last claim must have ended.
func Release(lease *coordinationv1.Lease) {
	r := leaseRecord(lease)
	r.Holder, r.Token = "", 0
	applyToLease(lease, r)
}
