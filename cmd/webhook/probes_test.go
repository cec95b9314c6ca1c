package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

func get(h http.Handler, path string) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealth(t *testing.T) {
	fails := func(*http.Request) error { return errors.New("no") }
	h := healthHandler(map[string]healthz.Checker{"election": healthz.Ping}, map[string]healthz.Checker{"draining": healthz.Ping, "certificate": fails})
	for path, want := range map[string]int{
		"/healthz": 200, "/healthz/": 200, "/healthz/election": 200, "/healthz/other": 404,
		"/readyz": 500, "/readyz/draining": 200, "/readyz/certificate": 500, "/": 404, "/metrics": 404,
	} {
		if got, body := get(h, path); got != want {
			t.Errorf("%s is answered with %d %s, want %d", path, got, body, want)
		}
	}
}

// TestSharedCheck holds that a check is made once, however many ask.
func TestSharedCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := 0
		check := shared(func(r *http.Request) error {
			made++
			<-time.After(5 * time.Second)
			return r.Context().Err()
		})
		leaves, leave := context.WithCancel(t.Context())
		defer leave()
		var asking sync.WaitGroup
		for i := range 100 {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil)
			if i == 0 {
				r = r.WithContext(leaves)
			}
			asking.Go(func() {
				if err := check(r); err != nil {
					t.Error("somebody left, so the check fails for others:", err)
				}
			})
			if i == 0 {
				synctest.Wait()
				leave()
			}
		}
		asking.Wait()
		if made != 1 {
			t.Errorf("made %d times", made)
		}
		<-time.After(answerAge)
		_ = check(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		if made != 2 {
			t.Errorf("made %d times after %v", made, answerAge)
		}
	})
}

// TestMetricsText holds that the text is made once, however many ask.
func TestMetricsText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gathered := 0
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "one", Help: "Help."}, func() float64 { gathered++; return float64(gathered) }))
		h := metricsHandler(registry)
		const first = "# HELP one Help.\n# TYPE one gauge\none 1\n"
		for range 100 {
			if status, body := get(h, "/metrics"); status != http.StatusOK || body != first {
				t.Fatalf("%d %s", status, body)
			}
		}
		<-time.After(answerAge)
		if _, body := get(h, "/metrics"); body != strings.ReplaceAll(first, " 1\n", " 2\n") {
			t.Error(body)
		}
	})
}

// TestPhases holds when each ends.
func TestPhases(t *testing.T) {
	ended := func(ctx context.Context) bool { synctest.Wait(); return ctx.Err() != nil }
	t.Run("signal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, signal := context.WithCancel(t.Context())
			working, serving, end := phases(ctx, 5*time.Second)
			defer end()
			if ended(working) || ended(serving) {
				t.Fatal("ended at its begin")
			}
			began := time.Now()
			signal()
			if !ended(working) || ended(serving) {
				t.Errorf("after the signal: working %v, serving %v", working.Err(), serving.Err())
			}
			<-serving.Done()
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("drained for %v", took)
			}
		})
	})
	t.Run("end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			working, serving, end := phases(t.Context(), time.Hour)
			end()
			if !ended(working) || !ended(serving) {
				t.Error("something goes on")
			}
		})
	})
}

// TestProbesAreServed has both ports, one of them taken.
func TestProbesAreServed(t *testing.T) {
	free := func() string {
		s := httptest.NewServer(nil)
		defer s.Close()
		return s.Listener.Addr().String()
	}
	cfg := config{healthAddress: free(), metricsAddress: free()}
	says := func(word string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, word) })
	}
	stop, err := serveProbes(t.Context(), cfg, says("health"), says("metrics"))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{cfg.healthAddress: "health", cfg.metricsAddress: "metrics"} {
		response, err := http.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(response.Body); string(body) != want {
			t.Errorf("%s answers %s", want, body)
		}
		response.Body.Close()
	}
	if _, err := serveProbes(t.Context(), config{healthAddress: free(), metricsAddress: cfg.metricsAddress}, says(""), says("")); err == nil || !strings.HasPrefix(err.Error(), `--metrics-address "`) {
		t.Errorf("for an address that is taken: %v", err)
	}
	stop()
	if response, err := http.Get("http://" + cfg.healthAddress); err == nil {
		response.Body.Close()
		t.Error("it answers after its end")
	}
}
