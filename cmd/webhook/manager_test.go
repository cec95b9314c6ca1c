package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

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
