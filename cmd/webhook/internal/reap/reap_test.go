package reap

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates/candidatestest"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
)

func lease(holder string) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web", Labels: map[string]string{"app.kubernetes.io/managed-by": "elector"},
			Annotations: map[string]string{"elector.io/claim": "7 token 123"},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseTransitions: ptr.To[int32](7), LeaseDurationSeconds: ptr.To[int32](15)},
	}
}

func configMap(owner string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web", UID: "cm", Labels: map[string]string{"app.kubernetes.io/managed-by": "elector"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: owner, UID: "1"}},
	}}
}

// pass reconciles the lock once and returns what is left of it, and the Events.
func pass(t *testing.T, l locks.Lock, funcs interceptor.Funcs, objects ...client.Object) (after client.Object, pause bool, told []string, err error) {
	t.Helper()
	api := fake.NewClientBuilder().WithObjects(objects...).Build()
	recorder := events.NewFakeRecorder(10)
	r, err := New(Config{Locks: interceptor.NewClient(api, funcs), Candidates: candidatestest.Listed{Reader: api}, Cache: candidatestest.Cached{Reader: api}, Events: recorder, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	r.listen(nil)
	result, err := r.reconcile(klog.NewContext(t.Context(), logr.Discard()), l)
	close(recorder.Events)
	for e := range recorder.Events {
		told = append(told, e)
	}
	after = locks.Object(l.Mode)
	if e := api.Get(t.Context(), client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, after); apierrors.IsNotFound(e) {
		after = nil
	} else if e != nil {
		t.Fatal(e)
	}
	return after, result.RequeueAfter > 0, told, err
}

func TestReapLease(t *testing.T) {
	pod := deadPod("web-0", "1", webLease)
	after, pause, told, err := pass(t, webLease, interceptor.Funcs{}, pod, lease("web-0_1"))
	if err != nil || pause {
		t.Fatal(pause, err)
	}
	got := after.(*coordinationv1.Lease)
	if *got.Spec.HolderIdentity != "" || got.Annotations["elector.io/claim"] != `{"holder":"web-0_1","term":7,"write":"","after":999,"released":true}` || *got.Spec.LeaseTransitions != 7 {
		t.Errorf("the lease is not what its holder's release makes of it: %+v", got)
	}
	want := []string{"Normal LockReaped Freed Lease shop/web: pod web-0 held it and has ended with phase Failed"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestReapConfigMap(t *testing.T) {
	pod := deadPod("web-0", "1", webConfigMap)
	sent := client.DeleteOptions{}
	after, pause, _, err := pass(t, webConfigMap, interceptor.Funcs{
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			sent.ApplyOptions(opts)
			return c.Delete(ctx, obj)
		},
	}, pod, configMap("web-0"))
	if err != nil || pause || after != nil {
		t.Fatal(after, pause, err)
	}
	if p := sent.Preconditions; p == nil || p.UID == nil || *p.UID != "cm" || p.ResourceVersion == nil || *p.ResourceVersion == "" {
		t.Errorf("deleted with %+v", p)
	}
}

// TestLeftAlone has locks that must not be touched.
func TestLeftAlone(t *testing.T) {
	foreign := lease("web-0_1")
	foreign.Labels = nil
	mine := deadPod("web-0", "1", webLease)
	tests := map[string]struct {
		reason  string
		objects []client.Object
	}{
		"another holder": {"it is not the dead pod's", []client.Object{mine, lease("web-1_2")}},
		"foreign":        {"an annotation must not become a way to someone else's objects", []client.Object{mine, foreign}},
		"alive":          {"it may still claim", []client.Object{deadPod("web-0", "1", webLease, func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }), lease("web-0_1")}},
		"vanished":       {"its processes may run", []client.Object{lease("web-0_1")}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			write := func() error { return errors.New(tc.reason) }
			_, pause, told, err := pass(t, webLease, interceptor.Funcs{
				Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error { return write() },
				Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error { return write() },
			}, tc.objects...)
			if err != nil || pause || told != nil {
				t.Error(err, pause, told)
			}
		})
	}
}

// TestConflict has the lock change between the read and the write.
func TestConflict(t *testing.T) {
	after, pause, told, err := pass(t, webLease, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if err := c.Get(ctx, key, obj, opts...); err != nil {
				return err
			}
			other := obj.DeepCopyObject().(*coordinationv1.Lease)
			other.Spec.HolderIdentity = new("web-1_2")
			return c.Update(ctx, other)
		},
	}, deadPod("web-0", "1", webLease), lease("web-0_1"))
	if err != nil || !pause || told != nil {
		t.Error("not looked at again", err, pause, told)
	}
	if holder := *after.(*coordinationv1.Lease).Spec.HolderIdentity; holder != "web-1_2" {
		t.Errorf("the holder is %q", holder)
	}
}

