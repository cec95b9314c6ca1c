package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// rollouts are how often a lock changed hands in each rollout of its workload.
type rollouts struct {
	kind     string // Deployment or StatefulSet
	replicas int
	changes  []int
}

// total is of all rollouts together.
func (r rollouts) total() (n int) {
	for _, c := range r.changes {
		n += c
	}
	return n
}

func (r rollouts) mean() float64 { return float64(r.total()) / float64(len(r.changes)) }

func (r rollouts) most() (n int) {
	for _, c := range r.changes {
		n = max(n, c)
	}
	return n
}

const (
	deployment  = "Deployment"
	statefulSet = "StatefulSet"
	// statefulSize is the number of replicas of the StatefulSet.
	statefulSize = 3
	// settle is how long to wait after a rollout: the next one does not come on its heels.
	settle = 2 * time.Second
)

// measureRollouts rolls all workloads out at the same time, each again and again.
func (l *lab) measureRollouts(ctx context.Context) ([]rollouts, error) {
	var found []rollouts
	for _, n := range l.plan.sizes {
		found = append(found, rollouts{kind: deployment, replicas: n})
	}
	found = append(found, rollouts{kind: statefulSet, replicas: statefulSize})
	var mu sync.Mutex
	rolling, within := errgroup.WithContext(ctx)
	for i := range found {
		rolling.Go(func() error {
			changes, err := l.roll(within, found[i].kind, found[i].replicas)
			mu.Lock()
			defer mu.Unlock()
			found[i].changes = changes
			return err
		})
	}
	if err := rolling.Wait(); err != nil {
		return nil, fmt.Errorf("rolling out: %w", err)
	}
	for _, r := range found {
		l.say("%s of %d: %d leader changes in %d rollouts, with the manager: %t", r.kind, r.replicas, r.total(), len(r.changes), l.managed)
	}
	return found, nil
}

func (l *lab) roll(ctx context.Context, kind string, replicas int) (changes []int, err error) {
	name := map[string]string{deployment: "roll", statefulSet: "roll-set"}[kind] + fmt.Sprintf("-%d", replicas)
	holders, err := l.followHolders(ctx, name)
	if err != nil {
		return nil, err
	}
	defer holders.close()
	t, err := l.elected(name)
	if err != nil {
		return nil, err
	}
	create := l.deploy
	if kind == statefulSet {
		create = l.deploySet
	}
	if err := create(ctx, name, replicas, t); err != nil {
		return nil, err
	}
	for round := range l.plan.rollouts {
		if _, _, _, err := l.leader(ctx, name, replicas); err != nil {
			return nil, err
		}
		if err := measure.Sleep(ctx, settle); err != nil {
			return nil, err
		}
		before, err := holders.seen()
		if err != nil {
			return nil, err
		}
		if err := l.rollOnce(ctx, kind, name, round); err != nil {
			return nil, err
		}
		if err := l.rolled(ctx, kind, name, replicas); err != nil {
			return nil, err
		}
		if _, _, _, err := l.leader(ctx, name, replicas); err != nil {
			return nil, err
		}
		after, err := holders.seen()
		if err != nil {
			return nil, err
		}
		changes = append(changes, after-before)
	}
	return changes, nil
}

func (l *lab) deploySet(ctx context.Context, name string, replicas int, t corev1.PodTemplateSpec) error {
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(replicas)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{appLabel: name}}, Template: t,
		},
	}
	if _, err := l.client.AppsV1().StatefulSets(namespace).Create(ctx, set, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating statefulset %s: %w", name, err)
	}
	return nil
}

// rollOnce changes the pod template, as `kubectl rollout restart` does.
func (l *lab) rollOnce(ctx context.Context, kind, name string, round int) (err error) {
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"example.com/round":"%d"}}}}}`, round)
	if kind == statefulSet {
		_, err = l.client.AppsV1().StatefulSets(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	} else {
		_, err = l.client.AppsV1().Deployments(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		return fmt.Errorf("rolling %s out: %w", name, err)
	}
	return nil
}

// rolled waits until all pods are of the new template, and no other is left.
func (l *lab) rolled(ctx context.Context, kind, name string, replicas int) error {
	n := int32(replicas)
	return eventually(ctx, "the rollout of "+name, func(ctx context.Context) (bool, error) {
		var done bool
		if kind == statefulSet {
			set, err := l.client.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			s := set.Status
			done = s.ObservedGeneration >= set.Generation && s.UpdatedReplicas == n && s.ReadyReplicas == n && s.CurrentRevision == s.UpdateRevision
		} else {
			d, err := l.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			s := d.Status
			done = s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == n && s.AvailableReplicas == n && s.Replicas == n
		}
		if !done {
			return false, nil
		}
		pods, err := l.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: appLabel + "=" + name})
		return err == nil && len(pods.Items) == replicas, err
	})
}

// holders counts how often a Lease changes hands.
type holders struct {
	watch watch.Interface
	done  chan struct{} // closed when the watch has ended

	mu      sync.Mutex
	last    string
	changes int
}

// followHolders watches a Lease, which need not exist yet. It must be closed.
func (l *lab) followHolders(ctx context.Context, lock string) (*holders, error) {
	w, err := l.client.CoordinationV1().Leases(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + lock})
	if err != nil {
		return nil, fmt.Errorf("watching a lease: %w", err)
	}
	h := &holders{watch: w, done: make(chan struct{})}
	go h.run() // close waits for it
	return h, nil
}

func (h *holders) run() {
	defer close(h.done)
	for event := range h.watch.ResultChan() {
		lease, ok := event.Object.(*coordinationv1.Lease)
		if !ok {
			continue
		}
		h.note(ptr.Deref(lease.Spec.HolderIdentity, ""))
	}
}

// note counts a holder that is not the one before; that nobody holds the lock in between does not matter.
func (h *holders) note(holder string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if holder != "" && holder != h.last {
		h.last = holder
		h.changes++
	}
}

// seen is how many there have been.
func (h *holders) seen() (int, error) {
	select {
	case <-h.done:
		return 0, errors.New("the watch of a lease has ended")
	default:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changes, nil
}

func (h *holders) close() {
	h.watch.Stop()
	<-h.done
}
