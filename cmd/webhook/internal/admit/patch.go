package admit

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// patch returns the operations that turn raw into what makes before after.
//
// before is what our API types read from raw, after is before with changes. The
// two are compared with each other, so whatever the types left out of raw is in
// neither and cannot appear in the patch; a comparison of raw with after would
// remove it. raw itself is consulted for which parents exist, and to keep a
// parent whole that has more in it than the types know.
//
// Elements may have been added to a list, not removed or re-ordered: the indices
// of elements that hold unknown fields must stay theirs. Anything else is an
// error.
//
// The managed fields of before and after are dropped, and so are not patched: the
// API server writes them, no handler does, and they are a good part of an object.
func patch(raw []byte, before, after runtime.Object) ([]jsonpatch.Operation, error) {
	for _, object := range []runtime.Object{before, after} {
		if o, ok := object.(metav1.Object); ok {
			o.SetManagedFields(nil)
		}
	}
	// Most pods that come here are changed, most workloads are not.
	if reflect.DeepEqual(before, after) {
		return nil, nil
	}
	var r any
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("reading the object to patch: %w", err)
	}
	b, err := runtime.DefaultUnstructuredConverter.ToUnstructured(before)
	if err != nil {
		return nil, fmt.Errorf("comparing the object: %w", err)
	}
	a, err := runtime.DefaultUnstructuredConverter.ToUnstructured(after)
	if err != nil {
		return nil, fmt.Errorf("comparing the changed object: %w", err)
	}
	var d differ
	d.values("", r, b, a)
	return d.patch, d.err
}

type differ struct {
	patch []jsonpatch.Operation
	err   error
}

func (d *differ) add(path string, value any) {
	d.patch = append(d.patch, jsonpatch.NewOperation("add", path, value))
}

// values compares two values at one path; raw is what stands there.
func (d *differ) values(path string, raw, before, after any) {
	if equal(before, after) {
		return
	}
	switch a := after.(type) {
	case map[string]any:
		b, okB := before.(map[string]any)
		r, okR := raw.(map[string]any)
		if okB && okR {
			d.fields(path, r, b, a)
			return
		}
	case []any:
		b, okB := before.([]any)
		r, okR := raw.([]any)
		if okB && okR {
			d.elements(path, r, b, a)
			return
		}
	}
	d.patch = append(d.patch, jsonpatch.NewOperation("replace", path, after))
}

func (d *differ) fields(path string, raw, before, after map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(after)) {
		at := path + "/" + escape(key)
		value, r := after[key], raw[key]
		b, had := before[key]
		switch inner, ok := value.(map[string]any); {
		case had && r != nil:
			d.values(at, r, b, value)
		case had && equal(b, value):
			// The types write this out where raw has nothing.
		case ok && isMap(r):
			// Raw has something there that the types do not know at all.
			d.fields(at, r.(map[string]any), nil, inner)
		default:
			d.add(at, value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, stays := after[key]; stays || raw[key] == nil {
			continue
		}
		at := path + "/" + escape(key)
		b, isB := before[key].(map[string]any)
		r, isR := raw[key].(map[string]any)
		if isB && isR && len(r) > len(b) {
			d.fields(at, r, b, nil)
			continue
		}
		d.patch = append(d.patch, jsonpatch.NewOperation("remove", at, nil))
	}
}

func (d *differ) elements(path string, raw, before, after []any) {
	if len(raw) != len(before) {
		d.fail(path)
		return
	}
	i := 0
	for j, value := range after {
		at := path + "/" + strconv.Itoa(j)
		if i < len(before) && sameElement(before[i], value) {
			d.values(at, raw[i], before[i], value)
			i++
			continue
		}
		d.add(at, value)
	}
	if i < len(before) {
		d.fail(path)
	}
}

func (d *differ) fail(path string) {
	if d.err == nil {
		d.err = fmt.Errorf("the list %s was changed other than by adding to it", path)
	}
}

// sameElement reports whether two elements are one, maybe changed: containers,
// volumes and variables have names.
func sameElement(a, b any) bool {
	am, okA := a.(map[string]any)
	bm, okB := b.(map[string]any)
	if !okA || !okB {
		return equal(a, b)
	}
	return am["name"] == bm["name"]
}

// equal is reflect.DeepEqual for what JSON is read into, without its allocations.
func equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) || (a == nil) != (b == nil) {
			return false
		}
		for key, value := range a {
			other, ok := b[key]
			if !ok || !equal(value, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && (a == nil) == (b == nil) && slices.EqualFunc(a, b, equal)
	}
	switch b.(type) {
	case map[string]any, []any: // not to be compared with ==
		return false
	}
	return a == b
}

func isMap(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// escape is RFC 6901's for one element of a path.
func escape(key string) string { return pointerEscapes.Replace(key) }
