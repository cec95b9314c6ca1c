package kube

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/elector"
)

// HolderOf returns the identity that holds the lock which obj is, a Lease or a
// ConfigMap, empty if nobody does. Of a ConfigMap the metadata suffice.
func HolderOf(obj metav1.Object) string {
	if lease, ok := obj.(*coordinationv1.Lease); ok {
		return bounded(ptr.Deref(lease.Spec.HolderIdentity, ""))
	}
	return configMapRecord(obj).Holder
}

// TokenOf returns the fencing token of the claim on the lock which obj is, a Lease or
// a ConfigMap, as its holder noted it: 0 if nobody holds the lock, or if the holder
// noted none, as it has not until it first renews. Of a ConfigMap the metadata
// suffice.
func TokenOf(obj metav1.Object) uint64 {
	o, ok := obj.(object)
	if !ok {
		return 0
	}
	term := int32(0)
	if lease, ok := obj.(*coordinationv1.Lease); ok {
		term = ptr.Deref(lease.Spec.LeaseTransitions, 0)
	}
	note, holder := readNote(o, term), HolderOf(obj)
	if holder == "" || note.Holder != holder || note.Released {
		return 0
	}
	return note.Token
}

// Release makes lease say what its holder writes when it releases it, for those
// who know that the holder is dead: others take the lock at once, not only when
// the last claim must have ended.
func Release(lease *coordinationv1.Lease) error {
	want := leaseRecord(lease)
	version, err := parseVersion(lease.ResourceVersion)
	if err != nil {
		return err
	}
	before := readNote(lease, want.Transitions)
	want.Note = elector.Note{Holder: want.Holder, After: version, Token: before.Token, Released: true}
	want.Holder = ""
	applyToLease(lease, want)
	return annotate(lease, want)
}
