package reap

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// suspect reports whether the lock may have to be freed, as far as is known
// without asking: a pod of it is dead, or pods contend and somebody else holds it.
func (r *Reaper) suspect(ctx context.Context, l locks.Lock, pods []candidates.Pod) (bool, error) {
	if slices.ContainsFunc(pods, isDead) {
		return true, nil
	}
	if !slices.ContainsFunc(pods, candidates.Pod.Contends) {
		return false, nil
	}
	object := locks.Object(l.Mode)
	err := r.Cache.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, object)
	if apierrors.IsNotFound(err) {
		return true, nil // adopted, it may be
	}
	if err != nil {
		return false, fmt.Errorf("reading the lock: %w", err)
	}
	return isStranger(kube.HolderOf(object), pods), nil
}

// isStranger reports whether a holder is none of the lock's pods.
func isStranger(holder string, pods []candidates.Pod) bool {
	return holder != "" && !slices.ContainsFunc(pods, func(pod candidates.Pod) bool { return pod.Identity() == holder })
}

// stranger returns the pod that the holder says it is, with what its kubelet says
// of it; an empty one if there is none of that name and UID. It may be anybody's:
// a program that uses operator-lib, or a pod that lost its marks. One is read at a
// time: a Pod may take 30 MiB while it is read, and whoever may create pods and
// locks chooses how many there are.
func (r *Reaper) stranger(ctx context.Context, l locks.Lock, holder string) (candidates.Pod, error) {
	name, uid := elector.NameOf(holder), elector.UIDOf(holder)
	if name == "" || uid == "" {
		return candidates.Pod{}, nil
	}
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return candidates.Pod{}, fmt.Errorf("waiting to read the holder: %w", ctx.Err())
	}
	var pod corev1.Pod
	err := r.Locks.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: name}, &pod)
	if apierrors.IsNotFound(err) || err == nil && string(pod.UID) != uid {
		return candidates.Pod{}, nil // it vanished, and may run
	}
	if err != nil {
		return candidates.Pod{}, fmt.Errorf("reading the holder: %w", err)
	}
	return candidates.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Lock: l, Phase: pod.Status.Phase, Dead: candidates.Dead(&pod), Deleting: pod.DeletionTimestamp != nil,
	}, nil
}

// watch notes whether the lock is held by a pod that nobody watches, and returns
// when to look at it again.
func (r *Reaper) watch(l locks.Lock, needed bool) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !needed {
		delete(r.strangers, l)
		return 0
	}
	r.strangers[l] = true
	return max(strangerPause, time.Duration(len(r.strangers))*strangerCost)
}
