// Package candidatestest has candidates for the tests of the manager's reconcilers.
package candidatestest

import (
	"context"

	corev1 "k8s.io/api/core/v1"
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
