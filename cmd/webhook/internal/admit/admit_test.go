package admit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/inject"
)

var options = inject.Options{Image: "elector:v1", Version: "v1"}

var (
	podKind        = metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	deploymentKind = metav1.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
)

func toJSON(t testing.TB, manifest string) []byte {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func toYAML(t testing.TB, raw []byte) string {
	t.Helper()
	out, err := yaml.JSONToYAML(raw)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// post sends a review the way the API server does.
func post(t testing.TB, h admission.Handler, review []byte) admissionv1.AdmissionReview {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/mutate", bytes.NewReader(review))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	NewLimits().Serve(h).ServeHTTP(w, r)
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("the answer is no review: %v: %s", err, w.Body)
	}
	if answer.Response == nil {
		t.Fatalf("the answer is empty: %s", w.Body)
	}
	return answer
}

func review(t testing.TB, request admissionv1.AdmissionRequest) []byte {
	t.Helper()
	request.UID = "0a1b"
	raw, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: &request,
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func send(t testing.TB, h admission.Handler, request admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	answer := post(t, h, review(t, request))
	if answer.Response.UID != "0a1b" || answer.Kind != "AdmissionReview" {
		t.Errorf("the answer is for %q and is a %q", answer.Response.UID, answer.Kind)
	}
	return answer.Response
}

func apply(t testing.TB, raw, patch []byte) []byte {
	t.Helper()
	if patch == nil {
		return raw
	}
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Apply(raw)
	if err != nil {
		t.Fatalf("the patch does not apply: %v\n%s", err, patch)
	}
	return out
}

const electedPod = `
apiVersion: v1
kind: Pod
metadata:
  generateName: web-
  annotations:
    elector.io/enabled: "true"
spec:
  serviceAccountName: web
  containers:
  - name: app
    image: app:v1
`

// TestUnknownFieldsSurvive sends objects of a Kubernetes to come, with fields
// that our types do not have everywhere, and wants each of them back.
func TestUnknownFieldsSurvive(t *testing.T) {
	const pod = `
apiVersion: v1
kind: Pod
futureTop: {a: 1}
metadata:
  name: web
  futureMeta: [1, 2]
  annotations:
    elector.io/enabled: "true"
    elector.io/containers: app,metrics,stays
spec:
  futureSpec: {deep: {list: [{x: null}]}}
  futureBig: 12345678901234567890
  serviceAccountName: web
  initContainers:
  - name: first
    image: app:v1
    futureInit: [a, b]
  - name: stays
    image: app:v1
    restartPolicy: Always
    futureInit: {b: 2}
    env:
    - {name: A, value: b, futureEnv: true}
  containers:
  - name: app
    image: app:v1
    futureContainer: {c: 3}
    resources: {futureResources: {gpu: 1}, limits: {memory: 1Gi}}
    securityContext: {futureSecurity: strict}
    env:
    - {name: A, value: b, futureEnv: true}
    - {name: B, valueFrom: {futureRef: {key: x}}}
    volumeMounts:
    - {name: data, mountPath: /data, futureMount: 1}
    - {name: data, mountPath: /more, futureMount: 2}
    ports:
    - {containerPort: 8080, futurePort: x}
  - name: metrics
    image: exporter:v2
    futureContainer: {c: 4}
  volumes:
  - name: data
    futureVolume: {d: 5}
  - name: other
    futureSource: {path: /x}
status:
  futureStatus: {e: 6}
`
	raw := toJSON(t, pod)
	resp := send(t, Pods(options), admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}})
	if !resp.Allowed || len(resp.Patch) == 0 {
		t.Fatalf("not injected: %+v", resp.Result)
	}
	var ops []struct{ Op, Path string }
	if err := json.Unmarshal(resp.Patch, &ops); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		if op.Op != "add" {
			t.Errorf("%s %s: a pod is only ever added to", op.Op, op.Path)
		}
	}
	patched := apply(t, raw, resp.Patch)

	var before, after any
	if err := json.Unmarshal(raw, &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(patched, &after); err != nil {
		t.Fatal(err)
	}
	contains(t, "", before, after)

	// And what the types do know is what inject says.
	var typed, got corev1.Pod
	if err := json.Unmarshal(raw, &typed); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(patched, &got); err != nil {
		t.Fatal(err)
	}
	want, err := inject.Pod(&typed, options)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("the patch makes another pod than inject (-inject +patch):\n%s", diff)
	}
	if strings.Count(string(patched), "12345678901234567890") != 1 {
		t.Error("a big number was rounded")
	}
}

