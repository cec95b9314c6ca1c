package kube

import (
	"fmt"
	"strconv"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube/internal/record"
)

// HolderOf returns the identity that holds the lock which obj is, a Lease or a
// ConfigMap, empty if nobody does. Of a ConfigMap the metadata suffice.
func HolderOf(obj metav1.Object) string { return recordOf(obj, nil).Holder }

// NoteOf returns what the elector noted that last wrote the present term of the lock
// which obj is, a Lease or a ConfigMap, empty if there is none. Of a ConfigMap the
// metadata suffice.
func NoteOf(obj metav1.Object) elector.Note {
	lease, _ := obj.(*coordinationv1.Lease)
	if lease == nil {
		return record.ReadNote(obj.GetAnnotations(), 0)
	}
	return record.ReadNote(lease.Annotations, ptr.Deref(lease.Spec.LeaseTransitions, 0))
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

// recordOf reads a Lease or a ConfigMap with the given annotations, all but its version.
func recordOf(obj metav1.Object, annotations map[string]string) elector.Record {
	metadata := record.Metadata{
		Name: obj.GetName(), Namespace: obj.GetNamespace(), Labels: obj.GetLabels(), Annotations: annotations, Finalizers: obj.GetFinalizers(),
	}
	if lease, ok := obj.(*coordinationv1.Lease); ok {
		return record.OfLease(metadata, specOf(lease))
	}
	if at := obj.GetDeletionTimestamp(); at != nil {
		metadata.DeletionTimestamp = at.String()
	}
	for _, o := range obj.GetOwnerReferences() {
		metadata.OwnerReferences = append(metadata.OwnerReferences, record.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: string(o.UID)})
	}
	return record.OfConfigMap(metadata)
}

func specOf(lease *coordinationv1.Lease) record.LeaseSpec {
	s := lease.Spec
	return record.LeaseSpec{
		HolderIdentity: s.HolderIdentity, LeaseDurationSeconds: s.LeaseDurationSeconds, LeaseTransitions: s.LeaseTransitions,
		AcquireTime: timeOf(s.AcquireTime), RenewTime: timeOf(s.RenewTime),
	}
}

func timeOf(t *metav1.MicroTime) *record.Time {
	if t == nil {
		return nil
	}
	return &record.Time{Time: t.Time}
}

// Release makes lease say what its holder writes when it releases it, for those
// who know that the holder is dead: others take the lock at once, not only when
// the last claim must have ended.
func Release(lease *coordinationv1.Lease) error {
	version, err := strconv.ParseUint(lease.ResourceVersion, 10, 64)
	if err != nil {
		return fmt.Errorf("resourceVersion %q is not a number: %w", lease.ResourceVersion, err)
	}
	want := recordOf(lease, lease.Annotations)
	want.Note = elector.Note{Holder: want.Holder, After: version, Token: want.Note.Token, Released: true}
	want.Holder = ""
	annotations, err := record.Annotations(lease.Annotations, want)
	if err != nil {
		return err
	}
	lease.Annotations, lease.Spec.HolderIdentity, lease.Spec.LeaseTransitions = annotations, &want.Holder, &want.Transitions
	return nil
}
