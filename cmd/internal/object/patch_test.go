package object

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	jsonpatchv2 "gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
)

// apply returns raw with the operations applied.
func apply(t *testing.T, raw []byte, ops []jsonpatchv2.Operation) string {
	t.Helper()
	change, err := json.Marshal(ops)
	if err != nil {
		t.Fatal(err)
	}
	p, err := jsonpatch.DecodePatch(change)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Apply(raw)
	if err != nil {
		t.Fatalf("the patch does not apply: %v\n%s", err, change)
	}
	return string(out)
}

// TestReduce takes elements away between others, with fields that the types do not know in all of them.
func TestReduce(t *testing.T) {
	const raw = `{"spec":{"containers":[{"name":"a","future":1,"env":[{"name":"X","value":"1","future":0},{"name":"Y","value":"2","future":2},{"name":"X","value":"3"}]},` +
		`{"name":"b"},{"name":"c","future":{"x":[3]}}],"volumes":[{"name":"v","future":4}],"future":5},"future":6}`
	container := func(name string, env ...corev1.EnvVar) corev1.Container {
		return corev1.Container{Name: name, Env: env}
	}
	x1, y, x3 := corev1.EnvVar{Name: "X", Value: "1"}, corev1.EnvVar{Name: "Y", Value: "2"}, corev1.EnvVar{Name: "X", Value: "3"}
	tests := map[string]struct {
		reason     string
		containers []corev1.Container
		volumes    []corev1.Volume
		want       string
	}{
		"the middle one": {
			"the others stay what they are, and in order",
			[]corev1.Container{container("a", x1, y, x3), container("c")}, []corev1.Volume{{Name: "v"}},
			strings.Replace(raw, `{"name":"b"},`, "", 1),
		},
		"all of a list": {
			"the list goes, too",
			[]corev1.Container{container("a", x1, y, x3), container("b"), container("c")}, nil,
			strings.Replace(raw, `,"volumes":[{"name":"v","future":4}]`, "", 1),
		},
		"one of a name": {
			"its value tells which of the two it was",
			[]corev1.Container{container("a", y, x3), container("b"), container("c")}, []corev1.Volume{{Name: "v"}},
			strings.Replace(raw, `{"name":"X","value":"1","future":0},`, "", 1),
		},
		"the other of a name": {
			"its value tells which of the two it was",
			[]corev1.Container{container("a", x1, y), container("b"), container("c")}, []corev1.Volume{{Name: "v"}},
			strings.Replace(raw, `,{"name":"X","value":"3"}`, "", 1),
		},
		"all but one of a name": {
			"it keeps what the types do not know of it",
			[]corev1.Container{container("a", x1), container("b"), container("c")}, []corev1.Volume{{Name: "v"}},
			strings.Replace(raw, `,{"name":"Y","value":"2","future":2},{"name":"X","value":"3"}`, "", 1),
		},
		"several": {
			"indices are those of what is left by then",
			[]corev1.Container{container("a", y)}, []corev1.Volume{{Name: "v"}},
			`{"spec":{"containers":[{"name":"a","future":1,"env":[{"name":"Y","value":"2","future":2}]}],"volumes":[{"name":"v","future":4}],"future":5},"future":6}`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var before corev1.Pod
			if err := json.Unmarshal([]byte(raw), &before); err != nil {
				t.Fatal(err)
			}
			after := before.DeepCopy()
			after.Spec.Containers, after.Spec.Volumes = tc.containers, tc.volumes
			ops, err := Reduce([]byte(raw), &before, after)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := errors.Join(json.Unmarshal([]byte(apply(t, []byte(raw), ops)), &got), json.Unmarshal([]byte(tc.want), &want)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestPatchRefusesToRemove guards the indices of elements with unknown fields.
func TestPatchRefusesToRemove(t *testing.T) {
	before := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}}}
	after := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "b"}, {Name: "c"}}}}
	if ops, err := Patch([]byte(`{"spec":{"containers":[{"name":"a"},{"name":"b"}]}}`), before, after); err == nil {
		t.Errorf("a container was removed by %v", ops)
	}
	after = before.DeepCopy()
	after.Spec.Containers[0].Image = "x"
	if ops, err := Patch([]byte(`{"spec":{"containers":[{"name":"a"}]}}`), before, after); err == nil {
		t.Errorf("a list of another length was patched by %v", ops)
	}
}

// TestPatchRemovesWhatItKnows takes a whole object away where there is more in
// it than the types know.
func TestPatchRemovesWhatItKnows(t *testing.T) {
	before := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(bool)}}}
	raw := []byte(`{"spec":{"securityContext":{"runAsNonRoot":false,"future":1},"containers":null}}`)
	ops, err := Patch(raw, before, &corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := apply(t, raw, ops), `{"spec":{"securityContext":{"future":1},"containers":null}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// And the other way round: raw has something there, the types saw nothing.
	raw = []byte(`{"metadata":{},"spec":{"securityContext":{"future":1}}}`)
	if ops, err = Patch(raw, &corev1.Pod{}, before); err != nil {
		t.Fatal(err)
	}
	if got, want := apply(t, raw, ops), `{"metadata":{},"spec":{"securityContext":{"future":1,"runAsNonRoot":false}}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
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