// contains asserts that all of a is in b; lists may have more elements, those of
// a in their order.
func contains(t *testing.T, path string, a, b any) {
	t.Helper()
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			t.Errorf("%s is no object any more", path)
			return
		}
		for key, value := range a {
			inner, ok := b[key]
			if !ok {
				t.Errorf("%s/%s is gone", path, key)
				continue
			}
			contains(t, path+"/"+key, value, inner)
		}
	case []any:
		b, ok := b.([]any)
		if !ok || len(b) < len(a) {
			t.Errorf("%s lost elements", path)
			return
		}
		// What is added stands at the end of a list, but for the sidecar.
		b = slices.DeleteFunc(slices.Clone(b), func(element any) bool {
			fields, ok := element.(map[string]any)
			return ok && strings.HasSuffix(path, "initContainers") && fields["name"] == inject.ContainerName
		})
		for i := range a {
			contains(t, fmt.Sprintf("%s/%d", path, i), a[i], b[i])
		}
	default:
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("%s changed:\n%s", path, diff)
		}
	}
}

func TestUnknownFieldsOfWorkloadsSurvive(t *testing.T) {
	const before = `
apiVersion: apps/v1
kind: Deployment
futureTop: {a: 1}
metadata:
  name: web
  futureMeta: 1
  annotations:
    team: shop
spec:
  futureSpec: 2
  selector: {matchLabels: {app: web}}
  template:
    futureTemplate: 3
    metadata:
      futureTemplateMeta: 4
    spec:
      futurePodSpec: 5
      serviceAccountName: web
      containers:
      - {name: app, image: "app:v1", futureContainer: 6}
`
	annotated := strings.Replace(before, "team: shop", "team: shop\n    elector.io/enabled: \"true\"", 1)
	request := admissionv1.AdmissionRequest{
		Kind: deploymentKind, Operation: admissionv1.Update,
		Object: runtime.RawExtension{Raw: toJSON(t, annotated)}, OldObject: runtime.RawExtension{Raw: toJSON(t, before)},
	}
	resp := send(t, Workloads(options), request)
	if !resp.Allowed {
		t.Fatalf("denied: %+v", resp.Result)
	}
	carried := apply(t, request.Object.Raw, resp.Patch)
	want := strings.Replace(annotated, "team: shop", "team: shop\n    elector.io/carried: '{\"elector.io/enabled\":\"true\"}'", 1)
	want = strings.Replace(want, "futureTemplateMeta: 4", "futureTemplateMeta: 4\n      annotations: {elector.io/enabled: \"true\"}", 1)
	if diff := cmp.Diff(toYAML(t, toJSON(t, want)), toYAML(t, carried)); diff != "" {
		t.Errorf("carried (-want +got):\n%s", diff)
	}

	// kubectl annotate deployment web elector.io/enabled-
	request.OldObject.Raw = carried
	request.Object.Raw = bytes.Replace(carried, []byte(`"elector.io/enabled":"true","team"`), []byte(`"team"`), 1)
	if bytes.Equal(request.Object.Raw, carried) {
		t.Fatalf("the annotation is not where it was: %s", carried)
	}
	resp = send(t, Workloads(options), request)
	back := apply(t, request.Object.Raw, resp.Patch)
	if diff := cmp.Diff(toYAML(t, toJSON(t, before)), toYAML(t, back)); diff != "" {
		t.Errorf("there and back is not the same (-before +after):\n%s\n%s", diff, resp.Patch)
	}
}

