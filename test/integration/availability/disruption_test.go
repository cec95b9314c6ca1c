//go:build integration

package availability

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/test/embedded"
)

// What is planned fails no creation: replicas are deleted, drained, restarted and upgraded one after the other.
func TestPlanned(t *testing.T) {
	t.Parallel()
	i := install(t)
	disruptions := []struct {
		what    string
		disrupt func()
	}{
		{"replicas deleted", func() {
			for _, pod := range i.awaitReplicas(2) {
				i.kubectl("delete", "pod", pod.Name, "--wait=false")
				i.awaitReady(2)
			}
		}},
		{"replicas evicted", func() {
			replicas := i.awaitReplicas(2)
			eventually(t, "the disruption budget", func(ctx context.Context) error {
				budget, err := cluster.Client().PolicyV1().PodDisruptionBudgets(i.name).Get(ctx, i.name, metav1.GetOptions{})
				if err == nil && (budget.Status.ExpectedPods != 2 || budget.Status.DisruptionsAllowed != 1) {
					err = fmt.Errorf("it allows %d of %d", budget.Status.DisruptionsAllowed, budget.Status.ExpectedPods)
				}
				return err
			})
			refused := 0
			for _, pod := range replicas {
				refused += i.evict(&pod)
			}
			t.Logf("the disruption budget refused %d evictions", refused)
		}},
		{"rollout restarted", func() {
			i.kubectl("rollout", "restart", "deployment", i.name)
			i.kubectl("rollout", "status", "deployment", i.name)
		}},
		{"release upgraded", func() { i.helm("upgrade", "podLabels.upgraded=yes") }},
		{"scaled down and up", func() {
			i.scale(1)
			i.kubectl("scale", "deployment", i.name, "--replicas", "2")
		}},
	}
	for _, d := range disruptions {
		tr := i.create()
		tr.more()
		d.disrupt()
		i.awaitReplicas(2) // those that drain are gone, too
		tr.more()
		tr.stopSound(d.what)
	}
}

// awaitReady waits until so many replicas are ready and not on their way out.
func (i *installation) awaitReady(n int) {
	i.t.Helper()
	eventually(i.t, "the manager's replicas", func(ctx context.Context) error {
		pods, err := i.replicas(ctx)
		if err != nil {
			return err
		}
		ready := 0
		for _, pod := range pods {
			if isReady(&pod) && pod.DeletionTimestamp == nil {
				ready++
			}
		}
		if ready != n {
			return fmt.Errorf("%d of %d", ready, n)
		}
		return nil
	})
}

// evict does to a pod what `kubectl drain` does, and returns how often it was refused.
func (i *installation) evict(pod *corev1.Pod) (refused int) {
	i.t.Helper()
	eventually(i.t, "eviction of "+pod.Name, func(ctx context.Context) error {
		err := cluster.Client().PolicyV1().Evictions(i.name).Evict(ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Name: pod.Name, Namespace: i.name},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}},
		})
		if apierrors.IsTooManyRequests(err) {
			refused++
		}
		return err
	})
	return refused
}

// Replicas that cannot reach the API server, but are reached by it, go on admitting pods, longer than a lease, and are not restarted.
func TestCutOff(t *testing.T) {
	t.Parallel()
	i := install(t, "extraArgs={--lease-duration=6s,--renew-deadline=3s,--retry-period=1s}")
	replicas := i.awaitReplicas(2)
	i.leader()
	tr := i.create()
	each := func(action embedded.Action) {
		t.Helper()
		for _, pod := range replicas {
			if err := cluster.Control(t.Context(), action, i.name, pod.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	each(embedded.Partition)
	var last time.Time
	eventually(t, "the manager's own lease to run out", func(ctx context.Context) error {
		lease, err := cluster.Client().CoordinationV1().Leases(i.name).Get(ctx, i.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if last = lease.Spec.RenewTime.Time; time.Since(last) < time.Duration(*lease.Spec.LeaseDurationSeconds)*time.Second {
			return fmt.Errorf("renewed at %s", last)
		}
		return nil
	})
	tr.more()
	each(embedded.Heal)
	eventually(t, "somebody to lead again", func(ctx context.Context) error {
		lease, err := cluster.Client().CoordinationV1().Leases(i.name).Get(ctx, i.name, metav1.GetOptions{})
		if err == nil && !lease.Spec.RenewTime.After(last) {
			err = errors.New("not yet")
		}
		return err
	})
	tr.more()
	tr.stopSound("both replicas cut off from the API server")
	for _, pod := range i.awaitReplicas(2) {
		if n := pod.Status.ContainerStatuses[0].RestartCount; n > 0 {
			t.Errorf("%s was restarted %d times", pod.Name, n)
		}
	}
}

// A replica that is killed takes with it the creations it was about to answer, and those whose connection goes to it until its kubelet has
// noticed: the API server does not repeat a call to a webhook. Nothing else fails, and a controller repeats what failed: a
// Deployment gets all its pods.
func TestKilled(t *testing.T) {
	t.Parallel()
	i := install(t)
	deployments := cluster.Client().AppsV1().Deployments(i.apps)
	if _, err := deployments.Create(t.Context(), i.deployment("web", 0, nil, asking()), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := 0
	tr := i.create()
	type accident struct{ from, until time.Time }
	var accidents []accident
	for range 2 {
		for _, pod := range i.awaitReplicas(2) {
			tr.more()
			pods += 10
			scale := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, pods)
			if _, err := deployments.Patch(t.Context(), "web", types.MergePatchType, scale, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			from := i.kill(&pod)
			accidents = append(accidents, accident{from, time.Now()})
		}
	}
	tr.more()
	failures := tr.stop(fmt.Sprintf("%d replicas killed", len(accidents)))
	for _, f := range failures {
		during := false
		for _, a := range accidents {
			during = during || f.ended.After(a.from) && f.begun.Before(a.until)
		}
		if !during {
			t.Errorf("failed at %s, when both replicas served: %v", f.begun.Format(stamp), f.err)
		}
		if !apierrors.IsInternalError(f.err) || !strings.Contains(f.err.Error(), `failed calling webhook "pods.elector.io"`) || strings.Contains(f.err.Error(), "tls: ") {
			t.Errorf("failed in another way: %v", f.err)
		}
	}
	if len(failures) > 0 {
		t.Log(kinds(failures))
	}
	eventually(t, "the Deployment's pods", func(ctx context.Context) error {
		list, err := cluster.Client().CoreV1().Pods(i.apps).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		for _, pod := range list.Items {
			if !injected(&pod) {
				return errors.New(pod.Name + " has no sidecar")
			}
		}
		if len(list.Items) != pods {
			return fmt.Errorf("%d pods, want %d", len(list.Items), pods)
		}
		return nil
	})
}
