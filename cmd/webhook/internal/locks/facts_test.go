package locks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// TestFactsOf reads what Trim leaves of a lock object.
func TestFactsOf(t *testing.T) {
	const claim = `{"holder":"web-0_1","term":3,"write":"p.1","token":9}`
	held := func(annotations map[string]string) client.Object {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Annotations: annotations},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("web-0_1"), LeaseTransitions: new(int32(3))},
		}
	}
	life := configMap(metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "1"})
	life.SetAnnotations(map[string]string{"elector.io/claim": strings.Replace(claim, `"term":3,`, "", 1)})
	free := held(map[string]string{"elector.io/claim": claim, "elector.io/next": "web-1"}).(*coordinationv1.Lease)
	free.Spec.HolderIdentity = new("")
	long := strings.Repeat("web-1,", 1000)
	tests := map[string]struct {
		reason string
		object client.Object
		want   Facts
	}{
		"held":             {"who, and the token that he noted", held(map[string]string{"elector.io/claim": claim}), Facts{Holder: "web-0_1", Token: 9}},
		"leader-for-life":  {"the same of a ConfigMap", life, Facts{Holder: "web-0_1", Token: 9}},
		"just acquired":    {"no token is noted yet", held(map[string]string{"elector.io/claim": strings.Replace(claim, `,"token":9`, "", 1)}), Facts{Holder: "web-0_1"}},
		"another's note":   {"somebody changed the holder", held(map[string]string{"elector.io/claim": strings.Replace(claim, "web-0", "web-1", 1)}), Facts{Holder: "web-0_1"}},
		"an older note":    {"it is of another term", held(map[string]string{"elector.io/claim": strings.Replace(claim, "3", "2", 1)}), Facts{Holder: "web-0_1"}},
		"no note":          {"another program holds it", held(nil), Facts{Holder: "web-0_1"}},
		"garbage":          {"it is no note", held(map[string]string{"elector.io/claim": "7", "elector.io/handover": "now"}), Facts{Holder: "web-0_1"}},
		"free":             {"nobody's claim has a token", free, Facts{Next: "web-1"}},
		"asked of itself":  {"nobody obeys that", held(map[string]string{"elector.io/claim": claim, "elector.io/handover": `{"token":9,"to":"web-0"}`}), Facts{Holder: "web-0_1", Token: 9}},
		"asked":            {"for the end of this claim", held(map[string]string{"elector.io/claim": claim, "elector.io/handover": `{"token":9}`}), Facts{Holder: "web-0_1", Token: 9, Asked: true}},
		"asked another":    {"the request is an old one", held(map[string]string{"elector.io/claim": claim, "elector.io/handover": `{"token":8}`}), Facts{Holder: "web-0_1", Token: 9}},
		"next":             {"as it is", held(map[string]string{"elector.io/next": "web-0,web-1"}), Facts{Holder: "web-0_1", Next: "web-0,web-1"}},
		"next, much of it": {"its sum", held(map[string]string{"elector.io/next": long}), Facts{Holder: "web-0_1", Next: short(long)}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			trimmed, err := Trim(tc.object)
			if err != nil {
				t.Fatal(err)
			}
			got := FactsOf(trimmed.(client.Object))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			again, err := Trim(trimmed)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, FactsOf(again.(client.Object))); diff != "" {
				t.Errorf("trimmed twice it says another thing (-want +got):\n%s", diff)
			}
		})
	}
	if f := (Facts{Next: short(long)}); !f.IsNext(long) || f.IsNext(long+"x") || f.IsNext("") {
		t.Error("a long value is not told from others")
	}
}

// BenchmarkRenewal is what the manager does about a Lease each time that its holder renews it, besides decoding it, if nothing else changes.
func BenchmarkRenewal(b *testing.B) {
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web", UID: "7f9d2b1c-6d1f-4c39-b1c0-0a5a4de4a0b1", ResourceVersion: "4711", Labels: map[string]string{kube.ManagedByLabel: kube.ManagedBy},
			Annotations: map[string]string{
				kube.ClaimAnnotation:   `{"holder":"web-7c9d8f6b5-x2x4q_0d0bb1a7-3f0e-4d7f-9c0e-6a6d35f8b1f1","term":3,"write":"9f86d081.17","after":4700,"token":461}`,
				elector.NextAnnotation: "web-7c9d8f6b5-x2x4q,web-7c9d8f6b5-z9k2m",
			},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: new("web-7c9d8f6b5-x2x4q_0d0bb1a7-3f0e-4d7f-9c0e-6a6d35f8b1f1"), LeaseTransitions: new(int32(3))},
	}
	trimmed, err := Trim(lease)
	if err != nil {
		b.Fatal(err)
	}
	views := []func(client.Object) any{
		func(obj client.Object) any { return kube.HolderOf(obj) }, func(obj client.Object) any { return FactsOf(obj) }, func(obj client.Object) any { return obj.GetUID() },
	}
	b.ReportAllocs()
	for b.Loop() {
		now, err := Trim(lease)
		if err != nil {
			b.Fatal(err)
		}
		for _, view := range views {
			if view(trimmed.(client.Object)) != view(now.(client.Object)) {
				b.Fatal("a renewal is news")
			}
		}
	}
}
