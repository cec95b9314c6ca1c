package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/test/witness"
)

// The storage takes no write with a lower token than one before, and tells what it took with each.
func TestStorage(t *testing.T) {
	t.Parallel()
	s := &storage{}
	ask := func(method, query string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, "/storage"+query, http.NoBody))
		return w
	}
	for _, write := range []struct {
		query string
		want  int
	}{
		{"?token=7", http.StatusOK},
		{"?token=7", http.StatusOK},
		{"?token=9", http.StatusOK},
		{"?token=7", http.StatusConflict},
		{"?token=9", http.StatusOK},
		{"?token=", http.StatusBadRequest},
		{"?token=0", http.StatusBadRequest},
	} {
		if got := ask(http.MethodPost, write.query).Code; got != write.want {
			t.Errorf("a write with %s is answered %d, want %d", write.query, got, write.want)
		}
	}
	var epochs []witness.Epoch
	if err := json.Unmarshal(ask(http.MethodGet, "").Body.Bytes(), &epochs); err != nil {
		t.Fatal(err)
	}
	for i := range epochs {
		if e := &epochs[i]; e.First == 0 || e.Last < e.First {
			t.Errorf("the writes with token %d were from %s to %s", e.Token, e.First, e.Last)
		}
		epochs[i].First, epochs[i].Last = 0, 0
	}
	if diff := cmp.Diff([]witness.Epoch{{Token: 7, Writes: 2}, {Token: 9, Writes: 2, Refused: 1}}, epochs); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// An app is well until a file says that it is not.
func TestHealth(t *testing.T) {
	t.Parallel()
	h := health(t.TempDir())
	ready := func(h health) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ready", http.NoBody))
		return w.Code
	}
	if err := h.check(); err != nil || ready(h) != http.StatusOK {
		t.Errorf("without a file: %v, %d", err, ready(h))
	}
	for _, file := range []string{unreadyFile, crashFile} {
		if err := os.WriteFile(filepath.Join(string(h), file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := ready(h); got != http.StatusServiceUnavailable {
		t.Errorf("/ready answers %d", got)
	}
	cfg := config{health: h}
	if err := run(t.Context(), cfg); !errors.Is(err, errCrash) {
		t.Errorf("an app that is to crash as it starts: %v", err)
	}
	if err := h.await(t.Context()); !errors.Is(err, errCrash) {
		t.Errorf("an app that is to crash: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := health(t.TempDir()).await(ended); err != nil {
		t.Errorf("an app that ends well: %v", err)
	}
	if got := ready(""); got != http.StatusOK {
		t.Errorf("/ready of an app without -health answers %d", got)
	}
}
