package fit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates/candidatestest"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
)

// trimmed is a cache of lock objects.
type trimmed struct {
	cache.Cache
	client.Reader
}

func (c trimmed) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if err := c.Reader.Get(ctx, key, obj, opts...); err != nil {
		return err
	}
	kept, err := locks.Trim(obj)
	if err == nil {
		*obj.(*coordinationv1.Lease) = *kept.(*coordinationv1.Lease)
	}
	return err
}

func (c trimmed) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.Reader.List(ctx, list, opts...)
}

func pod(name string, broken bool) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"elector.io/injected": "true"},
			Annotations: map[string]string{"elector.io/status": `{"lock":"web","mode":"lease"}`},
		},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "elector", Args: []string{"--lock=web"}, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}},
			Containers:     []corev1.Container{{Name: "app"}},
		},
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if broken {
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
		p.Status.Conditions[0].Status = corev1.ConditionFalse
	}
	return p
}

func lease(change ...func(*coordinationv1.Lease)) *coordinationv1.Lease {
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web", UID: "lease", Labels: map[string]string{"app.kubernetes.io/managed-by": "elector"},
			Annotations: map[string]string{"elector.io/claim": `{"holder":"a_uid-a","term":3,"write":"p.1","token":9}`, "elector.io/next": "b", "mine": "stays"},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: new("a_uid-a"), LeaseTransitions: new(int32(3))},
	}
	for _, c := range change {
		c(l)
	}
	return l
}

// stage has a worker with an API server and what its cache has, which may differ: nil is the same.
type stage struct {
	*worker
	api     client.WithWatch
	told    *events.FakeRecorder
	patches []string
	result  reconcile.Result
	err     error
}