// TestGoing has a pod that is being deleted: nobody is told.
func TestGoing(t *testing.T) {
	pod := deadPod("web-0", "1", webLease, func(p *corev1.Pod) {
		p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: metav1.Now().Time}, []string{"test/stay"}
	})
	after, _, told, err := pass(t, webLease, interceptor.Funcs{}, pod, lease("web-0_1"))
	if err != nil || told != nil || *after.(*coordinationv1.Lease).Spec.HolderIdentity != "" {
		t.Error(err, told, after)
	}
}

// stranger is a pod without a sidecar that ended, as its kubelet reports it.
func stranger(uid types.UID, change ...func(*corev1.Pod)) *corev1.Pod {
	p := deadPod("op-0", uid, webLease)
	p.Labels, p.Annotations, p.Spec.InitContainers, p.Status.InitContainerStatuses = nil, nil, nil, nil
	for _, c := range change {
		c(p)
	}
	return p
}

// TestStranger has locks whose holder is none of their pods.
func TestStranger(t *testing.T) {
	waits := deadPod("web-1", "2", webConfigMap, func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodRunning} })
	ended := deadPod("web-1", "2", webConfigMap, func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodFailed} })
	adopted := configMap("op-0")
	adopted.Labels, adopted.Annotations = nil, map[string]string{"elector.io/adopt": "true"}
	foreign := configMap("op-0")
	foreign.Labels = nil
	alive := func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }
	tests := map[string]struct {
		reason  string
		objects []client.Object
		freed   bool
		again   bool
	}{
		"evicted":        {"operator-lib's leader blocks ours for ever", []client.Object{waits, adopted, stranger("1")}, true, false},
		"ours":           {"elector made the lock, and the pod lost its marks", []client.Object{waits, configMap("op-0"), stranger("1")}, true, false},
		"alive":          {"nobody watches it, so it is looked at again", []client.Object{waits, adopted, stranger("1", alive)}, false, true},
		"between":        {"one of its containers may start again", []client.Object{waits, adopted, stranger("1", func(p *corev1.Pod) { p.Status.Conditions[1].Reason = "ContainersNotReady" })}, false, true},
		"recreated":      {"the pod is another than the holder", []client.Object{waits, adopted, stranger("9")}, false, false},
		"vanished":       {"its processes may run, and the garbage collector frees the lock", []client.Object{waits, adopted}, false, false},
		"not adopted":    {"an annotation must not become a way to someone else's objects", []client.Object{waits, foreign, stranger("1")}, false, false},
		"nobody waits":   {"it is nobody's business", []client.Object{ended, adopted, stranger("1")}, false, false},
		"never started":  {"what held the lock was started", []client.Object{waits, adopted, stranger("1", func(p *corev1.Pod) { p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "app"} })}, false, true},
		"sidecar unsure": {"a pod that has the sidecar says of it that it is terminated", []client.Object{waits, adopted, stranger("1", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "elector"}} })}, false, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			after, pause, told, err := pass(t, webConfigMap, interceptor.Funcs{}, tc.objects...)
			if err != nil || (after == nil) != tc.freed || pause != tc.again || (len(told) > 0) != tc.freed {
				t.Errorf("%s: error %v, freed %v, again %v, told %q", tc.reason, err, after == nil, pause, told)
			}
		})
	}
}

// TestStrangersOneByOne reads many holders: each may be as large as a Pod can be.
func TestStrangersOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reading, most, reads := make(chan struct{}, workers), 0, 0
		var mu sync.Mutex
		api := interceptor.NewClient(fake.NewClientBuilder().WithObjects(stranger("1")).Build(), interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
				reading <- struct{}{}
				defer func() { <-reading }()
				mu.Lock()
				most, reads = max(most, len(reading)), reads+1
				mu.Unlock()
				<-time.After(time.Second)
				return c.Get(ctx, key, obj, opts...)
			},
		})
		r, err := New(Config{Locks: api, Candidates: candidatestest.Listed{Reader: api}, Cache: candidatestest.Cached{Reader: api}, Events: events.NewFakeRecorder(1), Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range workers {
			all.Go(func() {
				if pod, err := r.stranger(t.Context(), webConfigMap, "op-0_1"); err != nil || !pod.Dead {
					t.Error(pod, err)
				}
			})
		}
		synctest.Wait()
		ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.stranger(ended, webConfigMap, "op-0_1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting beyond its time: %v", err)
		}
		all.Wait()
		if most != 1 || reads != workers {
			t.Errorf("%d reads, and %d at a time", reads, most)
		}
	})
}
