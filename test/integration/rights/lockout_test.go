//go:build integration

package rights

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations on everything in the manager's namespace, and then all replicas gone at once: they come back, as they were. If the webhook
// were called for them, it would have to answer before it runs. (With the default status directory it would refuse them at once: they
// have a volume there.)
func TestCannotLockItselfOut(t *testing.T) {
	before := awaitReplicas(t, nil)
	kubectl(t, "-n", system, "annotate", "deployments,pods", "--all", "elector.io/enabled=true", "elector.io/status-dir=/var/run/app")
	kubectl(t, "-n", system, "patch", "deployment", manager, "--patch", `{"spec":{"template":{"metadata":{"annotations":{"elector.io/enabled":"true","elector.io/status-dir":"/var/run/app"}}}}}`)
	defer func() {
		kubectl(t, "-n", system, "annotate", "deployments,pods", "--all", "elector.io/enabled-", "elector.io/status-dir-")
		kubectl(t, "-n", system, "patch", "deployment", manager, "--patch", `{"spec":{"template":{"metadata":{"annotations":{"elector.io/enabled":null,"elector.io/status-dir":null}}}}}`)
		kubectl(t, "-n", system, "rollout", "status", "deployment", manager, "--timeout", "60s")
	}()
	kubectl(t, "-n", system, "rollout", "status", "deployment", manager, "--timeout", "60s")
	before = append(before, awaitReplicas(t, before)...)
	kubectl(t, "-n", system, "delete", "pods", "--all", "--force", "--grace-period", "0", "--wait=false")
	for _, pod := range awaitReplicas(t, before) {
		if len(pod.Spec.InitContainers) > 0 || pod.Annotations["elector.io/enabled"] != "true" {
			t.Errorf("%s has the annotations %v and %d init containers", pod.Name, pod.Annotations, len(pod.Spec.InitContainers))
		}
	}
	// Others in the namespace are served as before.
	deployment, err := cluster.Client().AppsV1().Deployments(system).Get(t.Context(), manager, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other := deployment.DeepCopy()
	other.ObjectMeta = metav1.ObjectMeta{Name: "other", Annotations: map[string]string{"elector.io/enabled": "true", "elector.io/mode": "primary"}}
	if _, err := cluster.Client().AppsV1().Deployments(system).Create(t.Context(), other, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err == nil {
		t.Error("another workload of the namespace is not looked at")
	}
}
