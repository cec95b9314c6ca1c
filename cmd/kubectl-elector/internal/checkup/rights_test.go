package checkup

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// What is asked for is what the chart gives, with every set of values that has a golden.
func TestNeeds(t *testing.T) {
	t.Parallel()
	goldens, err := filepath.Glob(filepath.Join("..", "..", "..", "..", "test", "chart", "testdata", "*.txtar"))
	if err != nil || len(goldens) == 0 {
		t.Fatal("there are no goldens:", err)
	}
	for _, path := range goldens {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			manager, given := installation(t, path)
			if manager == nil || len(given) == 0 {
				t.Fatal("it has no manager, or no rights")
			}
			asked := needs(manager)
			for _, list := range [][]authorizationv1.ResourceAttributes{asked, given} {
				slices.SortFunc(list, func(a, b authorizationv1.ResourceAttributes) int { return cmp.Compare(a.String(), b.String()) })
			}
			if diff := gocmp.Diff(given, asked); diff != "" {
				t.Errorf("the chart gives -, the check asks for +:\n%s", diff)
			}
		})
	}
}

// The policies that are looked for are the chart's, with every set of values that has a golden with policies.
func TestPolicyNames(t *testing.T) {
	t.Parallel()
	goldens, err := filepath.Glob(filepath.Join("..", "..", "..", "..", "test", "chart", "testdata", "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, path := range goldens {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var given []string
		for _, m := range regexp.MustCompile(`kind: ValidatingAdmissionPolicy\nmetadata:\n  name: (\S+)`).FindAllSubmatch(text, -1) {
			given = append(given, string(m[1]))
		}
		if len(given) == 0 {
			continue
		}
		seen++
		manager, _ := installation(t, path)
		asked := policyNames(manager)
		slices.Sort(given)
		slices.Sort(asked)
		if diff := gocmp.Diff(given, asked); diff != "" {
			t.Errorf("%s: the chart gives -, the check asks for +:\n%s", path, diff)
		}
	}
	if seen < 2 {
		t.Errorf("%d goldens have policies", seen)
	}
}

// installation returns the manager of a golden, and what its roles let it do.
func installation(t *testing.T, path string) (manager *appsv1.Deployment, given []authorizationv1.ResourceAttributes) {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rendered := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "rendered.yaml" })
	if rendered < 0 {
		t.Fatal("nothing is rendered")
	}
	for document := range strings.SplitSeq("\n"+string(archive.Files[rendered].Data), "\n---\n") {
		var role rbacv1.ClusterRole // a Role has the same rules
		if err := yaml.Unmarshal([]byte(document), &role); err != nil {
			t.Fatal(err)
		}
		switch role.Kind {
		case "Deployment":
			manager = new(appsv1.Deployment)
			if err := yaml.Unmarshal([]byte(document), manager); err != nil {
				t.Fatal(err)
			}
		case "Role", "ClusterRole":
			if role.Annotations["helm.sh/hook"] != "" {
				continue // `helm test` has its own
			}
			given = append(given, attributes(role.Namespace, role.Rules)...)
		}
	}
	return manager, given
}

// attributes are the requests that rules allow.
func attributes(namespace string, rules []rbacv1.PolicyRule) (all []authorizationv1.ResourceAttributes) {
	for _, rule := range rules {
		for _, resource := range rule.Resources {
			resource, subresource, _ := strings.Cut(resource, "/")
			for _, verb := range rule.Verbs {
				name := strings.Join(rule.ResourceNames, " ") // of which the chart gives one
				all = append(all, authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: rule.APIGroups[0], Resource: resource, Subresource: subresource, Name: name})
			}
		}
	}
	return all
}
