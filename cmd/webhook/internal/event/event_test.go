package event

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// recorder notes what is told to whom.
type recorder struct{ told []string }

func (r *recorder) Eventf(regarding, _ runtime.Object, _, reason, _, note string, args ...any) {
	name := ""
	switch o := regarding.(type) {
	case *metav1.PartialObjectMetadata:
		name = o.Kind + " " + o.Namespace + "/" + o.Name
	case *corev1.Pod:
		name = "Pod " + o.Namespace + "/" + o.Name
	case *coordinationv1.Lease:
		name = "Lease " + o.Namespace + "/" + o.Name
	}
	r.told = append(r.told, name+" "+reason+": "+fmt.Sprintf(note, args...))
}

// bed is a Recorder over an API server that counts reads.
type bed struct {
	*Recorder
	recorder
	reads int
	fails error
}

func newBed(t *testing.T, objects ...client.Object) *bed {
	t.Helper()
	b := &bed{}
	api := interceptor.NewClient(fake.NewClientBuilder().WithObjects(objects...).Build(), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			b.reads++
			if b.fails != nil {
				return b.fails
			}
			return c.Get(ctx, key, obj, opts...)
		},
	})
	b.Recorder = New(&b.recorder, api)
	return b
}

func (b *bed) tell(object runtime.Object) {
	b.Recorder.Eventf(object, nil, corev1.EventTypeWarning, "Refused", "Grant", "%s", "100%")
}

func owned(kind, apiVersion, name string, uid types.UID) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", OwnerReferences: []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid, Controller: new(true)}}}
}

func pod(name string, meta metav1.ObjectMeta) *corev1.Pod {
	meta.Namespace, meta.Name, meta.UID = "shop", name, types.UID(name)
	return &corev1.Pod{ObjectMeta: meta}
}

func replicaSet(name string, meta metav1.ObjectMeta) *appsv1.ReplicaSet {
	meta.Namespace, meta.Name, meta.UID = "shop", name, types.UID(name)
	return &appsv1.ReplicaSet{ObjectMeta: meta}
}

// TestWhoIsTold holds that a workload is told only of pods that it may have made.
func TestWhoIsTold(t *testing.T) {
	job := &batchv1.Job{ObjectMeta: owned("CronJob", "batch/v1", "nightly", "3")}
	job.Name, job.UID = "nightly-1", "job"
	there := []client.Object{
		replicaSet("web-1", owned("Deployment", "apps/v1", "web", "2")), replicaSet("alone", metav1.ObjectMeta{}),
		replicaSet("rolled", owned("Rollout", "argoproj.io/v1alpha1", "web", "2")), replicaSet("noded", owned("Node", "v1", "node-1", "2")), job,
	}
	long := strings.Repeat("x", 1<<20)
	tests := map[string]struct {
		reason string
		owner  metav1.ObjectMeta
		want   string // besides the pod
	}{
		"nobody":            {"it made itself", metav1.ObjectMeta{}, ""},
		"Deployment":        {"it is there longer than its ReplicaSet", owned("ReplicaSet", "apps/v1", "web-1", "web-1"), "Deployment shop/web"},
		"CronJob":           {"it is there longer than its Job", owned("Job", "batch/v1", "nightly-1", "job"), "CronJob shop/nightly"},
		"ReplicaSet":        {"nothing is behind it", owned("ReplicaSet", "apps/v1", "alone", "alone"), "ReplicaSet shop/alone"},
		"Rollout":           {"nobody knows what it is", owned("ReplicaSet", "apps/v1", "rolled", "rolled"), "ReplicaSet shop/rolled"},
		"Node behind":       {"a Node has no ReplicaSets", owned("ReplicaSet", "apps/v1", "noded", "noded"), "ReplicaSet shop/noded"},
		"StatefulSet":       {"it makes pods itself", owned("StatefulSet", "apps/v1", "db", "4"), "StatefulSet shop/db"},
		"DaemonSet":         {"it makes pods itself", owned("DaemonSet", "apps/v1", "agent", "4"), "DaemonSet shop/agent"},
		"Node":              {"it makes no pods, and an Event about it is in another namespace", owned("Node", "v1", "node-1", "5"), ""},
		"Namespace":         {"nor does it", owned("Namespace", "v1", "kube-system", "5"), ""},
		"another group's":   {"a kind of that name", owned("StatefulSet", "example.com/v1", "db", "4"), ""},
		"another UID":       {"it was another one, or is forged", owned("ReplicaSet", "apps/v1", "web-1", "old"), ""},
		"gone":              {"it is forged, or nobody looks there", owned("ReplicaSet", "apps/v1", "gone", "6"), ""},
		"a name too long":   {"there is none", owned("StatefulSet", "apps/v1", long, "4"), ""},
		"a UID too long":    {"there is none", owned("StatefulSet", "apps/v1", "db", types.UID(long)), ""},
		"a version of none": {"there is none", owned("StatefulSet", "a/b/c", "db", "4"), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, there...)
			b.tell(pod("web-0", tc.owner))
			want := []string{"Pod shop/web-0 Refused: 100%"}
			if tc.want != "" {
				want = append(want, tc.want+" Refused: 100%")
			}
			if diff := cmp.Diff(want, b.told); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestOnce holds that what was said is said again only when it would be forgotten,
// or is something else.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, replicaSet("web-1", owned("Deployment", "apps/v1", "web", "2")))
		made := owned("ReplicaSet", "apps/v1", "web-1", "web-1")
		expect := func(reads int, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, b.told, cmpopts.EquateEmpty()); diff != "" || b.reads != reads {
				t.Errorf("%d reads, want %d; (-want +got):\n%s", b.reads, reads, diff)
			}
			b.told = nil
		}
		for range 100 {
			b.tell(pod("web-0", made))
		}
		expect(1, "Pod shop/web-0 Refused: 100%", "Deployment shop/web Refused: 100%")
		again := pod("web-0", made)
		again.ResourceVersion = "99"
		b.tell(again)
		expect(1)
		b.tell(pod("web-1", made)) // of the same workload
		expect(1, "Pod shop/web-1 Refused: 100%")
		b.Recorder.Eventf(pod("web-0", made), nil, corev1.EventTypeWarning, "Refused", "Grant", "for another reason")
		expect(1, "Pod shop/web-0 Refused: for another reason", "Deployment shop/web Refused: for another reason")
		<-time.After(sayAgain)
		b.tell(pod("web-0", made))
		expect(1, "Pod shop/web-0 Refused: 100%", "Deployment shop/web Refused: 100%")

		b.tell(lease("shop"))
		b.tell(lease("shop"))
		expect(1, "Lease shop/web Refused: 100%")
	})
}