func newStage(t *testing.T, live, cached []client.Object) *stage {
	t.Helper()
	s := &stage{told: events.NewFakeRecorder(10)}
	s.api = interceptor.NewClient(fake.NewClientBuilder().WithObjects(live...).Build(), interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			data, err := patch.Data(obj)
			if err != nil {
				return err
			}
			s.patches = append(s.patches, string(data))
			return c.Patch(ctx, obj, patch, opts...)
		},
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
			return errors.New("it only patches")
		},
	})
	var before client.Reader = s.api
	if cached != nil {
		before = fake.NewClientBuilder().WithObjects(cached...).Build()
	}
	g, err := New(Config{
		Live: s.api, Candidates: candidatestest.Listed{Reader: before}, Cache: trimmed{Reader: before}, Asked: s.told, Events: s.told, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.worker = &worker{Guide: g, memories: map[locks.Lock]*memory{}}
	return s
}

// look reconciles the lock twice, half a minute apart.
func (s *stage) look(t *testing.T) {
	t.Helper()
	ctx := klog.NewContext(t.Context(), logr.Discard())
	for range 2 {
		if s.result, s.err = s.reconcile(ctx, web); s.err != nil {
			return
		}
		<-time.After(30 * time.Second) // virtual
	}
}

// asks are the requests that were sent, without versions, and the Events.
func (s *stage) asks(t *testing.T) (asked []string) {
	t.Helper()
	for _, p := range s.patches {
		var patch struct {
			Metadata struct {
				UID             types.UID      `json:"uid"`
				ResourceVersion string         `json:"resourceVersion"`
				Annotations     map[string]any `json:"annotations"`
			} `json:"metadata"`
			Spec any `json:"spec"`
		}
		if err := json.Unmarshal([]byte(p), &patch); err != nil {
			t.Fatal(err)
		}
		if patch.Metadata.UID != "lease" || patch.Metadata.ResourceVersion == "" || patch.Spec != nil {
			t.Errorf("it sends %s", p)
		}
		for _, key := range []string{"elector.io/next", "elector.io/handover"} {
			if value, ok := patch.Metadata.Annotations[key]; ok {
				asked = append(asked, fmt.Sprint(strings.TrimPrefix(key, "elector.io/"), " ", value))
			}
			delete(patch.Metadata.Annotations, key)
		}
		if len(patch.Metadata.Annotations) > 0 {
			t.Errorf("it sends %s", p)
		}
	}
	for len(s.told.Events) > 0 {
		asked = append(asked, <-s.told.Events)
	}
	return asked
}

func TestReconcile(t *testing.T) {
	const handover = `handover {"token":9,"to":"b","why":"fit: container app is in CrashLoopBackOff"}`
	const told = "Normal HandoverAsked Asked pod a to hand Lease shop/web over to b: container app is in CrashLoopBackOff"
	sick := []client.Object{pod("a", true), pod("b", false), lease()}
	unlabelled := func(l *coordinationv1.Lease) { l.Labels = nil }
	adopted := func(l *coordinationv1.Lease) {
		l.Labels = nil
		l.Annotations["elector.io/adopt"] = "true"
	}
	free := func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }
	done := func(p *corev1.Pod) *corev1.Pod {
		p.Status.Phase = corev1.PodSucceeded
		return p
	}
	// besides has a second container in the pod's app.
	besides := func(p *corev1.Pod, is corev1.ContainerState) *corev1.Pod {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other"})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "other", State: is})
		return p
	}
	tests := map[string]struct {
		reason       string
		live, cached []client.Object
		want         []string
	}{
		"broken":    {"it is asked", sick, nil, []string{handover, told}},
		"recovered": {"the cache did not know yet", []client.Object{pod("a", false), pod("b", false), lease()}, sick, nil},
		"a part has started again": {
			"the cache did not know yet, and for life that may be one that looks once whether it leads",
			[]client.Object{besides(pod("a", true), corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}), pod("b", false), lease()},
			[]client.Object{besides(pod("a", true), corev1.ContainerState{}), pod("b", false), lease()}, nil,
		},
		"a part has ended": {
			"that is no reason to let it lead",
			[]client.Object{besides(pod("a", true), corev1.ContainerState{}), pod("b", false), lease()},
			[]client.Object{besides(pod("a", true), corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}), pod("b", false), lease()}, []string{handover, told},
		},
		"successor is sick": {
			"the cache did not know yet", []client.Object{pod("a", true), pod("b", true), lease()}, sick, nil,
		},
		"successor is gone": {"the cache did not know yet", []client.Object{pod("a", true), lease()}, sick, nil},
		"leader is another": {
			"of its name", []client.Object{func() *corev1.Pod { p := pod("a", true); p.UID = "other"; return p }(), pod("b", false), lease()}, sick, nil,
		},
		"handed over": {
			"the cache did not know yet",
			[]client.Object{pod("a", true), pod("b", false), lease(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("b_uid-b") })}, sick, nil,
		},
		"claimed anew": {
			"the cache did not know yet", []client.Object{pod("a", true), pod("b", false), lease(func(l *coordinationv1.Lease) {
				l.Annotations["elector.io/claim"] = strings.Replace(l.Annotations["elector.io/claim"], "9", "10", 1)
			})}, sick, nil,
		},
		"asked already": {
			"by somebody", []client.Object{pod("a", true), pod("b", false), lease(func(l *coordinationv1.Lease) { l.Annotations["elector.io/handover"] = `{"token":9}` })}, sick, nil,
		},
		"taken away":      {"its label is gone", []client.Object{pod("a", true), pod("b", false), lease(unlabelled)}, sick, nil},
		"gone":            {"with its namespace, say", []client.Object{pod("a", true), pod("b", false)}, sick, nil},
		"adopted":         {"it is read at the API server", []client.Object{pod("a", true), pod("b", false), lease(adopted)}, sick[:2], []string{handover, told}},
		"somebody else's": {"an annotation must not become a way to it", []client.Object{pod("a", true), pod("b", false), lease(unlabelled)}, sick[:2], nil},
		"all have ended":  {"who comes next must not wait for them", []client.Object{done(pod("a", true)), done(pod("b", false)), lease(free)}, nil, []string{"next <nil>"}},
		"none":            {"it is not known whose lock it is", []client.Object{lease(free)}, nil, nil},
		"all sick": {
			"that is told, once", []client.Object{pod("a", true), pod("b", true), lease()}, nil,
			[]string{"next <nil>", "Warning NoFitCandidate Pod a goes on leading Lease shop/web, because no other candidate is fit: container app is in CrashLoopBackOff"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, tc.live, tc.cached)
				s.look(t)
				if s.err != nil {
					t.Fatal(s.err)
				}
				if diff := cmp.Diff(tc.want, s.asks(t)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
				}
			})
		})
	}
}

// related is a recorder of what Events are about, besides pods.
type related []string

func (r *related) Eventf(regarding, related runtime.Object, _, _, _, _ string, _ ...any) {
	about := "nothing"
	if lock, ok := related.(*metav1.PartialObjectMetadata); ok {
		about = fmt.Sprintf("%s %s/%s at %s", lock.Kind, lock.Namespace, lock.Name, lock.ResourceVersion)
	}
	*r = append(*r, regarding.(*corev1.Pod).Name+", "+about)
}

