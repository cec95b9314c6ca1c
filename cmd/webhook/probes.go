package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/elector-io/elector/cmd/internal/listen"
)

// probePlaces are the connections that each of the two ports for probes serves at
// a time: those of a kubelet and of a few scrapers are one each.
const probePlaces = 64

// answerAge is how old an answer may be that more than one client gets. What an
// answer costs does not depend on how many ask, then.
const answerAge = time.Second

// serveProbes answers kubelets on healthAddress and Prometheus on metricsAddress
// until stop is called.
func serveProbes(ctx context.Context, cfg config, health, metrics http.Handler) (stop func(), err error) {
	stopHealth, err := listen.Config{Address: cfg.healthAddress, Handler: health, Places: probePlaces}.Serve(ctx)
	if err != nil {
		return nil, fmt.Errorf("--health-address %q: %w", cfg.healthAddress, err)
	}
	stopMetrics, err := listen.Config{Address: cfg.metricsAddress, Handler: metrics, Places: probePlaces}.Serve(ctx)
	if err != nil {
		stopHealth()
		return nil, fmt.Errorf("--metrics-address %q: %w", cfg.metricsAddress, err)
	}
	return func() { stopMetrics(); stopHealth() }, nil
}

// healthHandler answers /healthz and /readyz, and a single check below them.
func healthHandler(live, ready map[string]healthz.Checker) http.Handler {
	mux := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{"/healthz": live, "/readyz": ready} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler)
	}
	return mux
}

// shared is a check that is made once for all who ask within answerAge. It must
// end by itself.
func shared(check healthz.Checker) healthz.Checker {
	turn := make(chan struct{}, 1)
	var made time.Time
	var result error
	return func(r *http.Request) error {
		turn <- struct{}{}
		defer func() { <-turn }()
		if made.IsZero() || time.Since(made) >= answerAge {
			// The one who asks may leave, and others wait for the answer.
			result = check(r.WithContext(context.WithoutCancel(r.Context())))
			made = time.Now()
		}
		return result
	}
}

// metricsHandler answers /metrics in Prometheus' text format. The text is made
// once for all who ask within answerAge, however long they take to read it.
func metricsHandler(from prometheus.Gatherer) http.Handler {
	var mu sync.Mutex
	var made time.Time
	var text []byte
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	current := func() ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if !made.IsZero() && time.Since(made) < answerAge {
			return text, nil
		}
		families, err := from.Gather()
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		encoder := expfmt.NewEncoder(&out, format)
		for _, family := range families {
			if err := encoder.Encode(family); err != nil {
				return nil, err
			}
		}
		text, made = out.Bytes(), time.Now()
		return text, nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		text, err := current()
		if err != nil {
			klog.FromContext(r.Context()).Error(err, "gathering metrics")
			http.Error(w, "metrics cannot be gathered, see the log", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", string(format))
		_, _ = w.Write(text) // the client may be gone
	})
	return mux
}
