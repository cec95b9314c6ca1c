// Package lock keeps an election's lock in the Kubernetes API: a Lease or, in
// leader-for-life, a ConfigMap that belongs to the leader's Pod.
//
// It reads one object by name, with a list and a watch that the field selector
// metadata.name narrows, so that a Role with resourceNames suffices. Where list
// or watch is refused it polls instead, and tries to watch again now and then.
//
// It is what runs in every pod, and so is made of net/http alone: the types of
// apimachinery cost a program 1.6 MB as soon as they are imported, client-go's REST
// client another, and its way to connect a third, and each process sets up tables for
// them. Programs that have a rest.Config use package kube.
//
// It does not decide anything: package elector does.
package lock

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube/internal/record"
)

// Server is how the API server is reached.
type Server struct {
	// URL is where it is, such as https://10.96.0.1:443. Required.
	URL *url.URL
	// Connect is how to connect, and as whom. Required.
	Connect Connect
	// Dial makes connections. Default: net.Dialer's.
	Dial DialFunc
}

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

// New returns the lock that cfg names, at the server.
func New(server Server, cfg Config) (elector.Lock, error) {
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
		k = configMapKind(record.Owner{APIVersion: "v1", Kind: "Pod", Name: elector.NameOf(identity), UID: elector.UIDOf(identity)})
	}
	a, err := newAPI(server, k.apiVersion, cfg.Candidate.Namespace, k.resource, cfg.OnRequest)
	if err != nil {
		return nil, err
	}
	return &lock{api: a, kind: k, cfg: cfg, name: cfg.Candidate.Settings.Lock}, nil
}

type lock struct {
	api
	kind    kind
	cfg     Config
	name    string
	newest  atomic.Uint64 // the highest resourceVersion seen
	refused atomic.Bool   // whether the last list or watch was not allowed, and a get was
}

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

// record reads an object of the lock's kind.
func (l *lock) record(text []byte) (elector.Record, error) {
	obj, err := l.kind.parse(text)
	if err != nil {
		return elector.Record{}, err
	}
	version, err := parseVersion(obj.Metadata.ResourceVersion)
	if err != nil {
		return elector.Record{}, err
	}
	r := l.kind.record(obj)
	r.Version, r.Object = l.see(version), obj
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
