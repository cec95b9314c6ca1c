//go:build integration

package election

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shop is a workload of each kind of lock, with accounts of their own and without.
const shop = `apiVersion: v1
kind: ServiceAccount
metadata:
  name: web
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations:
    elector.io/enabled: "true"
spec:
  replicas: 2
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      serviceAccountName: web
      containers:
      - name: app
        image: app:v1
---
{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
  "serviceName": "db", "replicas": 2, "selector": {"matchLabels": {"app": "db"}},
  "template": {
    "metadata": {"labels": {"app": "db"}, "annotations": {"elector.io/enabled": "true", "elector.io/mode": "leader-for-life"}},
    "spec": {"containers": [{"name": "app", "image": "app:v1"}]}
  }
}}
`

// TestInjectedOffline applies what the plugin makes of manifests where there is neither webhook nor manager: somebody leads. Then it
// applies the original, which has no sidecar.
func TestInjectedOffline(t *testing.T) {
	t.Parallel()
	const namespace = "injected-offline"
	if _, err := cluster.Client().CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// run is a command in the namespace with an input.
	run := func(cmd *exec.Cmd, input string) string {
		t.Helper()
		var stderr bytes.Buffer
		cmd.Stdin, cmd.Stderr = strings.NewReader(input), &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd.Args, err, &stderr)
		}
		return string(out)
	}
	kubectl := func(input string, args ...string) {
		t.Helper()
		run(cluster.Kubectl(t.Context(), append([]string{"-n", namespace}, args...)...), input)
	}
	plugin := func(input string, args ...string) string {
		t.Helper()
		return run(exec.CommandContext(t.Context(), cluster.Program("kubectl-elector"), append(args, "-n", namespace, "--kubeconfig", cluster.Kubeconfig(), "-f", "-")...), input)
	}

	injected := plugin(shop, "inject", "--image", "elector:offline", "--rbac")
	kubectl(injected, "apply", "-f", "-")
	cluster.Eventually(t, "a leader of each", func(ctx context.Context) error {
		lease, err := cluster.Client().CoordinationV1().Leases(namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if holder := lease.Spec.HolderIdentity; holder == nil || !strings.HasPrefix(*holder, "web-") {
			return fmt.Errorf("the Lease is held by %v", holder)
		}
		lock, err := cluster.Client().CoreV1().ConfigMaps(namespace).Get(ctx, "db-lock", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if owners := lock.OwnerReferences; len(owners) != 1 || !strings.HasPrefix(owners[0].Name, "db-") {
			return fmt.Errorf("the ConfigMap is owned by %v", owners)
		}
		return nil
	})
	kubectl("", "rollout", "status", "deployment/web", "statefulset/db", "--timeout", "2m")
	if diff := cmp.Diff(injected, plugin(injected, "inject", "--image", "elector:other")); diff != "" {
		t.Errorf("injected twice, it is something else:\n%s", diff)
	}

	original := plugin(injected, "uninject", "--rbac")
	kubectl(injected, "delete", "role,rolebinding", "-l", "app.kubernetes.io/managed-by=elector")
	kubectl(original, "apply", "-f", "-")
	cluster.Eventually(t, "pods without a sidecar", func(ctx context.Context) error {
		pods, err := cluster.Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(pods.Items) != 4 {
			return fmt.Errorf("there are %d pods", len(pods.Items))
		}
		for _, pod := range pods.Items {
			if len(pod.Spec.InitContainers) > 0 || pod.Labels["elector.io/injected"] != "" || pod.Annotations["elector.io/status"] != "" {
				return fmt.Errorf("pod %s has something of elector's", pod.Name)
			}
		}
		return nil
	})
	// What the server stores of the original it stores of what came out, too.
	kubectl(shop, "diff", "-f", "-")
}
