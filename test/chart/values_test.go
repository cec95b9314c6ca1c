package chart

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func readChart(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(sources(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A value of values.yaml.
type value struct {
	key, fallback, text string
}

// section is a part of values.yaml, below a comment that begins with two #.
type section struct {
	title  string
	values []value
}

var heading = regexp.MustCompile(`(?m)^## (.+)\n?`)

// parseValues reads values.yaml with its comments. A comment belongs to the key below it; that of a map goes to the map's first key.
func parseValues(t *testing.T) []section {
	t.Helper()
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(readChart(t, "values.yaml"), &document); err != nil {
		t.Fatal(err)
	}
	var sections []section
	root := document.Content[0]
	for i := 0; i < len(root.Content); i += 2 {
		comment := root.Content[i].HeadComment
		if i == 0 {
			comment = document.HeadComment + "\n" + comment
		}
		if m := heading.FindStringSubmatch(comment); m != nil {
			sections = append(sections, section{title: m[1]})
			comment = comment[strings.Index(comment, m[0])+len(m[0]):]
		}
		if len(sections) == 0 {
			t.Fatalf("%s belongs to no section", root.Content[i].Value)
		}
		last := &sections[len(sections)-1]
		last.values = append(last.values, flatten(t, root.Content[i].Value, comment, root.Content[i+1])...)
	}
	return sections
}

// whole are maps with defaults of which a user replaces more than single values.
var whole = []string{"resources", "podSecurityContext", "securityContext", "grafanaDashboard.labels"}

func flatten(t *testing.T, key, comment string, node *yamlv3.Node) []value {
	t.Helper()
	text := strings.Join(strings.Fields(strings.ReplaceAll("\n"+comment, "\n#", " ")), " ")
	if node.Kind == yamlv3.MappingNode && len(node.Content) > 0 && !slices.Contains(whole, key) {
		var all []value
		for i := 0; i < len(node.Content); i += 2 {
			all = append(all, flatten(t, key+"."+node.Content[i].Value, node.Content[i].HeadComment, node.Content[i+1])...)
		}
		all[0].text = strings.TrimSpace(text + " " + all[0].text)
		return all
	}
	var fallback any
	if err := node.Decode(&fallback); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(fallback)
	if err != nil {
		t.Fatal(err)
	}
	return []value{{key: key, fallback: string(data), text: text}}
}

// table is the README's table of values.
func table(sections []section) string {
	var b bytes.Buffer
	for _, s := range sections {
		b.WriteString("\n### " + s.title + "\n\n| Key | Default | |\n|---|---|---|\n")
		for _, v := range s.values {
			b.WriteString("| `" + v.key + "` | `" + v.fallback + "` | " + strings.ReplaceAll(v.text, "|", `\|`) + " |\n")
		}
	}
	return b.String()
}

// The README's table of values is what values.yaml says.
func TestReadme(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- Made from values.yaml by `go test ./test/chart -run TestReadme -update`. -->\n", "\n<!-- End of what is made. -->\n"
	readme := string(readChart(t, "README.md"))
	before, rest, ok := strings.Cut(readme, begin)
	if !ok {
		t.Fatal("the README has no place for the values")
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatal("the README's values have no end")
	}
	want := before + begin + table(parseValues(t)) + end + after
	if *update {
		if err := os.WriteFile(filepath.Join(sources(t), "README.md"), []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, readme); diff != "" {
		t.Errorf("the README is not what values.yaml says, -want +got (-update rewrites it):\n%s", diff)
	}
}

// schema is what the tests need of a JSON schema.
type schema struct {
	Ref                  string            `json:"$ref"`
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties json.RawMessage   `json:"additionalProperties"`
	Definitions          map[string]schema `json:"definitions"`
	Items                *schema           `json:"items"`
}

func readSchema(t *testing.T) schema {
	t.Helper()
	var s schema
	if err := json.Unmarshal(readChart(t, "values.schema.json"), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// resolve follows a reference.
func (s schema) resolve(root schema) schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		return root.Definitions[name]
	}
	return s
}

// Every value has a default and a place in the schema, and the schema has no others.
func TestSchemaKnowsValues(t *testing.T) {
	t.Parallel()
	var values map[string]any
	if err := yaml.Unmarshal(readChart(t, "values.yaml"), &values); err != nil {
		t.Fatal(err)
	}
	root := readSchema(t)
	var compare func(path string, s schema, values map[string]any)
	compare = func(path string, s schema, values map[string]any) {
		s = s.resolve(root)
		for key, v := range values {
			property, ok := s.Properties[key]
			if !ok {
				t.Errorf("%s%s is not in the schema", path, key)
			}
			if nested, ok := v.(map[string]any); ok && len(nested) > 0 && !slices.Contains(whole, path+key) {
				compare(path+key+".", property, nested)
			}
		}
		for key := range s.Properties {
			if _, ok := values[key]; !ok {
				t.Errorf("%s%s is in the schema alone", path, key)
			}
		}
		if string(s.AdditionalProperties) != "false" && path != "global." {
			t.Errorf("%s: misspelled keys would be accepted", path)
		}
	}
	compare("", root, values)
}

// Where values are parts of Kubernetes objects, the schema knows all of their fields, and no others.
func TestSchemaKnowsKubernetes(t *testing.T) {
	t.Parallel()
	root := readSchema(t)
	tests := map[string]any{
		"resources":                corev1.ResourceRequirements{},
		"podSecurityContext":       corev1.PodSecurityContext{},
		"securityContext":          corev1.SecurityContext{},
		"affinity":                 corev1.Affinity{},
		"toleration":               corev1.Toleration{},
		"topologySpreadConstraint": corev1.TopologySpreadConstraint{},
		"labelSelector":            metav1.LabelSelector{},
		"envVar":                   corev1.EnvVar{},
		"peers":                    []networkingv1.NetworkPolicyPeer{},
	}
	for name, of := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			definition, ok := root.Definitions[name]
			if !ok {
				t.Fatal("the schema has no such definition")
			}
			compareFields(t, root, name, definition, reflect.TypeOf(of))
		})
	}
}

func compareFields(t *testing.T, root schema, path string, s schema, of reflect.Type) {
	t.Helper()
	s = s.resolve(root)
	switch of.Kind() {
	case reflect.Pointer:
		compareFields(t, root, path, s, of.Elem())
	case reflect.Slice:
		if s.Items != nil {
			compareFields(t, root, path+"[]", *s.Items, of.Elem())
		}
	case reflect.Struct:
		if s.Properties == nil {
			return // left to the API server
		}
		fields := map[string]reflect.Type{}
		for f := range of.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields[name] = f.Type
		}
		if got, want := slices.Sorted(maps.Keys(s.Properties)), slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
			t.Errorf("%s\nin the schema   %v\nin Kubernetes   %v", path, got, want)
		}
		for name, field := range fields {
			compareFields(t, root, path+"."+name, s.Properties[name], field)
		}
	default: // has no fields
	}
}

