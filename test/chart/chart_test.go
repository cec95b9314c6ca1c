package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/test/embedded"
)

var update = flag.Bool("update", false, "rewrite the goldens and the README's table of values")

// Where everything is installed.
const (
	release          = "elector"
	releaseNamespace = "elector-system"
)

// sources returns the chart's directory. It looks at every file in it: Helm reads them, and this way `go test` knows when what it has
// cached is out of date.
func sources(t *testing.T) string {
	t.Helper()
	root, err := embedded.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "charts", "elector")
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, err = os.Stat(path)
		return err
	}); err != nil {
		t.Fatal("looking at the chart:", err)
	}
	return dir
}

// helmPath returns where Helm is.
func helmPath(t *testing.T) string {
	t.Helper()
	root, err := embedded.Root()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(root, "bin", "cluster")
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		t.Skip("there is no Helm without the embedded cluster: make bin/cluster")
	}
	out, err := exec.CommandContext(t.Context(), program, "bin-path", "helm").Output()
	if err != nil {
		t.Fatal("looking for Helm:", err)
	}
	return strings.TrimSpace(string(out))
}

// helm runs Helm, with directories of its own, and returns what it says.
func helm(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	home := t.TempDir()
	var out, diagnostics bytes.Buffer
	cmd := exec.CommandContext(t.Context(), helmPath(t), args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	err = cmd.Run()
	return out.String(), diagnostics.String(), err
}

// render returns what the chart makes of a values file.
func render(t *testing.T, values string) string {
	t.Helper()
	out, diagnostics, err := helm(t, "template", release, sources(t), "--namespace", releaseNamespace, "--values", values)
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, diagnostics)
	}
	return out
}

// The files of a golden.
const (
	valuesFile   = "values.yaml"
	renderedFile = "rendered.yaml"
)

// golden is a values file and what is rendered of it.
type golden struct {
	path    string
	archive *txtar.Archive
	values  string // a file of its own
}

// goldens returns all of testdata by name.
func goldens(t *testing.T) map[string]golden {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens found: %v", err)
	}
	all := map[string]golden{}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		values := filepath.Join(t.TempDir(), valuesFile)
		if err := os.WriteFile(values, archived(archive, valuesFile), 0o600); err != nil {
			t.Fatal(err)
		}
		all[name] = golden{path: path, archive: archive, values: values}
	}
	return all
}

func archived(archive *txtar.Archive, name string) []byte {
	for _, f := range archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// abridge puts names in the place of the files that the chart contains whole, and leaves out what differs between versions of Helm.
func abridge(t *testing.T, rendered string) string {
	t.Helper()
	for name, indent := range map[string]string{"alerts.yaml": "  ", "dashboard.json": "    "} {
		data, err := os.ReadFile(filepath.Join(sources(t), "files", name))
		if err != nil {
			t.Fatal(err)
		}
		text := indent + strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", "\n"+indent)
		rendered = strings.ReplaceAll(rendered, text, indent+"(files/"+name+")")
	}
	// Lines that are empty but for the indentation of what is not rendered.
	rendered = regexp.MustCompile(`(?m)[ \t]+$`).ReplaceAllString(rendered, "")
	// Helm 3 puts no empty lines between objects, and some in another order.
	objects := regexp.MustCompile(`\n+---\n`).Split(strings.TrimPrefix(strings.TrimSpace(rendered), "---\n"), -1)
	slices.Sort(objects)
	return strings.Join(objects, "\n---\n") + "\n"
}

func TestRender(t *testing.T) {
	t.Parallel()
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rendered := render(t, g.values)
			if again := render(t, g.values); again != rendered {
				t.Errorf("a second time something else is rendered:\n%s", cmp.Diff(rendered, again))
			}
			got := abridge(t, rendered)
			if *update {
				g.archive.Files = []txtar.File{{Name: valuesFile, Data: archived(g.archive, valuesFile)}, {Name: renderedFile, Data: []byte(got)}}
				if err := os.WriteFile(g.path, txtar.Format(g.archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(archived(g.archive, renderedFile)), got); diff != "" {
				t.Errorf("%s, -want +got (-update rewrites it):\n%s", g.path, diff)
			}
		})
	}
}

