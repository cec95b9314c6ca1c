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

// NoteOf returns what the elector noted that last wrote the present term of the lock
// which obj is, a Lease or a ConfigMap, empty if there is none. Of a ConfigMap the
// metadata suffice.
func NoteOf(obj metav1.Object) elector.Note {
	switch o := obj.(type) {
	case *coordinationv1.Lease:
		return readNote(o, ptr.Deref(o.Spec.LeaseTransitions, 0))
	case object:
		return readNote(o, 0)
	}
	return elector.Note{}
}

// TokenOf returns the fencing token of the claim on the lock which obj is, a Lease or
// a ConfigMap, as its holder noted it: 0 if nobody holds the lock, or if the holder
// noted none, as it has not until it first renews. Of a ConfigMap the metadata
// suffice.
func TokenOf(obj metav1.Object) uint64 {
	note, holder := NoteOf(obj), HolderOf(obj)
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
