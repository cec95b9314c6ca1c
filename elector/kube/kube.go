// Package kube keeps an election's lock in the Kubernetes API: a Lease or, in
// leader-for-life, a ConfigMap that belongs to the leader's Pod.
//
// It reads one object by name, with a list and a watch that the field selector
// metadata.name narrows, so that a Role with resourceNames suffices. Where list
// or watch is refused it polls instead, and tries to watch again now and then.
//
// It does not decide anything: package elector does.
package kube

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/elector"
)

const (
	// ManagedByLabel with ManagedBy as value marks the objects elector made.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of ManagedByLabel.
	ManagedBy = "elector"
	// ClaimAnnotation is where an elector notes what the object itself has no room
	// for: who made this term of the lock, with which write, with which fencing
	// token, and whether it released the lock. A hand or another program that changes
	// the holder does not change the note with it, and so gives itself away.
	ClaimAnnotation = "elector.io/claim"
)

// Config says who contends for which lock. Zero values mean defaults where there
// are any.
type Config struct {
	// Candidate is who contends for what. In leader-for-life its identity is that of
	// the Pod that will own the ConfigMap. Required.
	Candidate elector.Description
	// OnRequest is told of every request's verb and result: the status code, or
	// "error" without an answer. Optional.
	OnRequest func(verb, result string)
	// Jitter returns a random duration in [0, limit). Default: math/rand.
	Jitter func(limit time.Duration) time.Duration
}

// New returns the lock that cfg names, reached with the given client
// configuration; its rate limits, timeout and codecs are replaced.
func New(client *rest.Config, cfg Config) (elector.Lock, error) {
	cfg.Candidate = cfg.Candidate.WithDefaults()
	if err := cfg.Candidate.Validate(""); err != nil {
		return nil, err
	}
	if cfg.Candidate.Namespace == "" {
		return nil, &elector.FieldError{Field: elector.FieldNamespace, Allowed: "it is where the lock is and must not be empty"}
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.N[time.Duration]
	}
	k := leaseKind()
	if cfg.Candidate.Settings.Mode == elector.ModeLeaderForLife {
		identity := cfg.Candidate.Identity
		k = configMapKind(metav1.OwnerReference{
			APIVersion: "v1", Kind: "Pod", Name: elector.NameOf(identity), UID: types.UID(elector.UIDOf(identity)),
		})
	}
	rc, err := restClient(client, k.groupVersion, cfg.OnRequest)
	if err != nil {
		return nil, err
	}
	return &lock{client: rc, kind: k, cfg: cfg, namespace: cfg.Candidate.Namespace, name: cfg.Candidate.Settings.Lock}, nil
}

// kind is what differs between Lease and ConfigMap.
type kind struct {
	groupVersion schema.GroupVersion
	resource     string
	newObject    func() object
	newList      func() list
	// first returns the one object in a list, or nil.
	first func(list) object
	// record reads an object of the kind.
	record func(metav1.Object) elector.Record
	// apply makes an object say what a record that is wanted does, but for the note.
	apply func(object, elector.Record)
	// patched tells that of an object that exists only the note is ever changed; it
	// is deleted to free the lock, and made anew to take it.
	patched bool
}

type object interface {
	runtime.Object
	metav1.Object
}

type list interface {
	runtime.Object
	metav1.ListInterface
}

type lock struct {
	client          rest.Interface
	kind            kind
	cfg             Config
	namespace, name string
	newest          atomic.Uint64 // the highest resourceVersion seen
	refused         atomic.Bool   // whether the last list or watch was not allowed, and a get was
}

var scheme = func() *runtime.Scheme {
	// Only what the locks need: the whole of client-go's scheme would double the
	// sidecar's size.
	s := runtime.NewScheme()
	s.AddKnownTypes(coordinationv1.SchemeGroupVersion, &coordinationv1.Lease{}, &coordinationv1.LeaseList{})
	s.AddKnownTypeWithName(coreVersion.WithKind("ConfigMap"), &metav1.PartialObjectMetadata{})
	s.AddKnownTypeWithName(coreVersion.WithKind("Pod"), &metav1.PartialObjectMetadata{})
	s.AddKnownTypeWithName(coreVersion.WithKind("ConfigMapList"), &metav1.PartialObjectMetadataList{})
	metav1.AddToGroupVersion(s, coordinationv1.SchemeGroupVersion)
	metav1.AddToGroupVersion(s, coreVersion)
	return s
}()

var parameters = runtime.NewParameterCodec(scheme)

// Describe implements elector.Lock.
func (l *lock) Describe() elector.Description { return l.cfg.Candidate }

// see notes that version exists and returns it.
func (l *lock) see(version uint64) uint64 {
	for {
		newest := l.newest.Load()
		if version <= newest || l.newest.CompareAndSwap(newest, version) {
			return version
		}
	}
}

// record reads obj.
func (l *lock) record(obj object) (elector.Record, error) {
	version, err := parseVersion(obj.GetResourceVersion())
	if err != nil {
		return elector.Record{}, err
	}
	r := l.kind.record(obj)
	r.Version, r.Exists, r.Object = l.see(version), true, obj
	r.Holder = bounded(r.Holder)
	r.Note = readNote(obj, r.Transitions)
	readWishes(obj, &r)
	return r, nil
}

// parseVersion reads a resourceVersion. Kubernetes promises since 1.35 that they
// are integers that grow, and with etcd they always were.
func parseVersion(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the API server sent resourceVersion %q, which is not a number: %w", s, err)
	}
	return v, nil
}