// TestFlood has thousands of pods, each with an owner of its own.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		flood := func() {
			for i := range 10000 {
				name := fmt.Sprint("web-", i, "-", len(b.told))
				b.tell(pod(name, owned("ReplicaSet", "apps/v1", name, types.UID(name))))
			}
		}
		flood()
		if len(b.told) > writesAtOnce || b.reads > readsAtOnce {
			t.Errorf("%d Events, %d reads at once", len(b.told), b.reads)
		}
		before, reads := len(b.told), b.reads
		const later = 10
		<-time.After(later * time.Second)
		flood()
		if told, read := len(b.told)-before, b.reads-reads; told != later*writesPerSecond || read != later*readsPerSecond {
			t.Errorf("%d Events, %d reads in %d seconds", told, read, later)
		}
		if b.said.Len() > remembered || b.behind.Len() > remembered {
			t.Errorf("%d and %d are remembered", b.said.Len(), b.behind.Len())
		}
	})
}

// TestNoneSilencesAnother has many more refused pods than Events are written for.
func TestNoneSilencesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := func(b *bed, namespace string) {
			for i := range 5000 {
				p := pod(fmt.Sprint("web-", i), metav1.ObjectMeta{})
				p.Namespace = namespace
				b.tell(p)
			}
		}
		tests := map[string]struct {
			reason string
			flood  func(*bed)
			object runtime.Object
			want   string
		}{
			"object":            {"its owner hears once that it was used, or never", func(b *bed) { refused(b, "mallory") }, lease("shop"), "Lease shop/web Refused: 100%"},
			"object beside":     {"the pods that used it are in its namespace", func(b *bed) { refused(b, "shop") }, lease("shop"), "Lease shop/web Refused: 100%"},
			"pod":               {"of another namespace", func(b *bed) { refused(b, "mallory") }, pod("web-0", metav1.ObjectMeta{}), "Pod shop/web-0 Refused: 100%"},
			"many namespaces":   {"more than the bound over all pods", func(b *bed) { floodAll(b, refused) }, lease("shop"), "Lease shop/web Refused: 100%"},
			"many lock objects": {"of another namespace", func(b *bed) { leases(b, "mallory") }, lease("shop"), "Lease shop/web Refused: 100%"},
		}
		for name, tc := range tests {
			b := newBed(t)
			tc.flood(b)
			if len(b.told) > ofPodsAtOnce {
				t.Errorf("%s: %d Events at once", name, len(b.told))
			}
			b.told = nil
			b.tell(tc.object)
			if diff := cmp.Diff([]string{tc.want}, b.told); diff != "" {
				t.Errorf("%s: %s: (-want +got):\n%s", name, tc.reason, diff)
			}
			if n := b.writes.Len(); n > subjects {
				t.Errorf("%s: %d allowances are remembered", name, n)
			}
		}
	})
}