// TestEmptyParentsOfWorkloads is the same for a template.
func TestEmptyParentsOfWorkloads(t *testing.T) {
	const spec = `{"containers":[{"name":"app"}],"serviceAccountName":"web"}`
	for name, template := range map[string]string{
		"no metadata":       `{"spec":` + spec + `}`,
		"null metadata":     `{"metadata":null,"spec":` + spec + `}`,
		"empty metadata":    `{"metadata":{},"spec":` + spec + `}`,
		"null annotations":  `{"metadata":{"annotations":null},"spec":` + spec + `}`,
		"empty annotations": `{"metadata":{"annotations":{}},"spec":` + spec + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			raw := []byte(`{"metadata":{"name":"web","annotations":{"elector.io/enabled":"true"}},"spec":{"template":` + template + `}}`)
			resp := send(t, Workloads(options), admissionv1.AdmissionRequest{Kind: deploymentKind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}})
			if !resp.Allowed {
				t.Fatalf("denied: %+v", resp.Result)
			}
			var got appsv1.Deployment
			if err := json.Unmarshal(apply(t, raw, resp.Patch), &got); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"elector.io/enabled": "true"}
			if diff := cmp.Diff(want, got.Spec.Template.Annotations); diff != "" {
				t.Errorf("the template's annotations (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEmptyParents posts objects in spellings that the types write otherwise.
func TestEmptyParents(t *testing.T) {
	for name, replace := range map[string][2]string{
		"null lists":          {"  containers:", "  initContainers: null\n  volumes: null\n  containers:"},
		"empty lists":         {"  containers:", "  initContainers: []\n  volumes: []\n  containers:"},
		"null labels":         {"  generateName: web-", "  generateName: web-\n  labels: null"},
		"empty labels":        {"  generateName: web-", "  generateName: web-\n  labels: {}"},
		"null env":            {"    image: app:v1", "    image: app:v1\n    env: null\n    volumeMounts: null"},
		"empty env":           {"    image: app:v1", "    image: app:v1\n    env: []\n    volumeMounts: []"},
		"keys to be escaped":  {"  generateName: web-", "  generateName: web-\n  labels: {a/b~c: \"1\"}"},
		"a creationTimestamp": {"  generateName: web-", "  generateName: web-\n  creationTimestamp: null"},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := strings.Replace(electedPod, replace[0], replace[1], 1)
			raw := toJSON(t, manifest)
			resp := send(t, Pods(options), admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}})
			if !resp.Allowed {
				t.Fatalf("denied: %+v", resp.Result)
			}
			var typed, got corev1.Pod
			if err := json.Unmarshal(raw, &typed); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(apply(t, raw, resp.Patch), &got); err != nil {
				t.Fatal(err)
			}
			want, err := inject.Pod(&typed, options)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, &got); diff != "" {
				t.Errorf("the patch makes another pod than inject (-inject +patch):\n%s", diff)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	pods, workloads := Pods(options), Workloads(options)
	object := func(manifest string) runtime.RawExtension { return runtime.RawExtension{Raw: toJSON(t, manifest)} }
	deployment := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","annotations":{"elector.io/enabled":"true"}},"spec":{"template":{"spec":{"containers":[{"name":"app"}]}}}}`
	tests := map[string]struct {
		reason  string
		handler admission.Handler
		request admissionv1.AdmissionRequest
		code    int32 // 200 means allowed
		status  metav1.StatusReason
		message string
		patched bool
		warning string
	}{
		"injected": {
			reason: "a pod that asks", handler: pods, code: 200, patched: true,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Namespace: "shop", Object: object(electedPod)},
		},
		"dry run": {
			reason: "nothing is written, so there is no difference", handler: pods, code: 200, patched: true,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, DryRun: new(bool), Object: object(electedPod)},
		},
		"not asking": {
			reason: "no annotation, no change", handler: pods, code: 200,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object("{spec: {containers: [{name: app}]}}")},
		},
		"empty object": {
			reason: "it asks for nothing", handler: pods, code: 200,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object("{}")},
		},
		"asking for nothing else": {
			reason: "the API server would refuse the pod as well", handler: pods, code: 422, status: metav1.StatusReasonInvalid,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(`{metadata: {name: web, annotations: {elector.io/enabled: "true"}}}`)},
			message: `elector.io/enabled "true" is not allowed: the pod has no containers, add one`,
		},
		"denied": {
			reason: "one sentence", handler: pods, code: 422, status: metav1.StatusReasonInvalid,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(strings.Replace(electedPod, `"true"`, "\"true\"\n    elector.io/mode: primary", 1))},
			message: `elector.io/mode "primary" is not allowed: use lease or leader-for-life`,
		},
		"warned": {
			reason: "an unknown annotation", handler: pods, code: 200, patched: true,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(strings.Replace(electedPod, `"true"`, "\"true\"\n    elector.io/lokc: web", 1))},
			warning: `elector.io: the annotation "elector.io/lokc" is unknown and has no effect, the nearest known one is "elector.io/lock"`,
		},
		"huge value": {
			reason: "an annotation of 200 KB is answered in a line", handler: pods, code: 422, status: metav1.StatusReasonInvalid,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(strings.Replace(electedPod, `"true"`, "\"true\"\n    elector.io/lock: "+strings.Repeat("x", 200_000), 1))},
			message: `elector.io/lock "` + strings.Repeat("x", 80) + `…" is not allowed: a name has at most 253 characters, this one has 200000`,
		},
		"update of a pod": {
			reason: "containers cannot change", handler: pods, code: 200,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Update, Object: object(electedPod), OldObject: object(electedPod)},
		},
		"ephemeral container": {
			reason: "a subresource is not a pod", handler: pods, code: 200,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, SubResource: "ephemeralcontainers", Object: object(electedPod)},
		},
		"deletion": {
			reason: "there is no object then", handler: pods, code: 200,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Delete, OldObject: object(electedPod)},
		},
		"connection": {
			reason: "there is no pod then", handler: pods, code: 200,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Connect},
		},
		"no operation": {
			reason: "garbage", handler: pods, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: podKind, Object: object(electedPod)},
			message: `this webhook does not know the operation ""`,
		},
		"no object": {
			reason: "garbage", handler: pods, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create},
			message: "reading the object: there is none",
		},
		"object of wrong type": {
			reason: "garbage", handler: pods, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(`[1]`)},
			message: `reading the object: it is no "v1 Pod": json: cannot unmarshal array into Go value of type v1.Pod`,
		},
		"field of wrong type": {
			reason: "garbage", handler: pods, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(`{spec: {containers: 1}}`)},
			message: `reading the object: it is no "v1 Pod": json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type []v1.Container`,
		},
		"quantity out of this world": {
			reason: "it would take minutes to read", handler: pods, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(`{spec: {containers: [{resources: {limits: {cpu: "1e-1000000000"}}}]}}`)},
			message: `reading the object: the quantity "1e-1000000000" has an exponent beyond 99`,
		},
		"commit": {
			reason: "the same digits elsewhere are just a text", handler: pods, code: 200, patched: true,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(strings.Replace(electedPod, "generateName: web-", "generateName: web-\n  labels: {commit: \"1e1000000000\", limits: \"1e1000\"}", 1))},
		},
		"another kind": {
			reason: "registered for the wrong resource", handler: pods, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: deploymentKind, Operation: admissionv1.Create, Object: object(deployment)},
			message: `this webhook does not handle "apps/v1 Deployment", it is registered for the wrong resource`,
		},
		"another kind inside": {
			reason: "garbage", handler: pods, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(deployment)},
			message: `reading the object: it is a "apps/v1 Deployment" where the review promises a "v1 Pod"`,
		},
		"carried": {
			reason: "a Deployment that asks", handler: workloads, code: 200, patched: true,
			request: admissionv1.AdmissionRequest{Kind: deploymentKind, Operation: admissionv1.Create, Object: object(deployment)},
			warning: `elector.io: every pod of the namespace that uses the ServiceAccount "default" will be able to write the lock "web", give this workload a ServiceAccount of its own`,
		},
		"a pod as a workload": {
			reason: "registered for the wrong resource", handler: workloads, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object(electedPod)},
			message: `this webhook does not handle "v1 Pod", it is registered for the wrong resource`,
		},
		"another version": {
			reason: "matchPolicy Equivalent converts to the version that is registered", handler: workloads, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: metav1.GroupVersionKind{Group: "batch", Version: "v1beta1", Kind: "CronJob"}, Operation: admissionv1.Create, Object: object("{}")},
			message: `this webhook does not handle "batch/v1beta1 CronJob", it is registered for the wrong resource`,
		},
		"an update without the old": {
			reason: "garbage", handler: workloads, code: 400, status: metav1.StatusReasonBadRequest,
			request: admissionv1.AdmissionRequest{Kind: deploymentKind, Operation: admissionv1.Update, Object: object(deployment)},
			message: "reading the old object: there is none",
		},
		"scaling": {
			reason: "a subresource has no template", handler: workloads, code: 200,
			request: admissionv1.AdmissionRequest{Kind: deploymentKind, Operation: admissionv1.Update, SubResource: "scale", Object: object(deployment)},
		},
		"deletion of a workload": {
			reason: "there is no object then", handler: workloads, code: 200,
			request: admissionv1.AdmissionRequest{Kind: deploymentKind, Operation: admissionv1.Delete, OldObject: object(deployment)},
		},
		"denied workload": {
			reason: "the person reads it, not a controller", handler: workloads, code: 422, status: metav1.StatusReasonInvalid,
			request: admissionv1.AdmissionRequest{Kind: deploymentKind, Operation: admissionv1.Create, Object: object(strings.Replace(deployment, `"true"`, `"yes"`, 1))},
			message: `elector.io/enabled "yes" is not allowed: use "true" or "false"`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			resp := send(t, tc.handler, tc.request)
			if resp.Result == nil {
				t.Fatal("there is no result")
			}
			if resp.Allowed != (tc.code == 200) || resp.Result.Code != tc.code || resp.Result.Reason != tc.status || resp.Result.Message != tc.message {
				t.Errorf("%s:\n got %v %d %s %s\nwant %d %s %s", tc.reason, resp.Allowed, resp.Result.Code, resp.Result.Reason, resp.Result.Message, tc.code, tc.status, tc.message)
			}
			if (len(resp.Patch) > 0) != tc.patched {
				t.Errorf("%s: the patch is %s", tc.reason, resp.Patch)
			}
			if tc.warning != "" && (len(resp.Warnings) == 0 || resp.Warnings[0] != tc.warning) {
				t.Errorf("%s: the warnings are %q", tc.reason, resp.Warnings)
			}
		})
	}
}

