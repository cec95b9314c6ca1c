package admit

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

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
