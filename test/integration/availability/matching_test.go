//go:build integration

package availability

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/elector-io/elector/inject"
)

// While no replica of the manager is left, with failurePolicy Fail, whoever did not ask for elector notices nothing, and who did is told why.
func TestMatching(t *testing.T) {
	t.Parallel()
	i := install(t)
	apps := cluster.Client().AppsV1()
	// A workload from better days: annotated itself, not its template.
	if _, err := apps.Deployments(i.apps).Create(t.Context(), i.deployment("elected", 0, asking(), nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	others := i.others()
	before := map[string]time.Duration{}
	for what, create := range others {
		before[what] = i.many(what, create)
	}
	i.scale(0)

	for what, create := range others {
		t.Logf("%s: median %s with the manager, %s without", what, before[what], i.many(what, create))
	}
	template := i.deployment("template", 1, nil, asking())
	for what, test := range map[string]struct {
		err     error
		webhook string
	}{
		"pod":           {i.createPod(t.Context(), false), "pods.elector.io"},
		"workload":      {second(apps.Deployments(i.apps).Create(t.Context(), i.deployment("workload", 1, asking(), nil), dryRun)), "workloads.elector.io"},
		"pod template":  {second(apps.Deployments(i.apps).Create(t.Context(), template, dryRun)), "workloads.elector.io"},
		"wrong value":   {second(cluster.Client().CoreV1().Pods(i.apps).Create(t.Context(), i.gated(map[string]string{inject.Prefix + "enabled": "yes"}), dryRun)), "pods.elector.io"},
		"taking it off": {i.update(t.Context(), func(d *appsv1.Deployment) { d.Annotations = nil }), "workloads.elector.io"},
	} {
		if test.err == nil || !apierrors.IsInternalError(test.err) || !strings.Contains(test.err.Error(), `failed calling webhook "`+test.webhook+`"`) {
			t.Errorf("%s: %v", what, test.err)
		} else {
			t.Logf("%s: %v", what, test.err)
		}
	}

	// What was elected before can be scaled and deleted all the same. Its new pods wait, and a person can see why.
	i.kubectl("-n", i.apps, "scale", "deployment", "elected", "--replicas", "3")
	eventually(t, "an Event that says why there are no pods", func(ctx context.Context) error {
		events, err := cluster.Client().CoreV1().Events(i.apps).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreate"})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return strings.Contains(e.Message, `failed calling webhook "pods.elector.io"`)
		}) {
			return fmt.Errorf("not among %d Events", len(events.Items))
		}
		return nil
	})
	begun := time.Now()
	i.kubectl("scale", "deployment", i.name, "--replicas", "2")
	eventually(t, "an annotated pod", func(ctx context.Context) error { return i.createPod(ctx, true) })
	t.Logf("annotated pods are created again %s after the manager was asked to come back", time.Since(begun).Round(time.Millisecond))
	eventually(t, "the Deployment's pods", func(ctx context.Context) error {
		list, err := cluster.Client().CoreV1().Pods(i.apps).List(ctx, metav1.ListOptions{LabelSelector: "app=elected"})
		if err != nil {
			return err
		}
		if len(list.Items) != 3 || !injected(&list.Items[0]) || !injected(&list.Items[1]) || !injected(&list.Items[2]) {
			return fmt.Errorf("%d pods", len(list.Items))
		}
		return nil
	})
}

func second[T any](_ T, err error) error { return err }

// update changes the Deployment "elected", as a dry run.
func (i *installation) update(ctx context.Context, change func(*appsv1.Deployment)) error {
	deployments := cluster.Client().AppsV1().Deployments(i.apps)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		d, err := deployments.Get(ctx, "elected", metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(d)
		_, err = deployments.Update(ctx, d, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
}

// many does one thing often, one after the other, and returns the median of how long it took. None may fail.
func (i *installation) many(what string, do func(context.Context) error) time.Duration {
	i.t.Helper()
	const often = 10
	took := make([]time.Duration, 0, often)
	var failures []error
	for range often {
		begun := time.Now()
		if err := do(i.t.Context()); err != nil {
			failures = append(failures, err)
		}
		took = append(took, time.Since(begun))
	}
	i.t.Logf("%s: %d created, %d failed", what, often-len(failures), len(failures))
	if len(failures) > 0 {
		i.t.Errorf("%s: %d of %d failed, such as: %v", what, len(failures), often, failures[0])
	}
	slices.Sort(took)
	return took[often/2].Round(100 * time.Microsecond)
}

// others are the creations and changes that elector has nothing to do with.
func (i *installation) others() map[string]func(context.Context) error {
	client := cluster.Client()
	pod := func(annotations map[string]string) func(context.Context) error {
		return func(ctx context.Context) error {
			pod, err := client.CoreV1().Pods(i.apps).Create(ctx, i.gated(annotations), dryRun)
			if err == nil && injected(pod) {
				err = errors.New("the pod has a sidecar")
			}
			return err
		}
	}
	off := map[string]string{inject.Prefix + "enabled": "false"}
	meta := metav1.ObjectMeta{Name: "other", Annotations: map[string]string{"example.com/team": "shop"}}
	labels := map[string]string{"app": "other"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: gatedSpec()}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	job := batchv1.JobSpec{Template: *template.DeepCopy()}
	job.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	return map[string]func(context.Context) error{
		"pod without annotations":     pod(nil),
		"pod with others":             pod(map[string]string{"example.com/team": "shop"}),
		"pod with the empty map":      pod(map[string]string{}),
		"pod that says it need not":   pod(off),
		"pod with a lock but no more": pod(map[string]string{inject.Prefix + "lock": "web"}),
		"Deployment": func(ctx context.Context) error {
			return second(client.AppsV1().Deployments(i.apps).Create(ctx, i.deployment("other", 1, nil, nil), dryRun))
		},
		"StatefulSet": func(ctx context.Context) error {
			return second(client.AppsV1().StatefulSets(i.apps).Create(ctx, &appsv1.StatefulSet{
				ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template},
			}, dryRun))
		},
		"DaemonSet": func(ctx context.Context) error {
			return second(client.AppsV1().DaemonSets(i.apps).Create(ctx, &appsv1.DaemonSet{
				ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template},
			}, dryRun))
		},
		"ReplicaSet": func(ctx context.Context) error {
			return second(client.AppsV1().ReplicaSets(i.apps).Create(ctx, &appsv1.ReplicaSet{
				ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template},
			}, dryRun))
		},
		"Job": func(ctx context.Context) error {
			return second(client.BatchV1().Jobs(i.apps).Create(ctx, &batchv1.Job{ObjectMeta: meta, Spec: job}, dryRun))
		},
		"CronJob": func(ctx context.Context) error {
			return second(client.BatchV1().CronJobs(i.apps).Create(ctx, &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{
				Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: job},
			}}, dryRun))
		},
	}
}
