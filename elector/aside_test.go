package elector_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

// A process that must not contend tells its application what a standby would, with the reason, and leaves the lock alone, though it is
// free and names this very candidate.
func TestAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		lock, err := store.Lock(describe("a_1", elector.ModeLease))
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan elector.Status, 10)
		e, err := elector.New(elector.Config{
			Lock: lock, Clock: newBubbleClock(), Aside: "a copy", Announce: func(s elector.Status) error { told <- s; return nil },
			Callbacks: elector.Callbacks{OnStartedLeading: func(context.Context) { t.Error("it leads") }},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		time.Sleep(time.Hour)
		if rec := store.Get("ns", "web"); rec.Exists {
			t.Errorf("it wrote %+v", rec)
		}
		if s := <-told; len(told) > 0 || s.Role != elector.RoleStandby || s.Reason != "a copy" {
			t.Errorf("it announced %+v and %d more, want one standby with the reason", s, len(told))
		}
		if err := e.Check(); err != nil {
			t.Errorf("nothing can be stuck, but: %v", err)
		}
		if err := e.Resign(ctx); !errors.Is(err, elector.ErrNotRunning) {
			t.Errorf("Resign: %v, want %v", err, elector.ErrNotRunning)
		}
		for path, want := range map[string]string{"/leader": "503 standby", "/status": `200 {"role":"standby",`, "/": `200 {"name":""}`} {
			answer := httptest.NewRecorder()
			elector.AppHandler(e).ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
			if got := answer.Result().Status[:4] + answer.Body.String(); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// Whoever stands aside withdraws what an earlier process claimed, or says that it could not.
func TestAsideCannotWithdraw(t *testing.T) {
	var store memory.Store
	lock, err := store.Lock(describe("a_1", elector.ModeLease))
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left on device")
	err = elector.Run(t.Context(), elector.Config{Lock: lock, Aside: "a copy", Announce: func(elector.Status) error { return full }})
	if !errors.Is(err, full) {
		t.Errorf("Run: %v, want %v", err, full)
	}
}