func counted(t *testing.T, labels ...string) float64 {
	t.Helper()
	var m dto.Metric
	if err := admissions.WithLabelValues(labels...).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func TestAdmissionsAreCounted(t *testing.T) {
	tests := map[string]struct {
		manifest string
		kind     metav1.GroupVersionKind
		labels   []string
	}{
		"changed":   {electedPod, podKind, []string{"Pod", "changed", ""}},
		"unchanged": {"{}", podKind, []string{"Pod", "unchanged", ""}},
		"denied":    {strings.Replace(electedPod, `"true"`, "\"true\"\n    elector.io/mode: primary", 1), podKind, []string{"Pod", "denied", "mode"}},
		"failed":    {"[]", podKind, []string{"Pod", "failed", ""}},
		"other":     {"{}", metav1.GroupVersionKind{Kind: "Whatever"}, []string{"other", "failed", ""}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			before := counted(t, tc.labels...)
			send(t, Pods(options), admissionv1.AdmissionRequest{Kind: tc.kind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: toJSON(t, tc.manifest)}})
			if got := counted(t, tc.labels...) - before; got != 1 {
				t.Errorf("%v grew by %v", tc.labels, got)
			}
		})
	}
}

func FuzzReview(f *testing.F) {
	for _, manifest := range []string{electedPod, strings.Replace(electedPod, "web-", "1e1000", 1), "{}"} {
		f.Add(review(f, admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: toJSON(f, manifest)}}))
	}
	deployment := []byte(`{"metadata":{"name":"web","annotations":{"elector.io/enabled":"true"}},"spec":{"template":{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"1"}}}]}}}}`)
	f.Add(review(f, admissionv1.AdmissionRequest{Kind: deploymentKind, Operation: admissionv1.Update, Object: runtime.RawExtension{Raw: deployment}, OldObject: runtime.RawExtension{Raw: deployment}}))
	f.Add([]byte(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1","kind":{"kind":"Pod","version":"v1"},"operation":"DELETE"}}`))
	f.Add([]byte(`{"kind":"Pod","apiVersion":"v1"}`))
	limits := NewLimits()
	pods, workloads := limits.Serve(Pods(options)), limits.Serve(Workloads(options))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, h := range []http.Handler{pods, workloads} {
			r := httptest.NewRequest(http.MethodPost, "/mutate", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				checkSentence(t, w.Body.String())
				continue
			}
			var answer admissionv1.AdmissionReview
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil {
				t.Fatalf("no answer: %v: %s", err, w.Body)
			}
			if !answer.Response.Allowed && answer.Response.Result == nil {
				t.Fatalf("refused without a reason: %s", w.Body)
			}
			if !answer.Response.Allowed {
				checkSentence(t, answer.Response.Result.Message)
			}
			if result := answer.Response.Result; result != nil && result.Code >= http.StatusInternalServerError {
				t.Errorf("broke: %s", result.Message)
			}
		}
	})
}

// checkSentence wants one line that a person reads to its end.
func checkSentence(t *testing.T, sentence string) {
	t.Helper()
	sentence = strings.TrimSuffix(sentence, "\n")
	if sentence == "" || len(sentence) > 4096 || strings.Contains(sentence, "\n") {
		t.Errorf("no sentence: %q", sentence)
	}
}
