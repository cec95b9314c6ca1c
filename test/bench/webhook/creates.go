package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/bench/internal/measure"
)

const (
	createNamespaceName = "bench-creates"
	createAccountName   = "worker"
	// roundPairs is how many pairs of pods are created before they are deleted together.
	roundPairs = 40
	// warmPairs come first and do not count: connections, caches and the lock's grant.
	warmPairs = 10
)

// creates are the times of creates of pods, in pairs: one of the two asks for the sidecar, and no other differs.
type creates struct {
	plain, elected measure.Sample
	added          measure.Sample // the difference within each pair
	// called is how long the API server took on average to call the webhook and apply its patch.
	called time.Duration
}

// calledMetric is the API server's own measure of that.
const calledMetric = "apiserver_admission_webhook_admission_duration_seconds"

// measureCreates creates pairs of pods, one at a time, now the one and now the other first.
func (l *lab) measureCreates(ctx context.Context) (c creates, err error) {
	if err := errors.Join(measure.CreateNamespace(ctx, l.client, createNamespaceName), measure.CreateAccount(ctx, l.client, createNamespaceName, createAccountName)); err != nil {
		return c, err
	}
	// One pod stays: its grant is there for all others, so that the manager writes nothing beside what is measured.
	if _, err := l.timeCreate(ctx, elected(newPod(createNamespaceName, "stays", createAccountName), "worker")); err != nil {
		return c, err
	}
	if err := l.createRound(ctx, warmPairs, &creates{}); err != nil {
		return c, err
	}
	before, beforeSum, err := l.histogram(ctx, calledMetric, "name", podWebhook)
	if err != nil {
		return c, err
	}
	for range l.plan.rounds {
		if err := l.createRound(ctx, roundPairs, &c); err != nil {
			return c, err
		}
	}
	after, afterSum, err := l.histogram(ctx, calledMetric, "name", podWebhook)
	if calls := after - before; calls > 0 {
		c.called = (afterSum - beforeSum) / time.Duration(calls)
	}
	return c, err
}

func (l *lab) createRound(ctx context.Context, pairs int, c *creates) error {
	for i := range pairs {
		plain := newPod(createNamespaceName, fmt.Sprintf("plain-%d", i), createAccountName)
		asking := elected(newPod(createNamespaceName, fmt.Sprintf("elected-%d", i), createAccountName), "worker")
		var took [2]time.Duration
		for n := range 2 {
			which := (i + n) % 2
			d, err := l.timeCreate(ctx, [2]*corev1.Pod{plain, asking}[which])
			if err != nil {
				return err
			}
			took[which] = d
		}
		c.plain, c.elected, c.added = append(c.plain, took[0]), append(c.elected, took[1]), append(c.added, took[1]-took[0])
	}
	return l.deletePods(ctx, pairs)
}

// timeCreate creates a pod, and makes sure that it got the sidecar if it asked for it.
func (l *lab) timeCreate(ctx context.Context, pod *corev1.Pod) (time.Duration, error) {
	began := time.Now()
	got, err := l.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("creating a pod: %w", err)
	}
	if _, asked := pod.Annotations[enabledAnnotation]; asked != (got.Labels[inject.LabelInjected] == "true") {
		return 0, fmt.Errorf("pod %s asks for the sidecar: %t, and the opposite was done", pod.Name, asked)
	}
	return took, nil
}

// deletePods deletes what a round created: not in between, where it would disturb.
func (l *lab) deletePods(ctx context.Context, pairs int) error {
	for i := range pairs {
		for _, name := range []string{fmt.Sprintf("plain-%d", i), fmt.Sprintf("elected-%d", i)} {
			options := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
			if err := l.client.CoreV1().Pods(createNamespaceName).Delete(ctx, name, options); err != nil {
				return fmt.Errorf("deleting pod %s: %w", name, err)
			}
		}
	}
	return nil
}
