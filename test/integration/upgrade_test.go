//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/history"
	"github.com/elector-io/elector/test/witness"
)

// A rollout after the upgrade has pods with the older name of the lock beside pods with the new one, in leader-for-life. The new ones
// stand by, and say why, until the last of the old is gone: never do two lead.
func TestOlderLock(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	e := s.follow("web")
	pods := cluster.Client().CoreV1().Pods(s.name)

	// What an older manager made of a pod of the Deployment.
	asking := s.pod(annotations(elector.ModeLeaderForLife, elector.FieldLock, "web"))
	asking.Name, asking.Labels = "old", map[string]string{"app": "web"}
	old, err := pods.Create(t.Context(), asking, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	delete(old.Annotations, inject.Prefix+elector.FieldLock)
	old.Annotations[inject.AnnotationStatus] = `{"version":"v0.1.0","lock":"web","mode":"leader-for-life"}`
	old.ObjectMeta = metav1.ObjectMeta{Name: old.Name, Labels: old.Labels, Annotations: old.Annotations}
	late := old.DeepCopy()
	if _, err := pods.Create(t.Context(), old, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e.awaitLeader("")

	if _, err := cluster.Client().AppsV1().Deployments(s.name).Create(t.Context(), s.deployment("web", annotations(elector.ModeLeaderForLife)), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an Event on the Deployment", func(ctx context.Context) error {
		events, err := cluster.Client().CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Deployment,reason=LockNotGranted"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, "ConfigMap "+s.name+"/web-lock is not granted as a lock yet") {
				return nil
			}
		}
		return fmt.Errorf("there are %d others", len(events.Items))
	})
	e.await("the new pods to stand by", func() error {
		for name := range e.pods {
			switch seen := e.last(name); {
			case name == "old" && !seen.Leads:
				return fmt.Errorf("the old pod is a %s", seen.Status.Role)
			case name != "old" && seen.Status.Role != elector.RoleStandby:
				return fmt.Errorf("%s is a %q", name, seen.Status.Role)
			}
		}
		if len(e.pods) != replicas+1 {
			return fmt.Errorf("there are %d pods", len(e.pods))
		}
		return nil
	})
	if _, err := cluster.Client().RbacV1().Roles(s.name).Get(t.Context(), "elector:configmap:web-lock", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the new lock is granted: %v", err)
	}

	e.deletePod("old", metav1.DeleteOptions{})
	leader, seen := e.awaitLeader("old")
	if seen.Status.Lock != "web-lock" || leader == "old" {
		t.Errorf("%s leads by the lock %q", leader, seen.Status.Lock)
	}

	// One more of the older manager's, which was on its way: it waits in turn, and takes nothing from the leader.
	late.Name = "late"
	if _, err := pods.Create(t.Context(), late, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an Event on the late pod", func(ctx context.Context) error {
		events, err := cluster.Client().CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=late,reason=LockNotGranted"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, "ConfigMap "+s.name+"/web is not granted as a lock yet") {
				return nil
			}
		}
		return fmt.Errorf("there are %d others", len(events.Items))
	})
	for name, granted := range map[string]bool{"elector:configmap:web-lock": true, "elector:configmap:web": false} {
		if _, err := cluster.Client().RbacV1().Roles(s.name).Get(t.Context(), name, metav1.GetOptions{}); (err == nil) != granted {
			t.Errorf("Role %s: %v", name, err)
		}
	}
	if !e.last(leader).Leads || e.last("late").Leads {
		t.Errorf("the leader leads: %t, and the late pod: %t", e.last(leader).Leads, e.last("late").Leads)
	}

	// The judge takes them for two elections; they must be as good as one.
	claims := e.claimsSince(0, "")
	for i := range claims {
		claims[i].Lock = s.name + "/either"
	}
	for _, fault := range history.Check(claims).Faults {
		t.Errorf("by %s: %s", witness.ByStatus, fault)
	}
	if len(claims) != 2 {
		t.Errorf("there were %d claims: %v", len(claims), claims)
	}
}

// A pod that is read back, changed and created again is refused where it asks for another sidecar than it has.
func TestCopiedPod(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	pods, dryRun := cluster.Client().CoreV1().Pods(s.name), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	pod, err := pods.Create(t.Context(), s.pod(annotations(elector.ModeLease, "port", "5050")), dryRun)
	if err != nil {
		t.Fatal(err)
	}
	marks := pod.Labels
	for name, labels := range map[string]map[string]string{"with its labels": marks, "without": nil} {
		pod.ObjectMeta = metav1.ObjectMeta{Name: "copy", Annotations: pod.Annotations, Labels: labels}
		copied, err := pods.Create(t.Context(), pod, dryRun)
		if err != nil {
			t.Fatal(err)
		}
		// Its sidecar stands aside without the label, so it must not come back.
		if got := copied.Labels[inject.LabelInjected]; (got == "true") != (labels != nil) {
			t.Errorf("a copy %s has the label %q", name, got)
		}
	}
	pod.Annotations[inject.Prefix+"port"] = "5051"
	_, err = pods.Create(t.Context(), pod, dryRun)
	if want := `elector.io/port "5051" is not allowed: the pod already has a sidecar with "5050", undo the change of this annotation, or remove `; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
