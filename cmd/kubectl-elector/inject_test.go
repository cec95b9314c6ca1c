package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// future is a field that no version of our API types has.
const future = "\nfuture: [{x: 1.50}]\n"

// TestGoldens runs the webhook's goldens through inject, and back through uninject: both add to a pod, refuse and warn of the same.
func TestGoldens(t *testing.T) {
	paths, err := filepath.Glob("../../inject/testdata/pod/*.txtar")
	if err != nil || len(paths) < 50 {
		t.Fatalf("%d goldens, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			golden := read1(t, path)
			options := inject.Options{Image: "ghcr.io/elector-io/elector:v1", ImagePullPolicy: corev1.PullIfNotPresent, Version: "v1"}
			if err := yaml.Unmarshal([]byte(golden["options.yaml"]), &options); err != nil {
				t.Fatal(err)
			}
			input := golden["input.yaml"] + future
			out, warnings, err := run(input, func(p *plugin, f *files) error { return p.inject(f, options, false) })
			if diff := cmp.Diff(golden["warnings.txt"], warnings); diff != "" && err == nil {
				t.Errorf("warnings (-webhook +inject):\n%s", diff)
			}
			if denied := golden["denied.txt"]; denied != "" {
				if err == nil || out != "" || !strings.HasSuffix(err.Error(), ": "+strings.TrimSpace(denied)) {
					t.Errorf("the webhook refuses it\n%sand inject says\n%v\n%s", denied, err, out)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the webhook's", golden["output.yaml"], out)
			if !strings.HasSuffix(out, future) && !strings.HasSuffix(out, "\nfuture: [{x: 1.50}]\nstatus: {}\n") {
				t.Errorf("the unknown field was changed:\n%s", out)
			}
			twice, _, err := run(out, func(p *plugin, f *files) error { return p.inject(f, options, false) })
			if diff := cmp.Diff(out, twice); diff != "" || err != nil {
				t.Errorf("injected twice: %v\n%s", err, diff)
			}
			back, _, err := run(out, func(p *plugin, f *files) error { return p.uninject(f, false) })
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(back, future) {
				t.Errorf("the unknown field was changed on the way back:\n%s", back)
			}
			if inexact[strings.TrimSuffix(filepath.Base(path), ".txtar")] == "" {
				same(t, "the original", golden["input.yaml"], back)
			}
		})
	}
}

// inexact are those of which uninject makes something else than they were, and why.
var inexact = map[string]string{
	"already-injected":    "it had a sidecar before",
	"app-has-some":        "the app sets variables itself",
	"copied-annotation":   "the status was no sidecar's",
	"copied-pod":          "it had a sidecar before",
	"everything-injected": "it had a sidecar before",
	"injected-stripped":   "it had a sidecar before",
	"role-in-template":    "the label had no effect",
}

// same compares pods as the API server reads them.
func same(t *testing.T, what, want, got string) {
	t.Helper()
	var w, g corev1.Pod
	if err := yaml.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	if !equality.Semantic.DeepEqual(w, g) {
		t.Errorf("it is not %s (-want +got):\n%s", what, cmp.Diff(asJSON(t, w), asJSON(t, g)))
	}
}

func asJSON(t *testing.T, pod corev1.Pod) string {
	t.Helper()
	text, err := json.MarshalIndent(pod, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func read1(t *testing.T, path string) map[string]string {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range archive.Files {
		all[f.Name] = string(f.Data)
	}
	return all
}

// run calls a command with the input, and returns its warnings as the webhook's are.
func run(input string, call func(*plugin, *files) error) (out, warnings string, err error) {
	var stdout, stderr bytes.Buffer
	p := &plugin{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(input), Out: &stdout, ErrOut: &stderr},
		flags:     genericclioptions.NewConfigFlags(false),
	}
	err = call(p, &files{names: []string{"-"}})
	var said strings.Builder
	for line := range strings.Lines(stderr.String()) {
		_, warning, _ := strings.Cut(line, ": elector.io: ")
		said.WriteString("elector.io: " + warning)
	}
	return stdout.String(), said.String(), err
}

func TestSidecarImage(t *testing.T) {
	for version, want := range map[string]string{
		"v0.1.0": "ghcr.io/elector-io/elector:v0.1.0", "v1.20.3-rc.1": "ghcr.io/elector-io/elector:v1.20.3-rc.1",
		"dev": "", "v0.1.0-5-g0123456789ab": "", "v0.1.0-dirty": "", "f0b57c2": "", "": "",
	} {
		if got := sidecarImage(version); got != want {
			t.Errorf("the image of %q is %q, want %q", version, got, want)
		}
	}
}

// TestChart holds that what nobody chose is what the chart would have chosen.
func TestChart(t *testing.T) {
	text, err := os.ReadFile("../../charts/elector/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type sidecar struct {
		Image                                           struct{ Repository, Digest, PullPolicy string }
		Mode, LeaseDuration, RenewDeadline, RetryPeriod string
		LogLevel                                        int
		Resources                                       struct{ Requests, Limits map[string]string }
		GuaranteedCPU                                   string
	}
	var values struct{ Sidecar sidecar }
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	var want sidecar
	want.Image.Repository = sidecarRepository
	defaults := elector.DefaultSettings()
	want.Mode, want.LeaseDuration, want.RenewDeadline, want.RetryPeriod = string(defaults.Mode), defaults.LeaseDuration.String(), defaults.RenewDeadline.String(), defaults.RetryPeriod.String()
	want.Resources.Requests = map[string]string{"cpu": inject.DefaultCPURequest, "memory": inject.DefaultMemoryRequest}
	want.Resources.Limits = map[string]string{"memory": inject.DefaultMemoryLimit}
	want.GuaranteedCPU = inject.DefaultGuaranteedCPU
	if diff := cmp.Diff(want, values.Sidecar); diff != "" {
		t.Errorf("(-inject +chart):\n%s", diff)
	}
}
