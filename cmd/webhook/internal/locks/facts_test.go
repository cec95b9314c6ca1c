package locks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
