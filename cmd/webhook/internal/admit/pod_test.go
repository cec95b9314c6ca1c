package admit

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/cmd/internal/object"
	"github.com/elector-io/elector/inject"
)

// checkPatch holds the patch of a pod to that of a comparison of the whole pod before
// and after, for each pod that both can be made for. It returns the changed pod.
func checkPatch(t *testing.T, raw []byte) []byte {
	t.Helper()
	var pod corev1.Pod
	plain, err := object.Decode(raw, podKind, &pod)
	if err != nil || !plain {
		return raw
	}
	compared, wantErr := patchPod(raw, false, pod.DeepCopy(), options)
	before := pod.DeepCopy()
	patch, err := patchPod(raw, plain, &pod, options)
	if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
		t.Fatalf("the error is %v, want %v", err, wantErr)
	}
	if diff := cmp.Diff(before, &pod); diff != "" {
		t.Errorf("the pod was touched (-before +after):\n%s", diff)
	}
	if (patch == nil) != (compared == nil) {
		t.Fatalf("the patch is %s, want %s", patch, compared)
	}
	got := apply(t, raw, patch)
	if diff := cmp.Diff(exactly(t, apply(t, raw, compared)), exactly(t, got)); diff != "" {
		t.Errorf("%s\nis changed otherwise (-compared +added):\n%s\nby %s", raw, diff, patch)
	}
	return got
}

// exactly reads JSON without rounding a number.
func exactly(t *testing.T, raw []byte) (value any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// spellings are pods whose lists and maps are there, are empty, are null or are not there.
func spellings() (all []string) {
	const metadata = `"metadata":{"name":"web","future":1,"annotations":{"elector.io/enabled":"true"%s}%s},`
	for _, annotations := range []string{``, `,"elector.io/containers":"app,first"`, `,"elector.io/status":"{}","elector.io/port":"5050"`, `,"x":"1","elector.io/status":"old"`, `,"elector.io/gate":"app","elector.io/command":"{\"app\":[\"/app\"]}"`} {
		for _, labels := range []string{``, `,"labels":null`, `,"labels":{}`, `,"labels":{"a/b~c":"1","elector.io/role":"leader"}`, `,"labels":{"elector.io/role":"standby","elector.io/injected":"true"}`} {
			for _, lists := range []string{
				`"initContainers":[{"name":"first","future":1}],"containers":[{"name":"app"}]`,
				`"initContainers":[{"name":"first","env":[{"name":"POD_NAME","value":"x","future":1.0}],"volumeMounts":[]},{"name":"second"}],"containers":[{"name":"app","env":null,"volumeMounts":null}],"volumes":null`,
				`"initContainers":[],"containers":[{"name":"other","env":[],"volumeMounts":[]},{"name":"app","env":[{"name":"A","future":1e400}]},{"name":"first"}],"volumes":[]`,
				`"initContainers":null,"containers":[{"name":"app","future":{"x":12345678901234567890}},{"name":"first","volumeMounts":[{"name":"data","mountPath":"/data"},null]}],"volumes":[{"name":"data","future":{}},null]`,
				`"containers":[{"name":"other","command":["run"]},{"name":"app","future":1,"livenessProbe":{"future":2,"httpGet":{"future":3,"port":80,"httpHeaders":[{"name":"A","value":"b","future":4}]}},"readinessProbe":{"exec":{"command":null}},"startupProbe":{"grpc":{"port":1}},"lifecycle":{"future":5,"preStop":{"exec":{"future":6,"command":["run"]}}}}]`,
				`"containers":[{"name":"app","ENV":[{"name":"A"}],"Env":1}],"Volumes":[1]`,
			} {
				head := strings.Replace(strings.Replace(metadata, "%s", annotations, 1), "%s", labels, 1)
				all = append(all, `{`+head+`"spec":{"future":null,`+lists+`},"future":[null]}`)
			}
		}
	}
	return all
}

// TestPatchAdds compares both ways for all spellings, and again for what comes out.
func TestPatchAdds(t *testing.T) {
	changed := 0
	for _, raw := range spellings() {
		once := checkPatch(t, []byte(raw))
		if !bytes.Equal(once, []byte(raw)) {
			changed++
		}
		if twice := checkPatch(t, once); !bytes.Equal(twice, once) {
			t.Errorf("%s is patched again to %s", once, twice)
		}
	}
	if changed < len(spellings())/2 {
		t.Errorf("%d of %d pods get a sidecar", changed, len(spellings()))
	}
}

// TestFieldsTwice has metadata and a list twice. The types read both metadata into one, and who applies a patch knows the
// last alone: labels that are there for the types are not there for the patch.
func TestFieldsTwice(t *testing.T) {
	raw := []byte(`{"metadata":{"labels":{"a":"1"}},"metadata":{"name":"web","annotations":{"elector.io/enabled":"true"}},"spec":{"containers":[{"name":"app","env":[{"name":"A"}],"env":null}]}}`)
	var pod corev1.Pod
	plain, err := object.Decode(raw, podKind, &pod)
	if err != nil || plain || pod.Labels["a"] != "1" {
		t.Fatalf("plain is %v, the labels are %v, %v", plain, pod.Labels, err)
	}
	patch, err := patchPod(raw, plain, &pod, options)
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.Pod
	if err := json.Unmarshal(apply(t, raw, patch), &got); err != nil {
		t.Fatal(err)
	}
	delete(pod.Labels, "a")
	want, err := inject.Pod(&pod, options)
	if err != nil {
		t.Fatal(err)
	}
	// All labels of the pod as the types read it are added, as labels are not there at all.
	delete(got.Labels, "a")
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("the patch makes another pod than inject (-inject +patch):\n%s", diff)
	}
}

// TestGateKeepsUnknownFields puts a gate before a container that has fields which the types do not know: in what it changes, too.
func TestGateKeepsUnknownFields(t *testing.T) {
	raw := []byte(`{"metadata":{"name":"web","annotations":{"elector.io/enabled":"true","elector.io/gate":"true"}},"spec":{"containers":[{"name":"app","command":["run","run"],"future":1,` +
		`"livenessProbe":{"future":2,"httpGet":{"future":3,"port":80}},"readinessProbe":{"future":4,"tcpSocket":{"port":80}},"lifecycle":{"future":5,"preStop":{"future":6,"exec":{"future":7,"command":["stop"]}}}}]}}`)
	var pod corev1.Pod
	plain, err := object.Decode(raw, podKind, &pod)
	if err != nil || !plain {
		t.Fatal(plain, err)
	}
	patch, err := patchPod(raw, plain, &pod, options)
	if err != nil {
		t.Fatal(err)
	}
	got := apply(t, raw, patch)
	for i := range 7 {
		if n := strconv.Itoa(i + 1); !bytes.Contains(got, []byte(`"future":`+n)) {
			t.Errorf("the unknown field %s is lost: %s", n, got)
		}
	}
	var typed corev1.Pod
	if err := json.Unmarshal(got, &typed); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/elector/gate", "run", "--stop-grace=2s", "--least-claim=7.334s", "--", "run", "run"}, typed.Spec.Containers[0].Command); diff != "" {
		t.Error(diff)
	}
	if probe := typed.Spec.Containers[0].ReadinessProbe; probe.TCPSocket != nil || probe.HTTPGet == nil {
		t.Errorf("the probe is %+v", probe.ProbeHandler)
	}
}

// FuzzPatch compares both ways of making a patch, whatever the pod is.
func FuzzPatch(f *testing.F) {
	for _, raw := range spellings() {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { checkPatch(t, raw) })
}
