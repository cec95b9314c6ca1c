// Package candidatestest has candidates and caches for the tests of the manager's reconcilers.
package candidatestest

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
)

// Listed are the pods that a client has.
type Listed struct {
	locks.Informers
	client.Reader
}

// OfLock implements candidates.Source.
func (l Listed) OfLock(of locks.Lock) (found []candidates.Pod) {
	var pods corev1.PodList
	if err := l.List(context.Background(), &pods, client.InNamespace(of.Namespace)); err != nil {
		return nil
	}
	for i := range pods.Items {
		if pod := candidates.Of(&pods.Items[i]); pod.Lock == of {
			found = append(found, pod)
		}
	}
	return found
}

// Cached is a cache of what a client has, as far as a pass reads it.
type Cached struct {
	cache.Cache
	client.Reader
}

// Get implements client.Reader, as both of its parts do.
func (c Cached) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return c.Reader.Get(ctx, key, obj, opts...)
}

// List implements client.Reader.
func (c Cached) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.Reader.List(ctx, list, opts...)
}
