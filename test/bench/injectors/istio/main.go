// Command istio is istiod's sidecar injector as a subject of test/bench/injectors: configured as Istio's chart does by default, with the
// chart of the same version. It runs in its own directory and asks Go where that chart is, and bin/cluster for Helm.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/mesh/meshwatcher"
	"istio.io/istio/pkg/kube/inject"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/test/bench/injectors/subject"
)

func main() { os.Exit(subject.Main("/inject", prepare)) }

func prepare(ctx context.Context) (http.Handler, error) {
	injection, err := render(ctx, "istiod-injector-configmap.yaml")
	if err != nil {
		return nil, err
	}
	config, err := inject.UnmarshalConfig([]byte(injection["config"]))
	if err != nil {
		return nil, fmt.Errorf("reading the injector's configuration: %w", err)
	}
	settings, err := render(ctx, "configmap.yaml")
	if err != nil {
		return nil, err
	}
	meshConfig, err := mesh.ApplyMeshConfigDefaults(settings["mesh"])
	if err != nil {
		return nil, fmt.Errorf("reading the mesh's configuration: %w", err)
	}
	// The default is to ask a cluster whether its nodes can, and all that Istio supports can. There is none to ask, nor to watch.
	features.EnableNativeSidecars = features.NativeSidecarModeDisabled
	defer func() { features.EnableNativeSidecars = features.NativeSidecarModeEnabled }()
	mux := http.NewServeMux()
	_, err = inject.NewWebhook(inject.WebhookParameters{
		Watcher: fixed{&config, injection["values"]}, Mux: mux, Env: &model.Environment{Watcher: meshwatcher.NewTestWatcher(meshConfig)},
	})
	return mux, err
}

// render returns the data of the ConfigMap that a template of the chart makes.
func render(ctx context.Context, template string) (map[string]string, error) {
	module, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio")
	if err != nil {
		return nil, fmt.Errorf("looking for Istio's chart: %w", err)
	}
	helm, err := output(ctx, "../../../../bin/cluster", "bin-path", "helm")
	if err != nil {
		return nil, fmt.Errorf("looking for Helm, which `make bin/cluster` brings: %w", err)
	}
	chart := filepath.Join(module, "manifests", "charts", "istio-control", "istio-discovery")
	manifest, err := output(ctx, helm, "template", "istiod", chart, "--namespace", "istio-system", "--show-only", "templates/"+template)
	if err != nil {
		return nil, fmt.Errorf("rendering Istio's chart: %w", err)
	}
	var cm corev1.ConfigMap
	if err := yaml.Unmarshal([]byte(manifest), &cm); err != nil {
		return nil, fmt.Errorf("reading what Istio's chart makes: %w", err)
	}
	return cm.Data, nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%w\n%s", err, failed.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// fixed is a configuration that does not change.
type fixed struct {
	config *inject.Config
	values string
}

func (fixed) SetHandler(func(*inject.Config, string) error) {}
func (fixed) Run(<-chan struct{})                           {}
func (f fixed) Get() (*inject.Config, string, error)        { return f.config, f.values, nil }
