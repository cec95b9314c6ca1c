package admit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestManagedFieldsStay sends an object as API servers do: with managed fields.
func TestManagedFieldsStay(t *testing.T) {
	const managed = `
  managedFields:
  - manager: kubectl
    operation: Apply
    apiVersion: v1
    fieldsType: FieldsV1
    fieldsV1: {"f:spec": {"f:containers": {}}}
`
	raw := toJSON(t, strings.Replace(electedPod, "metadata:\n", "metadata:"+managed, 1))
	resp := send(t, Pods(options), admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}})
	if !resp.Allowed || len(resp.Patch) == 0 {
		t.Fatalf("not injected: %+v", resp.Result)
	}
	if strings.Contains(string(resp.Patch), "managedFields") {
		t.Errorf("the patch touches managed fields: %s", resp.Patch)
	}
	var before, after struct {
		Metadata struct{ ManagedFields any }
	}
	for raw, into := range map[string]any{string(raw): &before, string(apply(t, raw, resp.Patch)): &after} {
		if err := json.Unmarshal([]byte(raw), into); err != nil {
			t.Fatal(err)
		}
	}
	if before.Metadata.ManagedFields == nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the managed fields were\n%v\nand are\n%v", before, after)
	}
}

// TestMoves lets other mutators put init containers behind the sidecar, with fields that the types do not know in all of them: when
// we are asked again it goes behind theirs, with all that it has.
func TestMoves(t *testing.T) {
	first := apply(t, toJSON(t, electedPod), send(t, Pods(options), admissionv1.AdmissionRequest{
		Kind: podKind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: toJSON(t, electedPod)},
	}).Patch)
	var pod map[string]any
	if err := json.Unmarshal(first, &pod); err != nil {
		t.Fatal(err)
	}
	spec := pod["spec"].(map[string]any)
	sidecar := spec["initContainers"].([]any)[0].(map[string]any)
	sidecar["future"] = map[string]any{"big": json.Number("9007199254740993"), "text": "<a> & b"}
	delete(sidecar, "restartPolicy") // goes back to what it was where it will be
	other := func(name string) map[string]any {
		return map[string]any{"name": name, "image": "other:v1", "future": "of " + name}
	}
	spec["initContainers"] = []any{other("before"), sidecar, other("vault-agent-init"), other("warm")}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}

	resp := send(t, Pods(options), admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}})
	if !resp.Allowed {
		t.Fatalf("refused: %+v", resp.Result)
	}
	var got any
	decode := json.NewDecoder(bytes.NewReader(apply(t, raw, resp.Patch)))
	decode.UseNumber()
	if err := decode.Decode(&got); err != nil {
		t.Fatal(err)
	}
	sidecar["restartPolicy"] = "Always"
	spec["initContainers"] = []any{other("before"), other("vault-agent-init"), other("warm"), sidecar}
	if raw, err = json.Marshal(pod); err != nil {
		t.Fatal(err)
	}
	var want any
	decode = json.NewDecoder(bytes.NewReader(raw))
	decode.UseNumber()
	if err := decode.Decode(&want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", resp.Patch, diff)
	}
	again := send(t, Pods(options), admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}})
	if !again.Allowed || len(again.Patch) > 0 {
		t.Errorf("it is patched again by %s", again.Patch)
	}
}