// GitOps tools render charts again and again, without a cluster: nothing may come from chance, the clock or the cluster.
func TestNothingButValues(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`\b(lookup|rand[A-Z]\w*|gen[A-Z]\w*|now|uuidv4|shuffle|getHostByName|derivePassword|htpasswd|bcrypt)\b`)
	action := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	templates := os.DirFS(filepath.Join(sources(t), "templates"))
	if err := fs.WalkDir(templates, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(templates, path)
		for _, a := range action.FindAll(data, -1) {
			if !bytes.HasPrefix(a, []byte("{{/*")) && forbidden.Match(a) {
				t.Errorf("%s: %s", path, a)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, diagnostics, err := helm(t, "lint", "--strict", sources(t), "--values", g.values); err != nil {
				t.Errorf("helm lint: %v\n%s%s", err, out, diagnostics)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		set    string
		want   string
		reason string
	}{
		"misspelled":            {"replica=3", "at '': additional properties 'replica' not allowed", "it would do nothing"},
		"misspelled in section": {"webhook.failPolicy=Fail", "at '/webhook': additional properties 'failPolicy' not allowed", "it would do nothing"},
		"misspelled resources":  {"resources.limit.memory=1Gi", "at '/resources': additional properties 'limit' not allowed", "it would do nothing"},
		"misspelled security":   {"securityContext.runAsNonroot=true", "at '/securityContext': additional properties 'runAsNonroot' not allowed", "it would do nothing"},
		"misspelled toleration": {"tolerations[0].operater=Exists", "at '/tolerations/0': additional properties 'operater' not allowed", "it would do nothing"},
		"misspelled selector":   {"webhook.namespaceSelector.matchlabels.a=b", "at '/webhook/namespaceSelector': additional properties 'matchlabels' not allowed", "it would select everything"},
		"sidecar's CPU limit":   {"sidecar.resources.limits.cpu=1", "at '/sidecar/resources/limits': additional properties 'cpu' not allowed", "a throttled renewal loses the lease"},
		"text for number":       {"replicas=two", "at '/replicas': got string, want integer", "types are checked"},
		"number for text":       {"podAnnotations.a=1", "at '/podAnnotations/a': got number, want string", "the API server would refuse it later"},
		"no replica":            {"replicas=0", "at '/replicas': minimum: got 0, want 1", "nobody would answer"},
		"pull policy":           {"image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'", "words are checked"},
		"failure policy":        {"webhook.failurePolicy=fail", "value must be one of 'Fail', 'Ignore'", "words are checked"},
		"certificate mode":      {"certificate.mode=vault", "value must be one of 'self', 'cert-manager', 'secret'", "words are checked"},
		"digest":                {"image.digest=sha256:1", "at '/image/digest': 'sha256:1' does not match pattern", "it could not be pulled"},
		"tag with digest":       {"image.tag=v1@sha256:1", "at '/image/tag': 'v1@sha256:1' does not match pattern", "there is a value for it"},
		"duration":              {"drain=5", "at '/drain': got number, want string", "durations have a unit"},
		"no image":              {"image=null", "at '': missing property 'image'", "there must be one"},
		"PDB of nothing":        {"podDisruptionBudget.maxUnavailable=0", "minimum: got 0, want 1", "no node could be drained"},

		"forbidden default mode":     {"sidecar.mode=leader-for-life,leaderForLife.enabled=false", `sidecar.mode "leader-for-life" is not allowed: leaderForLife.enabled is false`, "all workloads without an annotation would be denied"},
		"sidecar's memory too small": {"sidecar.resources.limits.memory=8Mi", `sidecar.resources.limits.memory "8Mi" is not allowed: it must be at least 16Mi`, "as the manager says"},
		"request above limit":        {"sidecar.resources.requests.memory=0.1G", `sidecar.resources.requests.memory "0.1G" is not allowed: it must be at most the limit (64Mi)`, "as the manager says"},
		"sidecar's CPU too much":     {"sidecar.guaranteedCPU=1.5", `sidecar.guaranteedCPU "1.5" is not allowed: it must be at most 1`, "as the manager says"},
		"CA too short":               {"certificate.caLifetime=300h", `certificate.caLifetime "300h" is not allowed: it must be at least three times certificate.lifetime (168h)`, "as the manager says"},
		"certificate too short":      {"certificate.lifetime=5s", `certificate.lifetime "5s" is not allowed: it must be at least 10s`, "as the manager says"},
		"cert-manager's too short":   {"certificate.mode=cert-manager,certificate.lifetime=59m", `certificate.lifetime "59m" is not allowed: cert-manager makes none for less than 1h`, "cert-manager's own webhook would refuse it"},
		"caBundle in mode self":      {"certificate.caBundle=-----BEGIN CERTIFICATE-----", `certificate.caBundle "..." is not allowed: in certificate.mode self something else writes it; it is for mode secret`, "two writers"},
		"issuer in mode self":        {"certificate.issuerRef.name=a", `certificate.issuerRef "{\"name\":\"a\"}" is not allowed: certificate.mode is self; it is for mode cert-manager`, "it would do nothing"},
		"drain too long":             {"drain=1m", `terminationGracePeriodSeconds "30" is not allowed: it must be at least drain (1m) and 15s`, "the kubelet would kill a replica that serves"},
		"ports the same":             {"ports.health=8080", `ports "9443 8080 8080" is not allowed: use three different ones`, "the manager could not start"},
		"policy on the host":         {"hostNetwork=true,networkPolicy.enabled=true", `networkPolicy.enabled "true" is not allowed: network policies do not count for pods with hostNetwork`, "it would look like protection"},
		"scraped twice":              {"podMonitor.enabled=true,serviceMonitor.enabled=true", `serviceMonitor.enabled "true" is not allowed: podMonitor.enabled is true, and everything would be counted twice`, "sums would be wrong"},
		"nobody's account":           {"serviceAccount.create=false", `serviceAccount.create "false" is not allowed: give serviceAccount.name, the one to use`, "the namespace's default account would get the permissions"},
		"own label":                  {`podLabels.app\.kubernetes\.io/name=web`, `podLabels.app.kubernetes.io/name "web" is not allowed: the chart sets this label`, "the Service would select nothing"},
		"annotated manager":          {`podAnnotations.elector\.io/enabled=yes`, `podAnnotations.elector.io/enabled "yes" is not allowed: the manager gets no sidecar, since it would wait for itself to start`, "it would do nothing"},
		"annotated Deployment":       {`deploymentAnnotations.elector\.io/mode=lease`, `deploymentAnnotations.elector.io/mode "lease" is not allowed: the manager gets no sidecar, since it would wait for itself to start`, "it would do nothing"},
		"annotated everything":       {`commonAnnotations.elector\.io/enabled=yes`, `commonAnnotations.elector.io/enabled "yes" is not allowed: the manager gets no sidecar, since it would wait for itself to start`, "it would do nothing"},
		"manager as a candidate":     {`podLabels.elector\.io/injected=yes`, `podLabels.elector.io/injected "yes" is not allowed: the manager gets no sidecar, since it would wait for itself to start`, "it would be granted a lock"},
		"lock's name":                {"extraArgs={--v=1,--lock=other}", `extraArgs "--lock=other" is not allowed: use fullnameOverride, the chart's other objects know this name`, "the policies would deny the manager its Lease for ever"},
		"Service's name":             {"extraArgs={--service=other}", `extraArgs "--service=other" is not allowed: use fullnameOverride, the chart's other objects know this name`, "the API server would call nobody"},
		"webhook's name":             {"extraArgs={--webhook-configuration=other}", `extraArgs "--webhook-configuration=other" is not allowed: use fullnameOverride, the chart's other objects know this name`, "the policies would deny the manager its caBundle for ever"},
		"Secret's name":              {"extraArgs={--certificate-secret=other}", `extraArgs "--certificate-secret=other" is not allowed: use certificate.secretName, the chart's other objects know this name`, "the manager may not read it"},
		"namespace's name":           {"extraArgs={--namespace}", `extraArgs "--namespace" is not allowed: use helm's own --namespace, the chart's other objects know this name`, "its value may be the next argument"},
		"own label on all":           {`commonLabels.helm\.sh/chart=web`, `commonLabels.helm.sh/chart "web" is not allowed: the chart sets this label`, "it would do nothing"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, diagnostics, err := helm(t, "template", release, sources(t), "--set", test.set)
			if err == nil {
				t.Fatalf("--set %s is accepted: %s", test.set, test.reason)
			}
			if !strings.Contains(diagnostics, test.want) {
				t.Errorf("--set %s is refused with\n%s\nwithout %q", test.set, diagnostics, test.want)
			}
		})
	}
}

// What looks like a contradiction and is none.
func TestAccepted(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"quantities as numbers": "sidecar.resources.limits.memory=67108864,sidecar.guaranteedCPU=0.5",
		"composite durations":   "sidecar.leaseDuration=1m30s,sidecar.renewDeadline=1m29.5s,drain=14s999ms",
		"another chart's value": "global.storageClass=fast",
		"half of the replicas":  "podDisruptionBudget.maxUnavailable=50%",
		"nothing selected":      "nodeSelector=null,commonLabels=null,podAnnotations=null,topologySpreadConstraints=null,imagePullSecrets=null,global=null",
	}
	for name, set := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, diagnostics, err := helm(t, "template", release, sources(t), "--set", set); err != nil {
				t.Errorf("--set %s: %v\n%s", set, err, diagnostics)
			}
		})
	}
}

