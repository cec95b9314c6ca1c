// Package mesh holds elector against service meshes: Istio's own injector, and Linkerd's way of inserting, before and after elector's, with
// their proxies as native sidecars and as containers of the app.
//
// TestGoldens keeps what the injectors make of our pods in inject/testdata/mesh, where the ordinary tests of package inject read it, and
// says when Istio makes something else of them. TestRun lets the injectors meet at a real API server, and runs the pods, with programs that
// do nothing in place of the meshes'. Traffic is not redirected: that needs a kernel's tables, see test/e2e.
package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	patches "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	jsonpatch "gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

var (
	update  = flag.Bool("update", false, "write the goldens anew; then run `go test ./inject -update`")
	cluster *embedded.Cluster
)

func TestMain(m *testing.M) {
	os.Exit(embedded.Main(m.Run, embedded.Config{Progress: os.Stdout, Install: true}, &cluster))
}

// A mesh's name and mode are what a pod's label says, and where in the order its webhook is what the namespace's does.
const (
	meshLabel  = "mesh"
	orderLabel = "order"
	nativeMode = "native"
)

var (
	meshes = []string{"istio-native", "istio-classic", "linkerd-native", "linkerd-classic"}
	orders = []string{"first", "last"}
)

// plain is a pod with an init container, and probes that a mesh may rewrite.
func plain(mesh, name string) *corev1.Pod {
	get := func(path string) *corev1.Probe {
		var p corev1.Probe
		if err := yaml.Unmarshal([]byte(`{"httpGet": {"path": "`+path+`", "port": 8080}}`), &p); err != nil {
			panic(err)
		}
		return &p
	}
	_, mode, _ := strings.Cut(mesh, "-")
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "shop", Labels: map[string]string{"app": "web", meshLabel: mesh},
			Annotations: map[string]string{"elector.io/enabled": "true", "elector.io/lock": "web", "sidecar.istio.io/nativeSidecar": fmt.Sprint(mode == nativeMode)},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "web",
			InitContainers:     []corev1.Container{{Name: "migrate", Image: "app:v1", Command: []string{"true"}}},
			Containers:         []corev1.Container{{Name: "app", Image: "app:v1", ReadinessProbe: get("/ready"), LivenessProbe: get("/live")}},
		},
	}
}

// injector is the meshes' webhook: it asks the injector of the pod's mesh.
func injector(t *testing.T) http.Handler {
	t.Helper()
	istio := istioInjector(t)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mesh, mode, _ := strings.Cut(meshOf(body), "-")
		if mesh == "istio" {
			r.Body = io.NopCloser(bytes.NewReader(body))
			istio.ServeHTTP(w, r)
			return
		}
		mutate(w, body, func(pod *corev1.Pod) { linkerd(pod, mode == nativeMode) })
	})
}

func meshOf(review []byte) string {
	var r admissionv1.AdmissionReview
	var pod corev1.Pod
	if json.Unmarshal(review, &r) != nil || r.Request == nil || json.Unmarshal(r.Request.Object.Raw, &pod) != nil {
		return ""
	}
	return pod.Labels[meshLabel]
}

// mutate answers a review with what change makes of its pod.
func mutate(w http.ResponseWriter, body []byte, change func(*corev1.Pod)) {
	var review admissionv1.AdmissionReview
	var pod corev1.Pod
	if err := json.Unmarshal(body, &review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	change(&pod)
	after, err := json.Marshal(&pod)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	operations, err := jsonpatch.CreatePatch(review.Request.Object.Raw, after)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, PatchType: new(admissionv1.PatchTypeJSONPatch)}
	if review.Response.Patch, err = json.Marshal(operations); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(&review) //nolint:errchkjson // the API server may be gone
}

// meshed is what the mesh's injector makes of the pod.
func meshed(t *testing.T, injector http.Handler, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	review := &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request:  &admissionv1.AdmissionRequest{UID: "1", Namespace: pod.Namespace, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}},
	}
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/inject", bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	injector.ServeHTTP(answer, request)
	if err := json.Unmarshal(answer.Body.Bytes(), review); err != nil || review.Response == nil || !review.Response.Allowed {
		t.Fatalf("the mesh's injector answers %d %s: %v", answer.Code, answer.Body, err)
	}
	return patched(t, raw, review.Response.Patch)
}