func floodAll(b *bed, flood func(*bed, string)) {
	for i := range 2 * ofPodsAtOnce / writesAtOnce {
		flood(b, fmt.Sprint("mallory-", i))
	}
	for i := range 2 * subjects {
		p := pod("web-0", metav1.ObjectMeta{})
		p.Namespace = fmt.Sprint("other-", i)
		b.tell(p)
	}
}

func leases(b *bed, namespace string) {
	for i := range 5000 {
		l := lease(namespace)
		l.Name = fmt.Sprint("web-", i)
		b.tell(l)
	}
}

func lease(namespace string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web", UID: "lease"}}
}

// TestForgedUID has a pod that names the UID of a ReplicaSet of another namespace,
// which is known already.
func TestForgedUID(t *testing.T) {
	b := newBed(t, replicaSet("web-1", owned("Deployment", "apps/v1", "web", "2")))
	b.tell(pod("web-0", owned("ReplicaSet", "apps/v1", "web-1", "web-1")))
	b.told = nil
	forged := pod("web-0", owned("ReplicaSet", "apps/v1", "web-1", "web-1"))
	forged.Namespace = "mallory"
	b.Recorder.Eventf(forged, nil, corev1.EventTypeWarning, "Refused", "Grant", "not said before")
	if diff := cmp.Diff([]string{"Pod mallory/web-0 Refused: not said before"}, b.told); diff != "" {
		t.Error(diff)
	}
}

// TestNotSaidYet holds that what was not let through is said later.
func TestNotSaidYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		for i := range writesAtOnce {
			b.tell(pod(fmt.Sprint("other-", i), metav1.ObjectMeta{}))
		}
		b.told = nil
		b.tell(pod("web-0", metav1.ObjectMeta{}))
		<-time.After(time.Second)
		b.tell(pod("web-0", metav1.ObjectMeta{}))
		if diff := cmp.Diff([]string{"Pod shop/web-0 Refused: 100%"}, b.told); diff != "" {
			t.Error(diff)
		}
	})
}

// TestUnread holds that a workload that cannot be read is looked for again.
func TestUnread(t *testing.T) {
	b := newBed(t, replicaSet("web-1", owned("Deployment", "apps/v1", "web", "2")))
	b.fails = errors.New("away")
	b.tell(pod("web-0", owned("ReplicaSet", "apps/v1", "web-1", "web-1")))
	b.fails = nil
	b.tell(pod("web-1", owned("ReplicaSet", "apps/v1", "web-1", "web-1")))
	want := []string{"Pod shop/web-0 Refused: 100%", "Pod shop/web-1 Refused: 100%", "Deployment shop/web Refused: 100%"}
	if diff := cmp.Diff(want, b.told); diff != "" {
		t.Error(diff)
	}
}

// TestAnew holds that the same is told again and again where that is asked for, with
// an allowance that is not the others'.
func TestAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		anew := b.Anew()
		web := pod("web-0", owned("StatefulSet", "apps/v1", "web", "4"))
		for range 3 {
			anew.Eventf(web, nil, corev1.EventTypeNormal, "BecameLeader", "Elect", "it leads")
		}
		if len(b.told) != 6 {
			t.Errorf("told %q", b.told)
		}
		for range 2 * writesAtOnce {
			anew.Eventf(web, nil, corev1.EventTypeNormal, "BecameLeader", "Elect", "it leads")
		}
		if len(b.told) != writesAtOnce {
			t.Errorf("told %d times at once", len(b.told))
		}
		if b.tell(web); len(b.told) != writesAtOnce+2 {
			t.Errorf("others are silenced: %q", b.told[writesAtOnce:])
		}
	})
}
