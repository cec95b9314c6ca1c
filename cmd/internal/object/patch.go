package object

import (
	"bytes"
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

// Patch returns the operations that turn raw into what makes before after.
//
// before is what our API types read from raw, after is before with changes. The
// two are compared with each other, so whatever the types left out of raw is in
// neither and cannot appear in the patch; a comparison of raw with after would
// remove it. raw itself is consulted for which parents exist, and to keep a
// parent whole that has more in it than the types know.
//
// Elements may have been added to a list, and one of those that were there may
// have moved, which takes it with all that raw has in it. None may have been removed,
// and no others re-ordered: the indices of elements that hold unknown fields must
// stay theirs. Anything else is an error.
//
// The managed fields of before and after are dropped, and so are not patched: the
// API server writes them, no handler does, and they are a good part of an object.
func Patch(raw []byte, before, after runtime.Object) ([]jsonpatch.Operation, error) {
	return (&differ{}).objects(raw, before, after)
}

// Reduce is Patch for a change that removes elements of lists, and adds and moves
// none. An object that has nothing left goes, too. Which of several elements of one name was removed must show: all that are
// left have to be as they were.
func Reduce(raw []byte, before, after runtime.Object) ([]jsonpatch.Operation, error) {
	return (&differ{removes: true}).objects(raw, before, after)
}

type differ struct {
	removes bool // elements of lists
	patch   []jsonpatch.Operation
	err     error
}

func (d *differ) objects(raw []byte, before, after runtime.Object) ([]jsonpatch.Operation, error) {
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
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // of an element that moves, all goes back exactly
	if err := decoder.Decode(&r); err != nil {
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
	d.values("", r, b, a)
	return d.patch, d.err
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
		case d.removes && ok && len(inner) == 0 && isMap(b) && isMap(r) && len(r.(map[string]any)) == len(b.(map[string]any)) && len(b.(map[string]any)) > 0:
			// The types write out an empty metadata; nobody else does.
			d.patch = append(d.patch, jsonpatch.NewOperation("remove", at, nil))
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
	if d.removes {
		raw, before = d.remove(path, raw, before, after)
	}
	if from, to, ok := moved(before, after); ok {
		// The library's operations have no "from", so no "move" either.
		d.patch = append(d.patch, jsonpatch.NewOperation("remove", path+"/"+strconv.Itoa(from), nil))
		d.add(path+"/"+strconv.Itoa(to), raw[from])
		raw, before = move(raw, from, to), move(before, from, to)
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

// remove takes out of before, and of raw, what is not in after. The last goes first, so
// that the indices of the others are right.
func (d *differ) remove(path string, raw, before, after []any) (rawLeft, left []any) {
	rawLeft, left = slices.Clone(raw), slices.Clone(before)
	k := len(after) - 1
	for i, had := range slices.Backward(before) {
		if k >= 0 && (equal(had, after[k]) || unique(before, i) && sameElement(had, after[k])) {
			k--
			continue
		}
		d.patch = append(d.patch, jsonpatch.NewOperation("remove", path+"/"+strconv.Itoa(i), nil))
		rawLeft, left = slices.Delete(rawLeft, i, i+1), slices.Delete(left, i, i+1)
	}
	return rawLeft, left
}

// unique reports whether the element is the only one of its name.
func unique(list []any, i int) bool {
	name := nameOf(list[i])
	for j, other := range list {
		if j != i && nameOf(other) == name {
			return false
		}
	}
	return name != ""
}

// moved finds the one named element that stands elsewhere among those of before
// than it did, and its new index among them. ok is false if none does, or if it takes
// more than one.
func moved(before, after []any) (from, to int, ok bool) {
	stay := 0
	for _, value := range after {
		if stay < len(before) && sameElement(before[stay], value) {
			stay++
		}
	}
	if stay == len(before) {
		return 0, 0, false
	}
	was := make([]string, len(before))
	there := make(map[string]bool, len(before))
	for i, value := range before {
		was[i] = nameOf(value)
		there[was[i]] = true
	}
	var now []string
	for _, value := range after {
		if name := nameOf(value); there[name] {
			now = append(now, name)
		}
	}
	if len(there) != len(was) || len(now) != len(was) {
		return 0, 0, false
	}
	first := 0
	for first < len(was)-1 && was[first] == now[first] {
		first++
	}
	for _, try := range [][2]int{{first, slices.Index(now, was[first])}, {slices.Index(was, now[first]), first}} {
		if from, to = try[0], try[1]; from >= 0 && to >= 0 && slices.Equal(move(was, from, to), now) {
			return from, to, true
		}
	}
	return 0, 0, false
}

// move returns a list in which one element stands at another index.
func move[E any](list []E, from, to int) []E {
	rest := slices.Delete(slices.Clone(list), from, from+1)
	return slices.Insert(rest, to, list[from])
}

// nameOf is an element's name, empty if it has none.
func nameOf(element any) string {
	fields, _ := element.(map[string]any)
	name, _ := fields["name"].(string)
	return name
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