// TestGoldens compares what a mesh makes of a pod with what inject's tests have as input: of a plain one, if its webhook comes first, and of
// one with our sidecar, if it comes last.
func TestGoldens(t *testing.T) {
	root, err := embedded.Root()
	if err != nil {
		t.Fatal(err)
	}
	injector := injector(t)
	options := inject.Options{Image: "ghcr.io/elector-io/elector:v1", ImagePullPolicy: corev1.PullIfNotPresent, Version: "v1"}
	for _, mesh := range meshes {
		for _, order := range orders {
			t.Run(mesh+"-"+order, func(t *testing.T) {
				pod, reason := plain(mesh, "web"), fmt.Sprintf("The webhook of %s comes first.\n", mesh)
				if order == "last" {
					reason = fmt.Sprintf("The webhook of %s comes last, and elector's is asked again.\n", mesh)
					if pod, err = inject.Pod(pod, options); err != nil {
						t.Fatal(err)
					}
				}
				pod = meshed(t, injector, pod)
				input, err := yaml.Marshal(pod)
				if err != nil {
					t.Fatal(err)
				}
				input, _, _ = bytes.Cut(input, []byte("\nstatus:")) // the API server's business
				input = append(bytes.TrimSpace(input), '\n')
				path := filepath.Join(root, "inject", "testdata", "mesh", mesh+"-"+order+".txtar")
				golden := &txtar.Archive{Comment: []byte(reason), Files: []txtar.File{{Name: "input.yaml", Data: input}}}
				if *update {
					if err := os.WriteFile(path, txtar.Format(golden), 0o644); err != nil {
						t.Fatal(err)
					}
					return
				}
				have, err := txtar.ParseFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(have.Files[0].Data), string(input)); diff != "" {
					t.Errorf("the mesh makes something else of the pod (-golden +now), see -update:\n%s", diff)
				}
			})
		}
	}
}

// TestRun has a real API server ask elector's manager and the meshes, in both orders, and runs two candidates of each.
func TestRun(t *testing.T) {
	register(t, injector(t))
	for _, order := range orders {
		for _, mesh := range meshes {
			t.Run(mesh+"-"+order, func(t *testing.T) {
				t.Parallel()
				s := newSpace(t, mesh, order)
				first := s.create("web-0")
				s.checkOrder(first)
				s.await(t, "the first to lead", func(ctx context.Context) error { return s.leads(ctx, first) })
				second := s.create("web-1")
				s.await(t, "the second to be ready", func(ctx context.Context) error { return s.ready(ctx, second) })
				if err := cluster.Client().CoreV1().Pods(s.name).Delete(t.Context(), first.Name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				s.await(t, "the second to lead", func(ctx context.Context) error { return s.leads(ctx, second) })
			})
		}
	}
}

// register makes the API server ask the meshes before elector or after it, and at last what lets their containers run here.
func register(t *testing.T, injector http.Handler) {
	t.Helper()
	play := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mutate(w, body, standIn)
	}
	mux := http.NewServeMux()
	mux.Handle("/inject", injector)
	mux.HandleFunc("/play", play)
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	never, none, exact := admissionregistrationv1.NeverReinvocationPolicy, admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Exact
	// API servers ask in the order of these names.
	for name, order := range map[string]string{"a-mesh": "first", "z-mesh": "last", "zz-play": ""} {
		path, selector := "/inject", &metav1.LabelSelector{MatchLabels: map[string]string{orderLabel: order}}
		if order == "" {
			path, selector = "/play", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: orderLabel, Operator: metav1.LabelSelectorOpExists}}}
		}
		config := &admissionregistrationv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Webhooks: []admissionregistrationv1.MutatingWebhook{{
				Name: name + ".example.com", ReinvocationPolicy: &never, SideEffects: &none, MatchPolicy: &exact, AdmissionReviewVersions: []string{"v1"},
				ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: new(server.URL + path), CABundle: ca}, NamespaceSelector: selector,
				Rules: []admissionregistrationv1.RuleWithOperations{{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}},
			}},
		}
		all := cluster.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
		if _, err := all.Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := all.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// standIn has the meshes' containers do nothing, each in its way, and their probes with them. Those of the app point to a proxy that
