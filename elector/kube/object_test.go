package kube

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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
		"a Lease with a huge holder":  {&coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &huge}}, strings.Repeat("a", 64) + "…709ed71442c8d7b5"},
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
