package sweep

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

var job = locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "job-x7d2k"}

// pods are the candidates of the one lock.
type pods struct {
	locks.Informers
	now []candidates.Pod
}

func (p *pods) OfLock(locks.Lock) []candidates.Pod { return p.now }

func lease(change func(*coordinationv1.Lease)) *coordinationv1.Lease {
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: job.Name, UID: "1", Labels: map[string]string{"app.kubernetes.io/managed-by": "elector"}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("")},
	}
	change(l)
	return l
}

func TestSweep(t *testing.T) {
	contends := candidates.Pod{Namespace: job.Namespace, Name: "job-x7d2k-0", UID: "1", Lock: job}
	ended := contends
	ended.Phase = corev1.PodSucceeded
	asItIs := func(*coordinationv1.Lease) {}
	tests := map[string]struct {
		reason string
		lease  func(*coordinationv1.Lease)
		before []candidates.Pod // then none
		after  []candidates.Pod // at last
		gone   bool
	}{
		"Job gone":      {"its name never comes again", asItIs, []candidates.Pod{contends}, nil, true},
		"Job done":      {"its pod stays, and contends no more", asItIs, []candidates.Pod{contends}, []candidates.Pod{ended}, true},
		"takeover":      {"a new manager sees the pod that ended", asItIs, []candidates.Pod{ended}, []candidates.Pod{ended}, true},
		"not ours":      {"a program with the library has no pod that is known", asItIs, nil, nil, false},
		"used":          {"a pod contends", asItIs, []candidates.Pod{contends}, []candidates.Pod{contends}, false},
		"held":          {"by a program that shares it, say", func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("other_1") }, []candidates.Pod{contends}, nil, false},
		"somebody's":    {"elector did not make it", func(l *coordinationv1.Lease) { l.Labels = nil }, []candidates.Pod{contends}, nil, false},
		"adopted":       {"somebody cares for it", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"elector.io/adopt": "true"} }, []candidates.Pod{contends}, nil, false},
		"nobody's yet":  {"it was never held", func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }, []candidates.Pod{contends}, nil, true},
		"other account": {"whoever contended", asItIs, []candidates.Pod{contends, ended}, nil, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := fake.NewClientBuilder().WithObjects(lease(tc.lease)).Build()
				known := &pods{now: tc.before}
				s, err := New(Config{Locks: api, Candidates: known})
				if err != nil {
					t.Fatal(err)
				}
				look := func() (again time.Duration, gone bool) {
					result, err := s.reconcile(klog.NewContext(t.Context(), logr.Discard()), job)
					if err != nil {
						t.Fatal(err)
					}
					err = api.Get(t.Context(), client.ObjectKey{Namespace: job.Namespace, Name: job.Name}, &coordinationv1.Lease{})
					return result.RequeueAfter, apierrors.IsNotFound(err)
				}
				look()
				known.now = nil
				if tc.after != nil {
					known.now = tc.after
				}
				again, gone := look()
				if gone {
					t.Error("removed without a pause")
				}
				for waited := time.Duration(0); again > 0 && !gone; waited += again {
					if waited >= pause {
						t.Fatal("goes on for ever")
					}
					<-time.After(again)
					again, gone = look()
				}
				if gone != tc.gone {
					t.Errorf("%s: removed %v, want %v", tc.reason, gone, tc.gone)
				}
			})
		})
	}
}

// TestEdited has somebody write the Lease between the look at it and its removal,
// and nobody after that.
func TestEdited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edits := 0
		api := interceptor.NewClient(fake.NewClientBuilder().WithObjects(lease(func(*coordinationv1.Lease) {})).Build(), interceptor.Funcs{
			Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
				if edits++; edits == 1 {
					return apierrors.NewConflict(coordinationv1.Resource("leases"), obj.GetName(), nil)
				}
				return c.Delete(ctx, obj, opts...)
			},
		})
		known := &pods{now: []candidates.Pod{{Namespace: job.Namespace, Lock: job}}}
		s, err := New(Config{Locks: api, Candidates: known})
		if err != nil {
			t.Fatal(err)
		}
		look := func(want time.Duration) {
			t.Helper()
			result, err := s.reconcile(klog.NewContext(t.Context(), logr.Discard()), job)
			if err != nil || result.RequeueAfter != want {
				t.Fatalf("looks again after %s, %v; want %s", result.RequeueAfter, err, want)
			}
			<-time.After(result.RequeueAfter)
		}
		look(0)
		known.now = nil
		look(pause)
		look(pause)
		look(0)
		err = api.Get(t.Context(), client.ObjectKey{Namespace: job.Namespace, Name: job.Name}, &coordinationv1.Lease{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("the Lease stays: %v", err)
		}
	})
}

// TestPause has pods that come in the meantime, as a CronJob's do.
func TestPause(t *testing.T) {
	s := &Sweeper{used: map[locks.Lock]time.Time{}}
	contends := []candidates.Pod{{Lock: job}}
	start := time.Now()
	steps := []struct {
		after time.Duration
		pods  []candidates.Pod
		rest  time.Duration
		due   bool
	}{
		{0, contends, 0, false},
		{time.Minute, nil, pause, false},
		{4 * time.Minute, nil, pause - 3*time.Minute, false},
		{9 * time.Minute, contends, 0, false},
		{10 * time.Minute, nil, pause, false},
		{12 * time.Minute, nil, pause - 2*time.Minute, false},
		{20 * time.Minute, nil, 0, true},
	}
	for _, step := range steps {
		rest, due := s.due(job, step.pods, start.Add(step.after))
		if rest != step.rest || due != step.due {
			t.Errorf("after %s: %s left, due %v; want %s, %v", step.after, rest, due, step.rest, step.due)
		}
	}
}