// documents returns the rendered objects of a kind.
func documents[T any](t *testing.T, rendered, kind string) []T {
	t.Helper()
	var found []T
	for document := range strings.SplitSeq(rendered, "\n---\n") {
		var typed struct{ Kind string }
		if err := yaml.Unmarshal([]byte(document), &typed); err != nil {
			t.Fatal(err)
		}
		if typed.Kind != kind {
			continue
		}
		var object T
		if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		found = append(found, object)
	}
	return found
}

// Without leader-for-life the manager may do nothing to ConfigMaps.
func TestForbiddenLeaderForLife(t *testing.T) {
	t.Parallel()
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rendered := render(t, g.values)
			var rules []rbacv1.PolicyRule
			for _, role := range documents[rbacv1.ClusterRole](t, rendered, "ClusterRole") {
				rules = append(rules, role.Rules...)
			}
			for _, role := range documents[rbacv1.Role](t, rendered, "Role") {
				rules = append(rules, role.Rules...)
			}
			granted := slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
				return slices.Contains(r.Resources, "configmaps") || slices.Contains(r.Resources, "*")
			})
			off := strings.Contains(rendered, "--leader-for-life=false")
			if off == granted {
				t.Errorf("leader-for-life forbidden: %t, permissions on ConfigMaps: %t", off, granted)
			}
		})
	}
}

