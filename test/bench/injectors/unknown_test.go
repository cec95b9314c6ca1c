package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLost holds that each place is one that a pod has, and that what gets lost there is noticed: all of it by a reader that knows none.
func TestLost(t *testing.T) {
	pod, err := withUnknown(marshal(t, newPod(shapes[0])))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string(nil), lost(pod)); diff != "" {
		t.Error("of a pod that nobody touched (-want +got):\n", diff)
	}
	var typed corev1.Pod
	if err := json.Unmarshal(pod, &typed); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range places {
		all = append(all, p.name)
	}
	if diff := cmp.Diff(all, lost(marshal(t, typed))); diff != "" {
		t.Error("of a pod that went through the API's types (-want +got):\n", diff)
	}
	changed := []byte(strings.Replace(string(pod), `"newIn volume":{"kept":"as it came"}`, `"newIn volume":{}`, 1))
	if diff := cmp.Diff([]string{"volume"}, lost(changed)); diff != "" {
		t.Error("of a pod with a field that changed (-want +got):\n", diff)
	}
}

// TestPatched holds that an injector that adds nothing is not measured as if it did.
func TestPatched(t *testing.T) {
	pod := marshal(t, newPod(shapes[0]))
	const patch = `"patchType":"JSONPatch","patch":"W3sib3AiOiJyZXBsYWNlIiwicGF0aCI6Ii9zcGVjL2NvbnRhaW5lcnMvMC9uYW1lIiwidmFsdWUiOiJlbGVjdG9yIn1d"` // names the first container elector
	for name, tc := range map[string]struct{ reason, answer, sidecar, err string }{
		"added":     {reason: "the pod has it then", answer: `{"response":{"allowed":true,` + patch + `}}`, sidecar: "elector"},
		"another":   {reason: "some other change does not count", answer: `{"response":{"allowed":true,` + patch + `}}`, sidecar: "daprd", err: `the patched pod has no container "daprd"`},
		"nothing":   {reason: "a pod that does not ask is allowed", answer: `{"response":{"allowed":true}}`, err: "the pod does not get a sidecar"},
		"refused":   {reason: "that is quick, too", answer: `{"response":{"allowed":false,` + patch + `}}`, err: "the pod does not get a sidecar"},
		"no review": {reason: "an injector may answer with an error", answer: `{}`, err: "the pod does not get a sidecar"},
		"no JSON":   {reason: "likewise", answer: `oops`, err: "reading the answer to a review"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := patched(pod, []byte(tc.answer))
			if err == nil {
				err = checkSidecar(out, tc.sidecar)
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("%s: got error %v, want %q", tc.reason, err, tc.err)
			}
		})
	}
}

// TestSizes holds the reviews to the sizes that the targets of the webhook are for.
func TestSizes(t *testing.T) {
	var got []string
	for _, s := range shapes {
		review, err := newReview(marshal(t, newPod(s)))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, kilobytes(len(review)))
	}
	if diff := cmp.Diff([]string{"6 KB", "60 KB"}, got); diff != "" {
		t.Error("-want +got:\n", diff)
	}
}
