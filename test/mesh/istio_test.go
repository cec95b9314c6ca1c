package mesh

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	istio "istio.io/istio/pkg/kube/inject"

	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	meshdefaults "istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/mesh/meshwatcher"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// istioInjector is istiod's admission webhook as it is, with the configuration that Istio's chart makes by default.
func istioInjector(t *testing.T) http.Handler {
	t.Helper()
	// Else it asks a cluster what its nodes can. The annotation sidecar.istio.io/nativeSidecar chooses for each pod.
	features.EnableNativeSidecars = features.NativeSidecarModeDisabled
	config, values := istioConfig(t)
	mux := http.NewServeMux()
	if _, err := istio.NewWebhook(istio.WebhookParameters{
		Watcher: fixed{config, values}, Mux: mux,
		Env: &model.Environment{Watcher: meshwatcher.NewTestWatcher(meshdefaults.DefaultMeshConfig())},
	}); err != nil {
		t.Fatal("making Istio's webhook:", err)
	}
	return mux
}

// istioConfig renders the injector's ConfigMap with the chart of the module's own version.
func istioConfig(t *testing.T) (*istio.Config, string) {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio").Output()
	if err != nil {
		t.Fatal("looking for Istio's chart:", err)
	}
	chart := filepath.Join(strings.TrimSpace(string(dir)), "manifests", "charts", "istio-control", "istio-discovery")
	command := cluster.Helm(t.Context(), "template", "istiod", chart, "--namespace", "istio-system", "--show-only", "templates/istiod-injector-configmap.yaml")
	manifest, err := command.Output()
	if err != nil {
		failed, _ := errors.AsType[*exec.ExitError](err)
		t.Fatalf("rendering Istio's chart: %v\n%s", err, failed.Stderr)
	}
	var cm corev1.ConfigMap
	if err := yaml.Unmarshal(manifest, &cm); err != nil {
		t.Fatal("reading Istio's configuration:", err)
	}
	config, err := istio.UnmarshalConfig([]byte(cm.Data["config"]))
	if err != nil {
		t.Fatal("reading Istio's configuration:", err)
	}
	return &config, cm.Data["values"]
}

// fixed is a configuration that does not change.
type fixed struct {
	config *istio.Config
	values string
}

func (fixed) SetHandler(func(*istio.Config, string) error) {}
func (fixed) Run(<-chan struct{})                          {}
func (f fixed) Get() (*istio.Config, string, error) {
	if len(f.config.RawTemplates) == 0 {
		return nil, "", fmt.Errorf("Istio's configuration has no templates: %v", f.config)
	}
	return f.config, f.values, nil
}
