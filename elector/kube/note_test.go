package kube

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
)

// TestReadNote reads notes as they are, and as somebody makes them.
func TestReadNote(t *testing.T) {
	t.Parallel()
	const full = `{"holder":"web-0_u0","term":3,"write":"p.1","after":10,"token":9,"leaseSeconds":15,"released":true}`
	want := elector.Note{Holder: "web-0_u0", Write: "p.1", After: 10, Token: 9, LeaseDuration: 15 * time.Second, Released: true}
	with := func(change func(*elector.Note)) elector.Note { n := want; change(&n); return n }
	for name, tc := range map[string]struct {
		reason, text string
		want         elector.Note
	}{
		"full":           {"all of it is read", full, want},
		"none":           {"there is none", "", elector.Note{}},
		"another term":   {"a takeover by another program voids it", strings.Replace(full, `"term":3`, `"term":2`, 1), elector.Note{}},
		"nobody's":       {"it does not say who wrote it", strings.Replace(full, "web-0_u0", "", 1), elector.Note{}},
		"no JSON":        {"it can't be read", full[:len(full)-1], elector.Note{}},
		"half JSON":      {"what could be read of it does not count", strings.Replace(full, "15", `"15"`, 1), elector.Note{}},
		"negative":       {"no promise is", strings.Replace(full, "15", "-1", 1), elector.Note{}},
		"no promise":     {"leader-for-life", strings.Replace(full, "15", "0", 1), with(func(n *elector.Note) { n.LeaseDuration = 0 })},
		"longest":        {"a Duration holds it", strings.Replace(full, "15", "9223372036", 1), with(func(n *elector.Note) { n.LeaseDuration = 9223372036 * time.Second })},
		"too long":       {"in a Duration it would be negative", strings.Replace(full, "15", "9223372037", 1), elector.Note{}},
		"as large as is": {"the largest that is read", full + strings.Repeat(" ", 4096-len(full)), want},
		"larger":         {"it would cost memory", full + strings.Repeat(" ", 4096-len(full)+1), elector.Note{}},
		"larger token":   {"a number of 64 bits", strings.Replace(full, `"token":9`, `"token":18446744073709551615`, 1), with(func(n *elector.Note) { n.Token = math.MaxUint64 })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			obj := &coordinationv1.Lease{}
			if tc.text != "" {
				obj.Annotations = map[string]string{ClaimAnnotation: tc.text, "other": full}
			}
			if diff := cmp.Diff(tc.want, readNote(obj, 3)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestBounded holds that a huge holder is short, and still another than its neighbours.
func TestBounded(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("a", 1024)
	if got := bounded(longest); got != longest {
		t.Errorf("a holder of %d bytes became %q", len(longest), got)
	}
	const want = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…6a424025ce84288c"
	if got := bounded(longest + "a"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if bounded(longest+"b") == bounded(longest+"c") {
		t.Error("two holders became one")
	}
}

// TestHolderOf asks both kinds of lock.
func TestHolderOf(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("a", 2000)
	pod := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "u0"}}}}
	for name, tc := range map[string]struct {
		obj  metav1.Object
		want string
	}{
		"a Lease":                     {&coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: new("web-0_u0")}}, "web-0_u0"},
		"a Lease of nobody's":         {&coordinationv1.Lease{}, ""},
		"a Lease with a huge holder":  {&coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &huge}}, bounded(huge)},
		"a ConfigMap":                 {&pod, "web-0_u0"},
		"a ConfigMap of nobody's":     {&metav1.PartialObjectMetadata{}, ""},
		"a Lease that a Pod owns too": {&coordinationv1.Lease{ObjectMeta: pod.ObjectMeta}, ""},
	} {
		if got := HolderOf(tc.obj); got != tc.want {
			t.Errorf("%s is held by %q, want %q", name, got, tc.want)
		}
	}
}

