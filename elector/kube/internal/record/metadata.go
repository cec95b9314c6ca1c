package record

import (
	"fmt"
	"slices"
	"time"

	"github.com/elector-io/elector/elector"
)

// Metadata is what of an object's metadata matters to a lock, in the API's JSON.
type Metadata struct {
	Name              string            `json:"name,omitempty"`
	Namespace         string            `json:"namespace,omitempty"`
	UID               string            `json:"uid,omitempty"`
	ResourceVersion   string            `json:"resourceVersion,omitempty"`
	DeletionTimestamp string            `json:"deletionTimestamp,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	OwnerReferences   []Owner           `json:"ownerReferences,omitempty"`
	Finalizers        []string          `json:"finalizers,omitempty"`
}

// Owner is an owner reference.
type Owner struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// LeaseSpec is what of a Lease's spec matters to a lock, in the API's JSON. The
// fields are nil where the object has none.
type LeaseSpec struct {
	HolderIdentity       *string `json:"holderIdentity"`
	LeaseDurationSeconds *int32  `json:"leaseDurationSeconds"`
	AcquireTime          *Time   `json:"acquireTime"`
	RenewTime            *Time   `json:"renewTime"`
	LeaseTransitions     *int32  `json:"leaseTransitions"`
}

// Time is a holder's wall clock, in a Lease.
type Time struct{ time.Time }

// UnmarshalJSON implements json.Unmarshaler, for any text: the API stores times after
// the year 9999 and before 0, and answers them in a form that is none. Of what can't be
// read another time is made, one of the first three centuries: another one for another
// text, because a change of it is a sign of life, never none, because a Lease that has
// none was never held, and one that can be written back.
func (t *Time) UnmarshalJSON(text []byte) error {
	if t.Time.UnmarshalJSON(text) != nil {
		sum := time.Duration(sumOf(text) >> 1) // the 63 bits of a positive one
		t.Time = time.Time{}.Add(max(sum.Truncate(time.Microsecond), time.Microsecond))
	}
	return nil
}

// OfLease reads a Lease, all but its version.
func OfLease(metadata Metadata, spec LeaseSpec) elector.Record {
	return of(metadata, elector.Record{
		Holder:        deref(spec.HolderIdentity),
		LeaseDuration: time.Duration(deref(spec.LeaseDurationSeconds)) * time.Second,
		Transitions:   deref(spec.LeaseTransitions),
		AcquireTime:   deref(spec.AcquireTime).Time,
		RenewTime:     deref(spec.RenewTime).Time,
	})
}

// OfConfigMap reads a ConfigMap, all but its version. The lock is all in the
// metadata. The first Pod among the owners is the holder; its UID counts, not only
// its name.
func OfConfigMap(metadata Metadata) elector.Record {
	name := metadata.Namespace + "/" + metadata.Name
	if metadata.DeletionTimestamp != "" {
		return of(metadata, elector.Record{Foreign: fmt.Sprintf("the ConfigMap %s is being deleted, and is waited for by the finalizers %q", name, metadata.Finalizers)})
	}
	i := slices.IndexFunc(metadata.OwnerReferences, func(o Owner) bool { return o.Kind == "Pod" && o.APIVersion == "v1" })
	if i >= 0 {
		owner := metadata.OwnerReferences[i]
		return of(metadata, elector.Record{Holder: elector.Identity(owner.Name, owner.UID)})
	}
	if metadata.Labels[ManagedByLabel] != ManagedBy {
		// Taking it over would be taking somebody's configuration.
		return of(metadata, elector.Record{Foreign: "the ConfigMap " + name + " is not a lock: no Pod owns it and it has no label " + ManagedByLabel + "=" + ManagedBy})
	}
	return of(metadata, elector.Record{})
}

// of adds to r what both kinds of lock say in annotations.
func of(metadata Metadata, r elector.Record) elector.Record {
	r.Exists = true
	r.Holder = bounded(r.Holder)
	r.Note = ReadNote(metadata.Annotations, r.Transitions)
	readWishes(metadata.Annotations, &r)
	return r
}

func deref[T any](p *T) (value T) {
	if p != nil {
		value = *p
	}
	return value
}