// Whatever the manager may write, an admission policy confines, unless the values say that there are none.
func TestPoliciesCoverRights(t *testing.T) {
	t.Parallel()
	operations := map[string]admissionregistrationv1.OperationType{
		"create": admissionregistrationv1.Create, "update": admissionregistrationv1.Update, "patch": admissionregistrationv1.Update,
		"delete": admissionregistrationv1.Delete, "deletecollection": admissionregistrationv1.Delete,
	}
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rendered := render(t, g.values)
			covered := policies(t, rendered)
			for _, rule := range managersRules(t, rendered) {
				for _, verb := range rule.Verbs {
					operation, writes := operations[verb]
					if !writes && !slices.Contains([]string{"get", "list", "watch"}, verb) {
						t.Errorf("no policy can confine the verb %s on %v", verb, rule.Resources)
					}
					for _, group := range rule.APIGroups {
						for _, resource := range rule.Resources {
							if writes && !covered(group, resource, operation) && !strings.Contains(string(archived(g.archive, valuesFile)), "admissionPolicy: {enabled: false}") {
								t.Errorf("no policy is about %s of %s in group %q", operation, resource, group)
							}
						}
					}
				}
			}
		})
	}
}

// policies returns whether some policy, which binds and is about the manager alone, is about an operation on a resource.
func policies(t *testing.T, rendered string) (covered func(group, resource string, operation admissionregistrationv1.OperationType) bool) {
	t.Helper()
	bound := map[string]bool{}
	for _, b := range documents[admissionregistrationv1.ValidatingAdmissionPolicyBinding](t, rendered, "ValidatingAdmissionPolicyBinding") {
		bound[b.Spec.PolicyName] = slices.Equal(b.Spec.ValidationActions, []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny}) && b.Spec.MatchResources == nil
	}
	account := "system:serviceaccount:" + releaseNamespace + ":" + documents[appsv1.Deployment](t, rendered, "Deployment")[0].Spec.Template.Spec.ServiceAccountName
	var rules []admissionregistrationv1.NamedRuleWithOperations
	for _, p := range documents[admissionregistrationv1.ValidatingAdmissionPolicy](t, rendered, "ValidatingAdmissionPolicy") {
		if !bound[p.Name] || *p.Spec.FailurePolicy != admissionregistrationv1.Fail {
			t.Errorf("policy %s does not deny", p.Name)
		}
		if strings.HasSuffix(p.Name, "-marks") {
			continue // about everybody
		}
		want := `request.userInfo.?username.orValue("") == "` + account + `"`
		if len(p.Spec.MatchConditions) != 1 || p.Spec.MatchConditions[0].Expression != want {
			t.Errorf("policy %s is about %v, want %s", p.Name, p.Spec.MatchConditions, want)
		}
		rules = append(rules, p.Spec.MatchConstraints.ResourceRules...)
	}
	return func(group, resource string, operation admissionregistrationv1.OperationType) bool {
		all, _, _ := strings.Cut(resource, "/")
		return slices.ContainsFunc(rules, func(r admissionregistrationv1.NamedRuleWithOperations) bool {
			return slices.Contains(r.APIGroups, group) && (slices.Contains(r.Resources, resource) || slices.Contains(r.Resources, all+"/*")) &&
				(slices.Contains(r.Operations, operation) || slices.Contains(r.Operations, admissionregistrationv1.OperationAll))
		})
	}
}