// TestTokenOf reads the note, if it is of the one who holds the lock.
func TestTokenOf(t *testing.T) {
	t.Parallel()
	lease := func(holder string, term int32, note string) metav1.Object {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{ClaimAnnotation: note}},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseTransitions: &term},
		}
	}
	pod := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "u0"}},
		Annotations:     map[string]string{ClaimAnnotation: `{"holder":"web-0_u0","token":9}`},
	}}
	for name, tc := range map[string]struct {
		obj  metav1.Object
		want uint64
	}{
		"a Lease":               {lease("web-0_u0", 3, `{"holder":"web-0_u0","term":3,"token":9}`), 9},
		"a Lease just acquired": {lease("web-0_u0", 3, `{"holder":"web-0_u0","term":3}`), 0},
		"another term":          {lease("web-0_u0", 4, `{"holder":"web-0_u0","term":3,"token":9}`), 0},
		"another holder":        {lease("web-0_u1", 3, `{"holder":"web-0_u0","term":3,"token":9}`), 0},
		"a free Lease":          {lease("", 3, `{"holder":"web-0_u0","term":3,"token":9,"released":true}`), 0},
		"a released one that somebody gave to its last holder": {lease("web-0_u0", 3, `{"holder":"web-0_u0","term":3,"token":9,"released":true}`), 0},
		"a ConfigMap": {&pod, 9},
		"no object":   {&metav1.ObjectMeta{}, 0},
	} {
		if got := TokenOf(tc.obj); got != tc.want {
			t.Errorf("the token of %s is %d, want %d", name, got, tc.want)
		}
	}
}

// TestRelease writes what the holder would: as its last note has it, over the version that is known.
func TestRelease(t *testing.T) {
	t.Parallel()
	held := func() *coordinationv1.Lease {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{ResourceVersion: "41", Annotations: map[string]string{"a": "b", ClaimAnnotation: `{"holder":"web-0_u0","term":3,"write":"p.1","token":9}`}},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("web-0_u0"), LeaseTransitions: new(int32(3)), LeaseDurationSeconds: new(int32(15))},
		}
	}
	want := held()
	want.Annotations[ClaimAnnotation] = `{"holder":"web-0_u0","term":3,"write":"","after":41,"token":9,"released":true}`
	want.Spec.HolderIdentity = new("")
	got := held()
	if err := Release(got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got = held()
	got.ResourceVersion = "x"
	if err := Release(got); err == nil || *got.Spec.HolderIdentity == "" {
		t.Errorf("a Lease of no version is released: %v", err)
	}
}

// TestWishes reads what others ask of candidates, and keeps none of it that is too large.
func TestWishes(t *testing.T) {
	t.Parallel()
	const garbage = `elector.io/handover "now!" is not allowed: it must be like {"token":461,"to":"web-2","why":"maintenance"}`
	for name, tc := range map[string]struct {
		annotations map[string]string
		want        elector.Record
	}{
		"none":            {nil, elector.Record{}},
		"a handover":      {map[string]string{elector.HandoverAnnotation: `{"token":9,"to":"web-1","why":"w"}`}, elector.Record{Handover: elector.Handover{Token: 9, To: "web-1", Why: "w"}}},
		"garbage":         {map[string]string{elector.HandoverAnnotation: "now!"}, elector.Record{HandoverFault: garbage}},
		"nothing":         {map[string]string{elector.HandoverAnnotation: ""}, elector.Record{HandoverFault: strings.Replace(garbage, "now!", "", 1)}},
		"half a handover": {map[string]string{elector.HandoverAnnotation: `{"token":9,"to":"Web 1"}`}, elector.Record{HandoverFault: `elector.io/handover to "Web 1" is not allowed: it must be the name of a pod, or absent`}},
		"a huge one": {
			map[string]string{elector.HandoverAnnotation: strings.Repeat("y", 1<<18)},
			elector.Record{HandoverFault: `elector.io/handover "` + strings.Repeat("y", 80) + `…" is not allowed: it must have at most 1024 bytes`},
		},
		"a list":      {map[string]string{elector.NextAnnotation: "web-1, ,web-2,"}, elector.Record{Next: "web-1,web-2"}},
		"a huge list": {map[string]string{elector.NextAnnotation: strings.Repeat("web-1,", 1<<15)}, elector.Record{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got elector.Record
			readWishes(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Annotations: tc.annotations}}, &got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
