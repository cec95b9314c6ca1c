package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"sigs.k8s.io/yaml"
)

// TestKrew fills in the manifest for kubectl's package manager as its bot does, and looks at what its index wants.
func TestKrew(t *testing.T) {
	text, err := os.ReadFile("../../.krew.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifest := template.New("").Funcs(template.FuncMap{"addURIAndSha": func(uri, tag string) string {
		return "uri: " + strings.ReplaceAll(uri, "{{ .TagName }}", tag) + "\n    sha256: " + strings.Repeat("a", 64)
	}})
	if manifest, err = manifest.Parse(string(text)); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := manifest.Execute(&b, map[string]string{"TagName": "v0.1.0"}); err != nil {
		t.Fatal(err)
	}
	var plugin struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Spec             struct {
			Version, Homepage, ShortDescription, Description string
			Platforms                                        []struct {
				Selector struct{ MatchLabels map[string]string }
				URI      string
				SHA256   string
				Bin      string
			}
		}
	}
	if err := yaml.UnmarshalStrict([]byte(b.String()), &plugin); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if plugin.Metadata.Name != "elector" || plugin.Spec.Version != "v0.1.0" {
		t.Errorf("it is %s %s", plugin.Metadata.Name, plugin.Spec.Version)
	}
	if n := len(plugin.Spec.ShortDescription); n == 0 || n > 50 {
		t.Errorf("the short description has %d characters", n)
	}
	var platforms []string
	for _, p := range plugin.Spec.Platforms {
		platform := p.Selector.MatchLabels["os"] + "-" + p.Selector.MatchLabels["arch"]
		platforms = append(platforms, platform)
		if !strings.HasSuffix(p.URI, "/v0.1.0/kubectl-elector-"+platform+".tar.gz") || len(p.SHA256) != 64 {
			t.Errorf("%s is at %s, %s", platform, p.URI, p.SHA256)
		}
		if want := map[bool]string{false: "kubectl-elector", true: "kubectl-elector.exe"}[p.Selector.MatchLabels["os"] == "windows"]; p.Bin != want {
			t.Errorf("%s has the program %s", platform, p.Bin)
		}
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	made := regexp.MustCompile(`(?m)^PLUGIN_PLATFORMS \?= (.*)$`).FindStringSubmatch(string(makefile))
	if made == nil || !slices.Equal(platforms, strings.Fields(made[1])) {
		t.Errorf("the manifest has %v, and make plugin makes %q", platforms, made)
	}
}
