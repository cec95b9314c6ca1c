package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
	"github.com/elector-io/elector/inject"
)

// TestTrimPod holds that the reconcilers see in a trimmed pod what is in the
// whole one.
func TestTrimPod(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-0", UID: "1234", ResourceVersion: "7",
			Labels:        map[string]string{"app": "web"},
			Annotations:   map[string]string{"elector.io/enabled": "true", "elector.io/lock": "web", "large": "value"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "web",
			InitContainers:     []corev1.Container{{Name: "first", Image: "app:v1"}},
			Containers:         []corev1.Container{{Name: "app", Image: "app:v1"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
	whole, err := inject.Pod(pod, inject.Options{Image: "elector:v1", Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := trimPod(whole.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	trimmed := out.(*corev1.Pod)
	want, ok := inject.StatusOf(whole)
	if !ok {
		t.Fatal("the pod is not injected")
	}
	if got, ok := inject.StatusOf(trimmed); !ok || got != want {
		t.Errorf("status %+v %v, want %+v", got, ok, want)
	}
	if diff := cmp.Diff(whole.Labels, trimmed.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	type rest struct {
		namespace, name, uid, version, account string
		phase                                  corev1.PodPhase
	}
	of := func(p *corev1.Pod) rest {
		return rest{p.Namespace, p.Name, string(p.UID), p.ResourceVersion, p.Spec.ServiceAccountName, p.Status.Phase}
	}
	if of(trimmed) != of(whole) {
		t.Errorf("got %+v, want %+v", of(trimmed), of(whole))
	}
	if trimmed.Size() > whole.Size()/3 {
		t.Errorf("%d bytes of %d are kept", trimmed.Size(), whole.Size())
	}
}

// TestKinds holds that the manager knows how to reach every kind it caches.
func TestKinds(t *testing.T) {
	for obj := range cacheOptions(config{certificateMode: certificateSelf}).ByObject {
		gvk, err := apiutil.GVKForObject(obj, scheme.Scheme)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kinds().RESTMapping(gvk.GroupKind(), gvk.Version); err != nil {
			t.Error(err)
		}
	}
}

func TestLastCalls(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	handler := lastCalls(ctx, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for _, want := range []string{"", "close"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/mutate-pod", nil))
		if got := w.Header().Get("Connection"); got != want || w.Code != http.StatusOK {
			t.Errorf("Connection %q, status %d, want %q, 200", got, w.Code, want)
		}
		cancel()
	}
}

// lockAndHolder returns a lock in memory, and who holds it.
func lockAndHolder(t *testing.T, cfg config) (lock elector.Lock, holder func() string) {
	t.Helper()
	var store memory.Store
	lock, err := store.Lock(elector.Description{Settings: cfg.election, Namespace: cfg.namespace, Identity: cfg.identity})
	if err != nil {
		t.Fatal(err)
	}
	return lock, func() string { return store.Get(cfg.namespace, cfg.election.Lock).Holder }
}

func candidateConfig(t *testing.T) config {
	t.Helper()
	cfg, err := parseArgs(required, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestCandidateStops holds that reconcilers work during the claim only, and that
// the lock is free afterwards, however the end comes.
func TestCandidateStops(t *testing.T) {
	ends := map[string]func(cancel context.CancelFunc, stop chan struct{}){
		"manager ends": func(cancel context.CancelFunc, _ chan struct{}) { cancel() },
		"signal":       func(_ context.CancelFunc, stop chan struct{}) { close(stop) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			lock, holder := lockAndHolder(t, candidateConfig(t))
			stop := make(chan struct{})
			working, stopped := make(chan struct{}), false
			c, err := newCandidate(lock, elector.StatusDir(t.TempDir()), func(ctx context.Context) error {
				if holder() == "" {
					t.Error("works without the lock")
				}
				close(working)
				<-ctx.Done()
				if holder() == "" {
					t.Error("the lock is free before the work has ended")
				}
				stopped = true
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				<-working
				end(cancel, stop)
			}()
			if err := c.run(ctx, stop); err != nil {
				t.Error(err)
			}
			if h := holder(); !stopped || h != "" {
				t.Errorf("stopped %v, holder %q", stopped, h)
			}
		})
	}
}

// TestCandidateGivesUp holds that nobody leads who cannot work.
func TestCandidateGivesUp(t *testing.T) {
	broken := errors.New("broken")
	lock, holder := lockAndHolder(t, candidateConfig(t))
	otherStopped := false
	c, err := newCandidate(lock, "",
		func(context.Context) error { return broken },
		func(ctx context.Context) error {
			<-ctx.Done()
			otherStopped = true
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.run(t.Context(), nil); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if h := holder(); h != "" || !otherStopped {
		t.Errorf("holder %q, other reconciler stopped %v", h, otherStopped)
	}
}
