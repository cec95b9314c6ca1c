package elector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// resignTimeout limits how long POST /resign waits for the loop; a loop that
// turns answers at once.
const resignTimeout = 5 * time.Second

// AppHandler answers the application, on the pod's loopback:
//
//	GET  /        {"name":"<leader's pod>"}, as contrib's leader-elector did
//	GET  /status  status.json
//	GET  /leader  200 if this candidate leads, else 503
//	GET  /events  server-sent events: a status now and at every change of role or leader
//	POST /resign  ends the claim, then frees the lock; 204, or 409 if it never resigns
func AppHandler(e *Elector) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"name": e.Leader()})
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, e.Status()) })
	mux.HandleFunc("GET /leader", leaderHandler(e))
	mux.HandleFunc("GET /events", eventsHandler(e))
	mux.HandleFunc("POST /resign", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), resignTimeout)
		defer cancel()
		switch err := e.Resign(ctx); {
		case errors.Is(err, ErrUnyielding):
			http.Error(w, err.Error(), http.StatusConflict)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// HealthHandler answers Prometheus, load balancers and people, on the pod's address:
//
//	GET /healthz  200, or 503 when the election loop is stuck
//	GET /leader   200 if this candidate leads, else 503
//	GET /metrics  Prometheus' text format
func HealthHandler(e *Elector) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := e.Check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		writeText(w, "ok\n")
	})
	mux.HandleFunc("GET /leader", leaderHandler(e))
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = e.WriteMetrics(w) // the client may be gone
	})
	return mux
}

func leaderHandler(e *Elector) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s := e.Status()
		if s.Role != RoleLeader {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		writeText(w, string(s.Role)+"\n")
	}
}

const (
	// eventsKeepAlive is how often an idle event stream shows that it lives.
	eventsKeepAlive = 15 * time.Second
	// eventsPatience is how long a subscriber may take to read an event before it
	// is dropped; a slow one delays nobody else.
	eventsPatience = 10 * time.Second
)

func eventsHandler(e *Elector) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		control := http.NewResponseController(w)
		send := func(text string) bool {
			_ = control.SetWriteDeadline(time.Now().Add(eventsPatience)) // not every writer can
			_, err := w.Write([]byte(text))
			return err == nil && control.Flush() == nil
		}
		var sent Status // nothing yet: the first status differs
		for {
			now, last := e.look()
			text := ": alive\n\n"
			if now.Role != sent.Role || now.Leader != sent.Leader || now.FencingToken != sent.FencingToken {
				data, err := json.Marshal(now)
				if err != nil {
					return
				}
				text, sent = fmt.Sprintf("event: status\ndata: %s\n\n", data), now
			}
			if !send(text) || !e.awaitChange(r.Context(), last) {
				return
			}
		}
	}
}

// awaitChange waits until last is not the last status any more, or its claim has
// run out, or it is time for a sign of life. It reports whether ctx still lives.
func (e *Elector) awaitChange(ctx context.Context, last *shown) bool {
	wait := eventsKeepAlive
	if left := last.end - e.cfg.Clock.Now(); left > 0 {
		wait = min(wait, left)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-last.changed:
	}
	return true
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) //nolint:errchkjson // the client may be gone
}

func writeText(w http.ResponseWriter, text string) { _, _ = w.Write([]byte(text)) }
