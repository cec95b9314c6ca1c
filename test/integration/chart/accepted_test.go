//go:build integration

package chart

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// foreign are the definitions of resources that are not Kubernetes' own, as their projects publish them. Nothing of those is linked or
// kept here; the sums are those of go.sum.
var foreign = []struct {
	module, sum, dir string
	files            []string
}{
	{
		module: "github.com/cert-manager/cert-manager@v1.21.2", sum: "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=", dir: "deploy/crds",
		files: []string{"cert-manager.io_certificates.yaml", "cert-manager.io_issuers.yaml"},
	},
	{
		module: "github.com/prometheus-operator/prometheus-operator@v0.85.0", sum: "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=", dir: "example/prometheus-operator-crd",
		files: []string{
			"monitoring.coreos.com_podmonitors.yaml", "monitoring.coreos.com_servicemonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml",
		},
	},
}

// defineForeign installs the definitions and waits until they count.
func defineForeign(t *testing.T) {
	t.Helper()
	for _, f := range foreign {
		out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", f.module).Output()
		if err != nil {
			t.Fatalf("go mod download %s: %v\n%s", f.module, err, out)
		}
		var module struct{ Dir, Sum string }
		if err := json.Unmarshal(out, &module); err != nil {
			t.Fatal(err)
		}
		if module.Sum != f.sum {
			t.Fatalf("%s is %s, not %s", f.module, module.Sum, f.sum)
		}
		args := []string{"apply", "--server-side"}
		for _, file := range f.files {
			args = append(args, "-f", filepath.Join(module.Dir, f.dir, file))
		}
		kubectl(t, "", args...)
	}
	kubectl(t, "", "wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")
}

// Everything the chart renders of the goldens' values is accepted: no unknown field, no value out of range, no warning, and pods that
// satisfy Pod Security's level restricted.
func TestAccepted(t *testing.T) {
	t.Parallel()
	defineForeign(t)
	paths, err := filepath.Glob(filepath.Join("..", "..", "chart", "testdata", "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens found: %v", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			values := filepath.Join(t.TempDir(), archive.Files[0].Name)
			if err := os.WriteFile(values, archive.Files[0].Data, 0o600); err != nil {
				t.Fatal(err)
			}
			// Pods of the host's network are privileged in the eyes of Pod Security.
			onHost := name == "host-network"
			labels := restricted
			if onHost {
				labels = nil
			}
			own := "accepts-" + name
			newNamespace(t, own, labels)
			rendered := helm(t, "template", "elector", cluster.Chart(), "--namespace", own, "--values", values)
			// Pods need their ServiceAccounts; one is the user's.
			accounts := only(rendered, "ServiceAccount") + "\n---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: theirs, namespace: " + own + "}}"
			kubectl(t, accounts, "apply", "-f", "-")
			kubectl(t, rendered, "apply", "--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-")
			var deployment appsv1.Deployment
			if err := yaml.UnmarshalStrict([]byte(only(rendered, "Deployment")), &deployment); err != nil {
				t.Fatal(err)
			}
			if err := createPod(t.Context(), own, deployment.Spec.Template); err != nil {
				t.Errorf("a pod of the manager is refused: %v", err)
			}
			if onHost {
				newNamespace(t, own+"-restricted", restricted)
				kubectl(t, strings.ReplaceAll(accounts, "namespace: "+own, "namespace: "+own+"-restricted"), "apply", "-f", "-")
				err := createPod(t.Context(), own+"-restricted", deployment.Spec.Template)
				if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
					t.Errorf("a pod with hostNetwork in a restricted namespace: %v", err)
				}
			}
		})
	}
}

// only returns the rendered objects of a kind.
func only(rendered, kind string) string {
	var found []string
	for document := range strings.SplitSeq(rendered, "\n---\n") {
		if strings.Contains("\n"+document, "\nkind: "+kind+"\n") {
			found = append(found, document)
		}
	}
	return strings.Join(found, "\n---\n")
}

// createPod creates, by a dry run, a pod of a template.
func createPod(ctx context.Context, namespace string, template corev1.PodTemplateSpec) error {
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name = "a"
	_, err := cluster.Client().CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}