// managersRules are what the manager's ServiceAccount may do.
func managersRules(t *testing.T, rendered string) (rules []rbacv1.PolicyRule) {
	t.Helper()
	account := documents[appsv1.Deployment](t, rendered, "Deployment")[0].Spec.Template.Spec.ServiceAccountName
	isManager := func(s rbacv1.Subject) bool { return s.Name == account }
	bound := map[string]bool{}
	for _, b := range documents[rbacv1.ClusterRoleBinding](t, rendered, "ClusterRoleBinding") {
		bound["ClusterRole "+b.RoleRef.Name] = slices.ContainsFunc(b.Subjects, isManager)
	}
	for _, b := range documents[rbacv1.RoleBinding](t, rendered, "RoleBinding") {
		bound["Role "+b.RoleRef.Name] = slices.ContainsFunc(b.Subjects, isManager)
	}
	for _, r := range documents[rbacv1.ClusterRole](t, rendered, "ClusterRole") {
		if bound["ClusterRole "+r.Name] {
			rules = append(rules, r.Rules...)
		}
	}
	for _, r := range documents[rbacv1.Role](t, rendered, "Role") {
		if bound["Role "+r.Name] {
			rules = append(rules, r.Rules...)
		}
	}
	if len(rules) == 0 {
		t.Fatal("the manager may do nothing")
	}
	return rules
}

// The Service selects the manager's pods, and the test's pod not: API servers would call it.
func TestServiceSelectsManager(t *testing.T) {
	t.Parallel()
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rendered := render(t, g.values)
			services, deployments := documents[corev1.Service](t, rendered, "Service"), documents[appsv1.Deployment](t, rendered, "Deployment")
			if len(services) != 1 || len(deployments) != 1 {
				t.Fatalf("%d Services and %d Deployments", len(services), len(deployments))
			}
			selected := func(labels map[string]string) bool {
				for key, value := range services[0].Spec.Selector {
					if labels[key] != value {
						return false
					}
				}
				return true
			}
			if !selected(deployments[0].Spec.Template.Labels) {
				t.Error("the Service does not select the manager's pods")
			}
			for _, pod := range documents[corev1.Pod](t, rendered, "Pod") {
				if selected(pod.Labels) {
					t.Errorf("the Service selects pod %s", pod.Name)
				}
			}
		})
	}
}

// A cluster that is too old is refused before anything is installed in it.
func TestKubeVersion(t *testing.T) {
	t.Parallel()
	for version, accepted := range map[string]bool{"1.29.14": false, "1.30.0": true, "1.30.4-gke.1348000": true, "1.36.3": true} {
		_, diagnostics, err := helm(t, "template", release, sources(t), "--kube-version", version)
		if accepted != (err == nil) {
			t.Errorf("Kubernetes %s: %v\n%s", version, err, diagnostics)
		}
	}
}

// What is published is the chart and nothing else that lies about.
func TestPackage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, diagnostics, err := helm(t, "package", sources(t), "--destination", dir); err != nil {
		t.Fatalf("helm package: %v\n%s", err, diagnostics)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "elector-*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("packages: %v, %v", archives, err)
	}
	file, err := os.Open(archives[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for entries := tar.NewReader(unzipped); ; {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if name := strings.TrimPrefix(entry.Name, "elector/"); !strings.HasPrefix(name, "templates/") {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if want := []string{".helmignore", "Chart.yaml", "README.md", "files/alerts.yaml", "files/dashboard.json", "values.schema.json", "values.yaml"}; !slices.Equal(got, want) {
		t.Errorf("the package has %v, want %v", got, want)
	}
}
