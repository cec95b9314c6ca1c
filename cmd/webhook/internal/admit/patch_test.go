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

// TestEqual holds equal to reflect.DeepEqual, for every pair of values.
func TestEqual(t *testing.T) {
	values := []any{
		nil, true, false, int64(1), float64(1), "", "1",
		map[string]any(nil), map[string]any{}, map[string]any{"a": nil}, map[string]any{"b": nil}, map[string]any{"a": int64(1)},
		map[string]any{"a": int64(1), "b": []any{"x"}}, map[string]any{"a": int64(1), "b": []any{"y"}},
		[]any(nil), []any{}, []any{nil}, []any{"x"}, []any{"x", "y"}, []any{"y", "x"}, []any{map[string]any{"a": int64(1)}},
	}
	for _, a := range values {
		for _, b := range values {
			if got, want := equal(a, b), reflect.DeepEqual(a, b); got != want {
				t.Errorf("equal(%#v, %#v) = %t", a, b, got)
			}
		}
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
	sidecar["future"] = map[string]any{"big": json.Number("9007199254740992"), "text": "<a> & b"}
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

// TestMoved finds the one element that moved, among others that were added, and refuses to guess.
func TestMoved(t *testing.T) {
	list := func(names string) (all []any) {
		for name := range strings.SplitSeq(names, "") {
			all = append(all, map[string]any{"name": name})
		}
		return all
	}
	tests := map[string]struct {
		reason, before, after string
		from, to              int
		ok                    bool
	}{
		"none":            {"all stand as they did", "abc", "abc", 0, 0, false},
		"added":           {"all stand as they did among themselves", "abc", "xaybzc", 0, 0, false},
		"to the end":      {"a moved", "abc", "bca", 0, 2, true},
		"to the front":    {"c moved", "abc", "cab", 2, 0, true},
		"forward":         {"b moved", "abcd", "acbd", 1, 2, true},
		"back":            {"d moved", "abcd", "adbc", 3, 1, true},
		"beside an added": {"b moved, among those that were there", "abc", "axcby", 1, 2, true},
		"two":             {"which would have moved", "abcd", "dcab", 0, 0, false},
		"removed":         {"b is gone", "abc", "ca", 0, 0, false},
		"same names":      {"nobody can tell which of them moved", "aab", "aba", 0, 0, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if from, to, ok := moved(list(tc.before), list(tc.after)); from != tc.from || to != tc.to || ok != tc.ok {
				t.Errorf("%s: from %d to %d, %v, want %d, %d and %v", tc.reason, from, to, ok, tc.from, tc.to, tc.ok)
			}
		})
	}
}