// forwards nothing now.
func standIn(pod *corev1.Pod) {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			switch c.Name {
			case "istio-init", "linkerd-init":
				c.Command, c.Args = []string{"true"}, nil
			case "istio-proxy", "linkerd-proxy":
				c.Command, c.Args, c.Lifecycle = nil, nil, nil
			case inject.ContainerName:
				continue
			}
			c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = nil, nil, nil
		}
	}
}

// space is a test's own namespace.
type space struct {
	t    *testing.T
	name string
	mesh string
}

func newSpace(t *testing.T, mesh, order string) *space {
	t.Helper()
	s := &space{t: t, name: mesh + "-" + order, mesh: mesh}
	core := cluster.Client().CoreV1()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name, Labels: map[string]string{orderLabel: order}}}
	if _, err := core.Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// istiod writes it into every namespace.
	ca := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-root-cert"}, Data: map[string]string{"root-cert.pem": ""}}
	if _, err := core.ConfigMaps(s.name).Create(t.Context(), ca, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	if _, err := core.ServiceAccounts(s.name).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, command := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events"}, {"logs", "-l", "app=web", "-c", inject.ContainerName, "--prefix"}} {
				out, _ := cluster.Kubectl(context.WithoutCancel(t.Context()), append([]string{"-n", s.name}, command...)...).CombinedOutput()
				t.Logf("kubectl %s\n%s", strings.Join(command, " "), out)
			}
		}
		if err := core.Namespaces().Delete(context.WithoutCancel(t.Context()), s.name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *space) await(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	cluster.Eventually(t, what, check)
}

func (s *space) create(name string) *corev1.Pod {
	s.t.Helper()
	pod := plain(s.mesh, name)
	pod.Namespace = s.name
	created, err := cluster.Client().CoreV1().Pods(s.name).Create(s.t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return created
}

// checkOrder wants a native proxy to start before the sidecar, and so to stop after it, and nothing that a mesh could have rewritten.
func (s *space) checkOrder(pod *corev1.Pod) {
	s.t.Helper()
	var order []string
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		order = append(order, c.Name)
		if c.Name == inject.ContainerName && (c.StartupProbe == nil || c.StartupProbe.Exec == nil || c.LivenessProbe != nil || c.ReadinessProbe != nil) {
			s.t.Errorf("the sidecar is probed by %v, %v and %v", c.StartupProbe, c.LivenessProbe, c.ReadinessProbe)
		}
	}
	mesh, mode, _ := strings.Cut(s.mesh, "-")
	sidecar := slices.Index(order, inject.ContainerName)
	if sidecar < slices.Index(order, "migrate") {
		s.t.Errorf("the sidecar starts before the app's init containers: %v", order)
	}
	if proxy := slices.Index(order, mesh+"-proxy"); mode == nativeMode && (proxy < 0 || sidecar < proxy) {
		s.t.Errorf("the sidecar starts before the proxy: %v", order)
	}
}

func (s *space) ready(ctx context.Context, pod *corev1.Pod) error {
	now, err := cluster.Client().CoreV1().Pods(s.name).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(now.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}) {
		return fmt.Errorf("%s is %s", pod.Name, now.Status.Phase)
	}
	return nil
}

// leads returns an error unless the pod is ready and holds the lock.
func (s *space) leads(ctx context.Context, pod *corev1.Pod) error {
	if err := s.ready(ctx, pod); err != nil {
		return err
	}
	lease, err := cluster.Client().CoordinationV1().Leases(s.name).Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if holder := lease.Spec.HolderIdentity; holder == nil || *holder != elector.Identity(pod.Name, string(pod.UID)) {
		return fmt.Errorf("the lock is held by %v", holder)
	}
	return nil
}

// patched applies a JSON patch.
func patched(t *testing.T, raw, patch []byte) *corev1.Pod {
	t.Helper()
	operations, err := patches.DecodePatch(patch)
	if err != nil {
		t.Fatalf("reading the mesh's patch: %v\n%s", err, patch)
	}
	after, err := operations.Apply(raw)
	if err != nil {
		t.Fatalf("applying the mesh's patch: %v\n%s", err, patch)
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(after, pod); err != nil {
		t.Fatal("reading the mesh's pod:", err)
	}
	return pod
}