// TestRelated tells of each request, also where recorders see that the workload is the same: they go on telling the first.
func TestRelated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, []client.Object{pod("a", true), pod("b", false), lease()}, nil)
		var asked, others related
		s.Asked, s.Events = &asked, &others
		s.look(t)
		second := lease(func(l *coordinationv1.Lease) {
			l.Spec.HolderIdentity, l.Spec.LeaseTransitions = new("b_uid-b"), new(int32(4))
			l.Annotations["elector.io/claim"] = `{"holder":"b_uid-b","term":4,"write":"q.1","token":12}`
		})
		err := errors.Join(s.api.Patch(t.Context(), second, client.Merge), s.api.Status().Patch(t.Context(), pod("a", false), client.Merge), s.api.Status().Patch(t.Context(), pod("b", true), client.Merge))
		if err != nil {
			t.Fatal(err)
		}
		s.look(t)
		if diff := cmp.Diff(related{"a, Lease shop/web at 999", "b, Lease shop/web at 1002"}, asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		if err := s.api.Status().Patch(t.Context(), pod("a", true), client.Merge); err != nil {
			t.Fatal(err)
		}
		s.look(t)
		if diff := cmp.Diff(related{"b, Lease shop/web at 1003"}, others); diff != "" {
			t.Errorf("not asked (-want +got):\n%s", diff)
		}
	})
}

// TestDeadHolder writes to no lock whose holder renews no more: a candidate that polls would wait anew each time.
func TestDeadHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		renew := func() client.Object {
			return lease(func(l *coordinationv1.Lease) {
				l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = new(int32(15)), &metav1.MicroTime{Time: time.Now()}
			})
		}
		s := newStage(t, []client.Object{pod("a", false), pod("b", false), pod("c", false), renew()}, nil)
		ctx, start := klog.NewContext(t.Context(), logr.Discard()), time.Now()
		var last time.Duration
		flap := func(i int) {
			t.Helper()
			if err := s.api.Status().Patch(ctx, pod("c", i%2 > 0), client.Merge); err != nil {
				t.Fatal(err)
			}
			result, err := s.reconcile(ctx, web)
			if err != nil {
				t.Fatal(err)
			}
			switch wrote := len(s.patches) > 0; {
			case wrote:
				last = time.Since(start)
			case i%2 > 0 && result.RequeueAfter == 0: // else the lock says what it should
				t.Errorf("after %v nobody will look again", time.Since(start))
			}
			s.patches = nil
			<-time.After(11 * time.Second) // virtual
		}
		for i := range 40 {
			flap(i)
		}
		if last > 15*time.Second {
			t.Errorf("it wrote %v after the last renewal", last)
		}
		if err := s.api.Patch(ctx, renew(), client.Merge); err != nil {
			t.Fatal(err)
		}
		s.patches, last = nil, 0
		for i := range 2 {
			flap(i)
		}
		if last == 0 {
			t.Error("it does not write when the holder renews again")
		}
	})
}

// TestMisled counts the locks whose leader does not work while another candidate does.
func TestMisled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sick := []client.Object{pod("a", true), pod("b", false), lease()}
		s := newStage(t, sick, nil)
		s.look(t)
		if len(s.misled) != 1 {
			t.Errorf("%d locks are misled", len(s.misled))
		}
		s.forget(web)
		if len(s.misled)+len(s.memories) != 0 {
			t.Error("a lock that nobody contends for is remembered")
		}
	})
}

// TestForbidden leaves the other mode alone.
func TestForbidden(t *testing.T) {
	s := newStage(t, nil, nil)
	s.ForbidLeaderForLife = true
	if result, err := s.reconcile(t.Context(), webLife); err != nil || result != (reconcile.Result{}) || len(s.memories) != 0 {
		t.Errorf("%v %v", result, err)
	}
}

// TestNew holds that nothing required may be missing.
func TestNew(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("it needs nothing")
	}
}

// TestRefused annotates pods that run with what no pod can be made with. It is told once, and again when it was put right meanwhile.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		typo, ended := pod("b", false), pod("c", false)
		typo.Annotations["elector.io/handover-when"] = "nevr"
		ended.Annotations["elector.io/handover-when"] = "nevr"
		ended.Status.Phase = corev1.PodFailed
		s := newStage(t, []client.Object{pod("a", false), typo, ended, lease()}, nil)
		const told = `Warning FailoverIgnored elector.io/handover-when "nevr" is not allowed: use broken, unready or never; on a pod that runs the default counts instead`
		for step, tc := range []struct {
			value string
			want  []string
		}{{"nevr", []string{told}}, {"nevr", nil}, {"never", nil}, {"nevr", []string{told}}} {
			patch := fmt.Sprintf(`{"metadata":{"annotations":{"elector.io/handover-when":%q}}}`, tc.value)
			if err := s.api.Patch(t.Context(), typo.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
				t.Fatal(err)
			}
			if _, err := s.reconcile(klog.NewContext(t.Context(), logr.Discard()), web); err != nil {
				t.Fatal(err)
			}
			var got []string
			for len(s.told.Events) > 0 {
				got = append(got, <-s.told.Events)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("step %d (-want +got):\n%s", step, diff)
			}
		}
	})
}