// What Artifact Hub shows are the images that the chart installs.
func TestArtifactHub(t *testing.T) {
	t.Parallel()
	var chart struct {
		AppVersion  string
		Annotations map[string]string
	}
	if err := yaml.Unmarshal(readChart(t, "Chart.yaml"), &chart); err != nil {
		t.Fatal(err)
	}
	var images []struct{ Name, Image string }
	if err := yaml.UnmarshalStrict([]byte(chart.Annotations["artifacthub.io/images"]), &images); err != nil {
		t.Fatal(err)
	}
	var changes []struct{ Kind, Description string }
	if err := yaml.UnmarshalStrict([]byte(chart.Annotations["artifacthub.io/changes"]), &changes); err != nil || len(changes) == 0 {
		t.Errorf("changes: %v, %v", changes, err)
	}
	var links []struct{ Name, URL string }
	if err := yaml.UnmarshalStrict([]byte(chart.Annotations["artifacthub.io/links"]), &links); err != nil || len(links) == 0 {
		t.Errorf("links: %v, %v", links, err)
	}
	var values struct {
		Image   struct{ Repository string }
		Sidecar struct{ Image struct{ Repository string } }
	}
	if err := yaml.Unmarshal(readChart(t, "values.yaml"), &values); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range images {
		got = append(got, i.Image)
	}
	want := []string{values.Image.Repository + ":" + chart.AppVersion, values.Sidecar.Image.Repository + ":" + chart.AppVersion}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("artifacthub.io/images, -want +got:\n%s", diff)
	}
}
