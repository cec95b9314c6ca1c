package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/witness"
)

// switchovers is how long it takes until another's application leads when somebody wants that.
type switchovers struct {
	figure string
	knows  measure.Sample
}

// groupSize is how many replicas each group has.
const groupSize = 3

// asking is how somebody makes a leader go; it returns when that was sent. known is what the leader's application has said.
type asking func(ctx context.Context, l *lab, leader corev1.Pod, known witness.Line, others []corev1.Pod) (sent time.Duration, err error)

// measureSwitchovers does it in all ways at the same time, so that whatever disturbs one disturbs all.
func (l *lab) measureSwitchovers(ctx context.Context) ([]switchovers, error) {
	kinds := []struct {
		name, figure string
		peer         bool
		ask          asking
	}{
		{"switch", "elector: switchover to a pod", false, request},
		{"delete", "elector: leader's pod deleted", false, remove},
		{"peer", "client-go: leader's pod deleted", true, remove},
	}
	found := make([]switchovers, len(kinds))
	var mu sync.Mutex
	var all []string
	asking, within := errgroup.WithContext(ctx)
	for i, kind := range kinds {
		found[i].figure = kind.figure
		for _, name := range names(kind.name, l.plan.groups) {
			all = append(all, name)
			asking.Go(func() error {
				took, err := l.switchGroup(within, name, kind.peer, kind.ask)
				mu.Lock()
				defer mu.Unlock()
				found[i].knows = append(found[i].knows, took...)
				return err
			})
		}
	}
	if err := asking.Wait(); err != nil {
		return nil, fmt.Errorf("switching over: %w", err)
	}
	return found, l.remove(ctx, all...)
}

func (l *lab) switchGroup(ctx context.Context, lock string, peer bool, ask asking) (took measure.Sample, err error) {
	t := l.rival(lock)
	if !peer {
		if t, err = l.elected(lock); err != nil {
			return nil, err
		}
	}
	if err := l.deploy(ctx, lock, groupSize, slow(t)); err != nil {
		return nil, err
	}
	for range l.plan.rounds {
		leader, known, others, err := l.settled(ctx, lock, groupSize)
		if err != nil {
			return nil, err
		}
		sent, err := ask(ctx, l, leader, known, others)
		if err != nil {
			return nil, err
		}
		knows, err := l.successor(ctx, lock, leader, sent)
		if err != nil {
			return nil, err
		}
		took = append(took, knows-sent)
	}
	return took, nil
}

// request writes what `kubectl elector switchover LOCK --to POD` does.
func request(ctx context.Context, l *lab, leader corev1.Pod, known witness.Line, others []corev1.Pod) (sent time.Duration, err error) {
	lock := leader.Labels[appLabel]
	wish := elector.Handover{Token: known.Token, To: others[0].Name, Why: "bench"}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{elector.HandoverAnnotation: wish.String()}}})
	if err != nil {
		return 0, fmt.Errorf("asking for a handover: %w", err)
	}
	sent = witness.Now()
	if _, err := l.client.CoordinationV1().Leases(namespace).Patch(ctx, lock, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return 0, fmt.Errorf("asking for a handover: %w", err)
	}
	return sent, nil
}

// remove deletes the leader's pod.
func remove(ctx context.Context, l *lab, leader corev1.Pod, _ witness.Line, _ []corev1.Pod) (sent time.Duration, err error) {
	sent = witness.Now()
	if err := l.client.CoreV1().Pods(namespace).Delete(ctx, leader.Name, metav1.DeleteOptions{}); err != nil {
		return 0, fmt.Errorf("deleting the leader: %w", err)
	}
	return sent, nil
}
