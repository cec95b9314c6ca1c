//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/inject"
)

// forged is how many pods somebody makes who says they were injected, each as large as an argument of a megabyte makes it.
const forged = 150

// Pods of somebody who may create pods and no more end no replica of the manager, neither when they come nor when it starts beside them,
// and others get their sidecars and grants.
func testForged(t *testing.T) {
	s := newScene(t, "Forged pods", modeLease)
	s.ok(forge(t.Context(), s.ns))
	s.deploy("web", 2, nil, defaults...)
	s.awaitApp(s.leader("web", 2))
	s.managersLive("150 forged pods of 1 MiB are made")
	for _, args := range [][]string{{"rollout", "restart"}, {"rollout", "status", "--timeout", "3m"}} {
		_, err := kubectl(t.Context(), append(args, "-n", system, "deployment", manager)...)
		s.ok(err)
	}
	s.poll("the old replicas to be gone", func() error { return managers(t.Context(), 2) })
	s.deploy("next", 2, nil, defaults...)
	s.awaitApp(s.leader("next", 2))
	s.managersLive("it starts beside 150 forged pods of 1 MiB")
}

// forge makes the pods. None of them is ever scheduled.
func forge(ctx context.Context, namespace string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for n := range forged {
		name := fmt.Sprintf("forged-%d", n)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Labels: map[string]string{inject.LabelInjected: "true", inject.LabelRole: "leader"},
				Annotations: map[string]string{inject.AnnotationStatus: fmt.Sprintf(`{"lock":%q,"mode":"lease"}`, name)},
			},
			Spec: corev1.PodSpec{
				SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/never"}},
				InitContainers:  []corev1.Container{{Name: inject.ContainerName, Image: appImage, Args: []string{"--lock=" + name, strings.Repeat("x", 1<<20)}}},
				Containers:      []corev1.Container{{Name: "app", Image: appImage}},
			},
		}
		group.Go(func() error {
			_, err := world.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
			return err
		})
	}
	return group.Wait()
}

// peak is the most memory that a container's cgroup has had, in bytes, the kernel's buffers included.
const peak = `cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/%[1]s/cgroup)/memory.peak ||
	cat /sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/%[1]s/cgroup)/memory.max_usage_in_bytes`

// managersLive checks that no replica of the manager was ever restarted, and says how much memory they have had.
func (s *scene) managersLive(what string) {
	s.t.Helper()
	pods, err := world.client.CoreV1().Pods(system).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=elector"})
	s.ok(err)
	most := 0
	for _, pod := range pods.Items {
		status := pod.Status.ContainerStatuses[0]
		if status.RestartCount > 0 {
			s.t.Errorf("%s was restarted %d times: %+v", pod.Name, status.RestartCount, status.LastTerminationState.Terminated)
		}
		out, err := nodeOf(&pod).sh(fmt.Sprintf(peak, s.pidOf(&pod, &status)))
		s.ok(err)
		bytes, err := strconv.Atoi(strings.Fields(out + " none")[0])
		if err != nil {
			s.ok(errors.Join(err, errors.New(out)))
		}
		most = max(most, bytes)
	}
	s.figure("the most memory that a replica's cgroup has had when "+what, fmt.Sprintf("%d MiB of 256", most>>20))
}
