package locks

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// annotated is an object with annotations, of version 7.
func annotated(object client.Object, annotations ...string) client.Object {
	a := map[string]string{}
	for pair := range slices.Chunk(annotations, 2) {
		a["elector.io/"+pair[0]] = pair[1]
	}
	object.SetAnnotations(a)
	object.SetResourceVersion("7")
	return object
}

func TestSaidBy(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	owned := func() client.Object {
		return configMap(metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "1"})
	}
	tests := map[string]struct {
		reason string
		object client.Object
		want   Said
	}{
		"held":               {"nobody has released it", annotated(lease("web-0_1", 0), "claim", `{"holder":"web-0_1","token":5}`), Said{Holder: "web-0_1"}},
		"released":           {"its last holder noted it", annotated(lease("", 0), "claim", `{"holder":"web-0_1","released":true}`), Said{By: "web-0_1"}},
		"on request":         {"and why", annotated(lease("", 0), "claim", `{"holder":"web-0_1","released":true,"to":"web-1","why":"kubectl: alice"}`), Said{By: "web-0_1", Asked: true, Why: "kubectl: alice"}},
		"to somebody":        {"why need not be said", annotated(lease("", 0), "claim", `{"holder":"web-0_1","released":true,"to":"web-1"}`), Said{By: "web-0_1", Asked: true}},
		"emptied":            {"the note speaks of a claim", annotated(lease("", 0), "claim", `{"holder":"web-0_1","token":5}`), Said{}},
		"of another term":    {"the note is void", annotated(lease("", 0), "claim", `{"holder":"web-0_1","term":3,"released":true}`), Said{}},
		"asked":              {"a Lease says so when it is released", annotated(lease("web-0_1", 0), "claim", `{"holder":"web-0_1","token":5}`, "handover", `{"token":5,"why":"drain"}`), Said{Holder: "web-0_1"}},
		"unreadable":         {"it goes to a terminal", annotated(lease("", 0), "claim", `{"holder":"web-0_1","released":true,"why":"a\u001b[1m\nb"}`), Said{By: "web-0_1", Asked: true, Why: "a [1m b"}},
		"for life":           {"it belongs to a pod", annotated(owned(), "claim", `{"holder":"web-0_1","token":5}`), Said{Holder: "web-0_1"}},
		"for life, asked":    {"it will be deleted", annotated(owned(), "claim", `{"holder":"web-0_1","token":5}`, "handover", `{"token":5,"why":"drain"}`), Said{Holder: "web-0_1", Asked: true, Why: "drain"}},
		"for life, long ago": {"another claim was asked to end", annotated(owned(), "claim", `{"holder":"web-0_1","token":5}`, "handover", `{"token":4,"why":"drain"}`), Said{Holder: "web-0_1"}},
		"huge note":          {"it is none", annotated(lease("", 0), "claim", `{"holder":"`+large+`","released":true}`), Said{}},
		"huge holder":        {"there is no such candidate", annotated(lease("", 0), "claim", `{"holder":"`+large[:3000]+`","released":true}`), Said{}},
		"huge reason":        {"its beginning suffices", annotated(lease("", 0), "claim", `{"holder":"web-0_1","released":true,"why":"`+strings.Repeat("ä", 1000)+`"}`), Said{By: "web-0_1", Asked: true, Why: strings.Repeat("ä", 128)}},
		"huge request":       {"it is none", annotated(owned(), "claim", `{"token":5}`, "handover", `{"token":5,"why":"`+large+`"}`), Said{Holder: "web-0_1"}},
		"forged":             {"what Trim keeps is not what others write", annotated(lease("", 0), "released-by", large, "asked-for", large), Said{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			trimmed, err := Trim(tc.object)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.Version = "7"
			if diff := cmp.Diff(tc.want, SaidBy(trimmed.(client.Object))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if kept := fmt.Sprintf("%+v", trimmed); len(kept) > 2<<10 {
				t.Errorf("%d bytes are kept", len(kept))
			}
		})
	}
}

func TestPartingOf(t *testing.T) {
	held := func(holder string) Said { return Said{Version: "1", Holder: holder} }
	tests := map[string]struct {
		reason        string
		before, after Said
		want          Parting
	}{
		"taken":      {"the lock was free to nobody's eyes", held("a"), held("b"), Parting{Holder: "a", How: Taken}},
		"released":   {"by who held it", held("a"), Said{Version: "2", By: "a", Asked: true, Why: "w"}, Parting{Holder: "a", How: Released, Asked: true, Why: "w"}},
		"emptied":    {"without a word", held("a"), Said{Version: "2"}, Parting{Holder: "a", How: Emptied}},
		"by another": {"the word is an old one", held("a"), Said{Version: "2", By: "b", Asked: true, Why: "w"}, Parting{Holder: "a", How: Emptied}},
		"deleted":    {"with what was asked", Said{Version: "1", Holder: "a", Asked: true, Why: "w"}, Said{}, Parting{Holder: "a", How: Deleted, Asked: true, Why: "w"}},
		"renewed":    {"nobody parts", held("a"), held("a"), Parting{}},
		"acquired":   {"nobody parts", Said{Version: "1", By: "a"}, held("b"), Parting{}},
		"removed":    {"nobody parts", Said{Version: "1", By: "a"}, Said{}, Parting{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := PartingOf(tc.before, tc.after)
			if diff := cmp.Diff(tc.want, got); diff != "" || ok != (tc.want.Holder != "") {
				t.Errorf("%s, %v (-want +got):\n%s", tc.reason, ok, diff)
			}
		})
	}
}

// TestPartings has a Lease released and taken, and deleted, before anybody looks.
func TestPartings(t *testing.T) {
	source := cachetesting.NewFakeControllerSource()
	informer := toolscache.NewSharedIndexInformer(source, &coordinationv1.Lease{}, 0, nil)
	if err := informer.SetTransform(Trim); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); informer.Run(stop) }()
	defer func() { close(stop); <-done }()

	parted := make(chan string, 10)
	var q queue
	sources := Partings(informers{informer: informer}, true, func(l Lock, p Parting) { parted <- fmt.Sprintf("%s: %+v", l, p) })
	if len(sources) != 1 {
		t.Fatalf("%d sources with leader-for-life forbidden", len(sources))
	}
	if err := sources[0].Start(t.Context(), &q); err != nil {
		t.Fatal(err)
	}
	source.Add(lease("web-0_1", 0))
	source.Modify(annotated(lease("", 0), "claim", `{"holder":"web-0_1","released":true,"why":"w"}`))
	source.Modify(lease("web-1_2", 0))
	source.Modify(lease("web-1_2", 4)) // a renewal
	source.Delete(lease("web-1_2", 4))
	for _, want := range []string{
		fmt.Sprintf("Lease shop/web: %+v", Parting{Holder: "web-0_1", How: Released, Asked: true, Why: "w"}),
		fmt.Sprintf("Lease shop/web: %+v", Parting{Holder: "web-1_2", How: Deleted}),
	} {
		if got := <-parted; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	}
}
