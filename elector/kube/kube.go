// Package kube keeps an election's lock in the Kubernetes API: a Lease or, in
// leader-for-life, a ConfigMap that belongs to the leader's Pod.
//
// It is package lock for programs that have client-go's rest.Config and the API's
// types. What holds of locks is written there.
package kube

import (
	"context"
	"fmt"
	"net/http"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube/internal/record"
	"github.com/elector-io/elector/elector/kube/lock"
)

const (
	// ManagedByLabel with ManagedBy as value marks the objects elector made.
	ManagedByLabel = record.ManagedByLabel
	// ManagedBy is the value of ManagedByLabel.
	ManagedBy = record.ManagedBy
	// ClaimAnnotation is where an elector notes what the object itself has no room
	// for: who made this term of the lock, with which write, with which fencing
	// token, and whether it released the lock. A hand or another program that changes
	// the holder does not change the note with it, and so gives itself away.
	ClaimAnnotation = record.ClaimAnnotation
)

// The variables in which the downward API tells a Pod who it is.
const (
	// PodNameEnv holds the Pod's name; the webhook sets it in app containers too.
	PodNameEnv = lock.PodNameEnv
	// PodUIDEnv holds the Pod's UID.
	PodUIDEnv = lock.PodUIDEnv
)

// ServiceAccountDir is where the kubelet puts a pod's credentials.
const ServiceAccountDir = lock.ServiceAccountDir

// Config says who contends for which lock. Zero values mean defaults where there
// are any.
type Config = lock.Config

// New returns the lock that cfg names, reached with the given client
// configuration; its rate limits, timeout, codecs and warning handler have no effect.
func New(client *rest.Config, cfg Config) (elector.Lock, error) {
	server, err := ServerOf(client)
	if err != nil {
		return nil, err
	}
	return lock.New(server, cfg)
}

// ServerOf returns how client reaches the API server.
func ServerOf(client *rest.Config) (lock.Server, error) {
	url, _, err := rest.DefaultServerUrlFor(client)
	if err != nil {
		return lock.Server{}, fmt.Errorf("finding the API server: %w", err)
	}
	return lock.Server{URL: url, Dial: client.Dial, Connect: func(dial lock.DialFunc, wrap func(http.RoundTripper) http.RoundTripper) (http.RoundTripper, error) {
		cfg := rest.CopyConfig(client)
		if cfg.Transport == nil {
			// client-go shares connections among clients of one Dial; this one is nobody else's.
			cfg.Dial, cfg.WrapTransport = dial, transport.Wrappers(wrap, cfg.WrapTransport)
		}
		return rest.TransportFor(cfg)
	}}, nil
}

// PodNamespace reads the namespace of the Pod that this process runs in.
func PodNamespace() (string, error) { return lock.PodNamespace() }

// ForPod returns a lock in this Pod's namespace, with this Pod as the candidate,
// for elector.Become and elector.Run; nil without an error outside a cluster. The
// Pod's name comes from PodNameEnv, its UID from PodUIDEnv; without the latter
// the Pod is read, which needs the permission to get pods. settings need the
// lock's name; what else they leave out is elector's default.
func ForPod(ctx context.Context, settings elector.Settings) (elector.Lock, error) {
	return lock.ForPod(ctx, settings)
}
