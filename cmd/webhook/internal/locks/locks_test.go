package locks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

func lease(holder string, renewed int64) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web", UID: "1", Labels: map[string]string{"app.kubernetes.io/managed-by": "elector"},
			Annotations:   map[string]string{"elector.io/claim": "1 token 5"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "elector"}},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &metav1.MicroTime{Time: time.Unix(renewed, 0)}},
	}
}

func configMap(owners ...metav1.OwnerReference) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", OwnerReferences: owners, Annotations: map[string]string{"note": "long"}},
	}
}

// TestTrim holds that a trimmed lock object names the same holder.
func TestTrim(t *testing.T) {
	pod := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "1"}
	job := metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "web", UID: "2"}
	tests := map[string]struct {
		reason string
		object client.Object
		want   string
	}{
		"lease":          {"the holderIdentity", lease("web-0_1", 0), "web-0_1"},
		"free lease":     {"an empty one is none", lease("", 0), ""},
		"new lease":      {"nor is one that is not there", &coordinationv1.Lease{}, ""},
		"ConfigMap":      {"the owner", configMap(pod), "web-0_1"},
		"more owners":    {"the Pod among them", configMap(job, pod), "web-0_1"},
		"free ConfigMap": {"nobody owns it", configMap(), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			trimmed, err := Trim(tc.object)
			if err != nil {
				t.Fatal(err)
			}
			got := trimmed.(client.Object)
			if holder := kube.HolderOf(got); holder != tc.want {
				t.Errorf("the holder is %q, want %q: %s", holder, tc.want, tc.reason)
			}
			if got.GetName() != tc.object.GetName() || got.GetUID() != tc.object.GetUID() || len(got.GetAnnotations())+len(got.GetManagedFields()) > 0 {
				t.Errorf("trimmed to %+v", got)
			}
		})
	}
}

// TestTrimSize holds that the cache keeps little of a lock object, whatever it says.
func TestTrimSize(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	everything := func(o client.Object) client.Object {
		o.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "elector", large: large})
		o.SetAnnotations(map[string]string{large: large, "elector.io/next": large, "elector.io/handover": large, "elector.io/claim": large})
		o.SetFinalizers([]string{large})
		o.SetGenerateName(large)
		return o
	}
	pod := func(name string, uid types.UID) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: uid}
	}
	for name, object := range map[string]client.Object{
		"lease":      everything(lease(large, 0)),
		"ConfigMap":  everything(configMap(pod("web-0", "1"), pod("web-1", types.UID(large)))),
		"long owner": everything(configMap(pod(large, "1"))),
		"long UID":   everything(configMap(pod("web-0", types.UID(large)))),
		"long kind":  everything(configMap(metav1.OwnerReference{APIVersion: large, Kind: large})),
	} {
		trimmed, err := Trim(object)
		if err != nil {
			t.Fatal(err)
		}
		if kept := fmt.Sprintf("%+v %v", trimmed, kube.HolderOf(trimmed.(client.Object))); len(kept) > 2<<10 {
			t.Errorf("%s: %d bytes are kept", name, len(kept))
		}
	}
	for name, object := range map[string]*coordinationv1.Lease{"one": lease(large+"1", 0), "another": lease(large+"2", 0)} {
		trimmed, err := Trim(object)
		if err != nil || kube.HolderOf(trimmed.(client.Object)) != kube.HolderOf(object) {
			t.Errorf("%s long holder is another when it is trimmed (%v)", name, err)
		}
	}
}

// informers has one informer of its own.
type informers struct {
	cache.Cache
	informer toolscache.SharedIndexInformer
}

func (i informers) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return i.informer, nil
}

// queue notes what is added.
type queue struct {
	workqueue.TypedRateLimitingInterface[Lock]
	mu    sync.Mutex
	added []Lock
}

func (q *queue) Add(l Lock) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.added = append(q.added, l)
}

func (q *queue) await(t *testing.T, want ...Lock) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		q.mu.Lock()
		got := slices.Clone(q.added)
		q.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		if len(got) > len(want) || time.Now().After(deadline) {
			t.Fatalf("queued %v, want %v", got, want)
		}
		<-time.After(time.Millisecond)
	}
}

// TestChanges holds that a renewal is no change, and that nothing comes any more
// when the controller has ended.
func TestChanges(t *testing.T) {
	source := cachetesting.NewFakeControllerSource()
	informer := toolscache.NewSharedIndexInformer(source, &coordinationv1.Lease{}, 0, nil)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); informer.Run(stop) }()
	defer func() { close(stop); <-done }()

	web := Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}
	db := Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "db"}
	marker := func() runtime.Object {
		l := lease("db-0_1", 0)
		l.Name = "db"
		return l
	}
	source.Add(lease("web-0_1", 0))
	ctx, cancel := context.WithCancel(t.Context())
	var q queue
	if err := Changes(informers{informer: informer}, OfObjects(elector.ModeLease)).Start(ctx, &q); err != nil {
		t.Fatal(err)
	}
	q.await(t, web)
	source.Modify(lease("web-0_1", 3))
	source.Add(marker()) // what came before it has been dealt with when it is seen
	q.await(t, web, db)
	source.Modify(lease("web-1_2", 4))
	q.await(t, web, db, web, web)
	source.Delete(lease("web-1_2", 4))
	q.await(t, web, db, web, web, web)

	cancel()
	var after queue
	if err := Changes(informers{informer: informer}, OfObjects(elector.ModeLease)).Start(t.Context(), &after); err != nil {
		t.Fatal(err)
	}
	after.await(t, db)
	source.Add(lease("web-0_1", 5))
	after.await(t, db, web)
	q.await(t, web, db, web, web, web)
}

func TestString(t *testing.T) {
	if s := (Lock{Namespace: "shop", Mode: elector.ModeLeaderForLife, Name: "web"}).String(); s != "ConfigMap shop/web" {
		t.Error(s)
	}
}
