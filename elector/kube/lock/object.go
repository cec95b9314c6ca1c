package lock

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube/internal/record"
)

// kind is what differs between Lease and ConfigMap.
type kind struct {
	apiVersion, name, resource string
	// record reads an object of the kind, all but its version.
	record func(*object) elector.Record
	// apply makes an object say what a record that is wanted does, but for the note.
	apply func(fields, elector.Record)
	// patched tells that of an object that exists only the note is ever changed; it
	// is deleted to free the lock, and made anew to take it.
	patched bool
}

// leaseKind writes the record that client-go's LeaseLock writes, so that its
// candidates and ours can contend for one Lease.
func leaseKind() kind {
	return kind{
		apiVersion: "coordination.k8s.io/v1", name: "Lease", resource: "leases",
		record: func(obj *object) elector.Record { return record.OfLease(obj.Metadata, obj.Spec) },
		apply:  applyToLease,
	}
}

func applyToLease(lease fields, want elector.Record) {
	spec := lease.child("spec")
	spec["holderIdentity"], spec["leaseTransitions"] = want.Holder, want.Transitions
	if want.Holder == "" {
		return // a release changes nothing else
	}
	spec["leaseDurationSeconds"] = int64(want.LeaseDuration / time.Second)
	spec["acquireTime"], spec["renewTime"] = microTime(want.AcquireTime), microTime(want.RenewTime)
}

// microTime is the API's form of a time in a Lease; nil for none.
func microTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
}

// configMapKind makes the ConfigMap that operator-sdk's leader-for-life makes,
// one without data that its leader's Pod owns, so that the garbage collector
// frees the lock.
func configMapKind(pod record.Owner) kind {
	return kind{
		apiVersion: "v1", name: "ConfigMap", resource: "configmaps",
		record: func(obj *object) elector.Record { return record.OfConfigMap(obj.Metadata) },
		// Nobody else's Pod is ever written.
		apply:   func(obj fields, _ elector.Record) { obj.child("metadata")["ownerReferences"] = []record.Owner{pod} },
		patched: true,
	}
}

// object is a lock as the API server sent it.
type object struct {
	Kind     string           `json:"kind"` // empty in a list
	Metadata record.Metadata  `json:"metadata"`
	Spec     record.LeaseSpec `json:"spec"`
	// text is all of it, which is sent back changed, with what newer servers may have
	// added. It is nil if the kind is patched: somebody's ConfigMap may be a megabyte.
	text []byte
}

// parse reads an object of the kind.
func (k kind) parse(text []byte) (*object, error) {
	obj := new(object)
	if err := json.Unmarshal(text, obj); err != nil {
		return nil, fmt.Errorf("the API server sent what is no %s: %w", k.name, err)
	}
	if obj.Kind != k.name && obj.Kind != "" {
		return nil, fmt.Errorf("the API server sent a %s", obj.Kind)
	}
	if !k.patched {
		obj.text = text
	}
	return obj, nil
}

// fields are what an object of the API has, known here or not. What nobody changes is
// left as the text that it was.
type fields map[string]any

// fields returns what obj has, to be changed. Only obj itself, its metadata and its spec
// are taken apart: what is in their fields may be a megabyte that somebody wrote to be a
// nuisance, and as maps would take dozens of times that.
func (obj *object) fields() (fields, error) {
	all, err := split(obj.text)
	for _, part := range []string{"metadata", "spec"} {
		if text, ok := all[part].(json.RawMessage); ok && err == nil {
			all[part], err = split(text)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("decoding the lock: %w", err)
	}
	return all, nil
}

// split returns the fields of an object, each as its text; none of null.
func split(text []byte) (fields, error) {
	var texts map[string]json.RawMessage
	if err := json.Unmarshal(text, &texts); err != nil {
		return nil, err
	}
	all := fields{}
	for name, text := range texts {
		all[name] = text
	}
	return all, nil
}

// child returns the fields of an object in f, which is made if there is none.
func (f fields) child(name string) fields {
	child, ok := f[name].(fields)
	if !ok {
		child = fields{}
		f[name] = child
	}
	return child
}
