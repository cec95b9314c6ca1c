package elector_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

// play runs the candidate a_1 of a lock in memory, on synctest's clock, which begins at midnight, and ends it when do has returned.
func play(t *testing.T, mode elector.Mode, cfg elector.Config, do func(*elector.Elector, *memory.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		if cfg.Lock == nil {
			lock, err := store.Lock(describe("a_1", mode))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Lock = lock
		}
		if f, ok := cfg.Lock.(*flaky); ok {
			f.Lock, _ = store.Lock(describe("a_1", mode))
		}
		cfg.Clock = newBubbleClock()
		cfg.Jitter = func(time.Duration) time.Duration { return 0 }
		e, err := elector.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		synctest.Wait()
		do(e, store)
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// ask returns an answer in one text: code, the headers that matter, body.
func ask(h http.Handler, method, path string) string {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(method, path, nil))
	return fmt.Sprintf("%d %s %s", rec.Code, rec.Header().Get("Content-Type"), rec.Body)
}

// TestAnswers holds every answer of both handlers, to the byte.
func TestAnswers(t *testing.T) {
	play(t, elector.ModeLease, elector.Config{}, func(e *elector.Elector, store *memory.Store) {
		app, health := elector.AppHandler(e), elector.HealthHandler(e)
		want := func(h http.Handler, method, path, want string) {
			t.Helper()
			if diff := cmp.Diff(want, ask(h, method, path)); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", method, path, diff)
			}
		}
		want(app, "GET", "/", "200 application/json {\"name\":\"a\"}\n")
		want(app, "GET", "/leader", "200 text/plain; charset=utf-8 leader\n")
		want(app, "GET", "/status", `200 application/json {"role":"leader","identity":"a_1","leader":"a","lock":"web","namespace":"ns","mode":"lease","fencingToken":1,`+
			`"since":"2000-01-01T00:00:00.000Z","renewed":"2000-01-01T00:00:00.000Z","validUntil":"2000-01-01T00:00:10.000Z","validUntilBoottime":3610000,"lockVersion":1}`+"\n")
		want(health, "GET", "/leader", "200 text/plain; charset=utf-8 leader\n")
		want(health, "GET", "/healthz", "200 text/plain; charset=utf-8 ok\n")
		if got := ask(health, "GET", "/metrics"); !strings.HasPrefix(got, "200 text/plain; version=0.0.4; charset=utf-8 # HELP elector_is_leader") {
			t.Errorf("/metrics: %s", got)
		}
		for _, h := range []http.Handler{app, health} {
			want(h, "GET", "/nothing", "404 text/plain; charset=utf-8 404 page not found\n")
		}
		want(app, "GET", "/resign", "405 text/plain; charset=utf-8 Method Not Allowed\n")
		time.Sleep(4 * time.Second) // it renews once
		want(app, "GET", "/status", `200 application/json {"role":"leader","identity":"a_1","leader":"a","lock":"web","namespace":"ns","mode":"lease","fencingToken":1,`+
			`"since":"2000-01-01T00:00:00.000Z","renewed":"2000-01-01T00:00:03.333Z","validUntil":"2000-01-01T00:00:13.333Z","validUntilBoottime":3613333,"lockVersion":2}`+"\n")
		want(app, "POST", "/resign", "204  ")
		synctest.Wait()
		want(app, "GET", "/", "200 application/json {\"name\":\"\"}\n")
		want(app, "GET", "/leader", "503  standby\n")
		want(health, "GET", "/leader", "503  standby\n")
		want(app, "GET", "/status", `200 application/json {"role":"standby","identity":"a_1","leader":"","lock":"web","namespace":"ns","mode":"lease","since":"2000-01-01T00:00:04.000Z"}`+"\n")
		want(app, "POST", "/resign", "204  ") // there is nothing to end
		other, err := new(memory.Store).Lock(describe("b_2", elector.ModeLease))
		if err != nil {
			t.Fatal(err)
		}
		lasting, err := elector.New(elector.Config{Lock: other, Unyielding: true})
		if err != nil {
			t.Fatal(err)
		}
		want(elector.AppHandler(lasting), "POST", "/resign", "409 text/plain; charset=utf-8 "+elector.ErrUnyielding.Error()+"\n")
		if holder := store.Get("ns", "web").Holder; holder != "" {
			t.Errorf("the lock is %s's after the resignation", holder)
		}
	})
	play(t, elector.ModeLeaderForLife, elector.Config{}, func(e *elector.Elector, _ *memory.Store) {
		const want = `200 application/json {"role":"leader","identity":"a_1","leader":"a","lock":"web","namespace":"ns","mode":"leader-for-life","fencingToken":1,"since":"2000-01-01T00:00:00.000Z","lockVersion":2}` + "\n"
		if diff := cmp.Diff(want, ask(elector.AppHandler(e), "GET", "/status")); diff != "" {
			t.Errorf("for life (-want +got):\n%s", diff)
		}
	})
}

// TestAnswersOfAStuckLoop hangs the loop in an announcement, and holds when that shows.
func TestAnswersOfAStuckLoop(t *testing.T) {
	var hang atomic.Bool
	var release chan struct{} // of the bubble
	cfg := elector.Config{Announce: func(elector.Status) error {
		if hang.Load() {
			<-release
		}
		return nil
	}}
	play(t, elector.ModeLease, cfg, func(e *elector.Elector, _ *memory.Store) {
		app, health := elector.AppHandler(e), elector.HealthHandler(e)
		release = make(chan struct{})
		hang.Store(true)
		time.Sleep(4 * time.Second) // it renews after 3.333333333s, and hangs in telling that
		began := time.Now()
		if got, want := ask(app, "POST", "/resign"), "503 text/plain; charset=utf-8 context deadline exceeded\n"; got != want {
			t.Errorf("/resign: %q, want %q", got, want)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("/resign took %v", took)
		}
		time.Sleep(time.Second - 1)
		if got := ask(app, "GET", "/leader"); got != "200 text/plain; charset=utf-8 leader\n" {
			t.Errorf("before the claim's end: %s", got)
		}
		time.Sleep(time.Nanosecond)
		if got := ask(app, "GET", "/leader"); got != "503  standby\n" {
			t.Errorf("at the claim's end: %s", got)
		}
		if s := e.Status(); s.Leader != "" || s.FencingToken != 0 || s.LockVersion != 0 || s.Renewed != nil || s.ValidUntil != nil || s.ValidUntilBoottime != nil {
			t.Errorf("something of the claim is left: %+v", s)
		}
		time.Sleep(3333333333 + 15*time.Second - 10*time.Second)
		if got := ask(health, "GET", "/healthz"); got != "200 text/plain; charset=utf-8 ok\n" {
			t.Errorf("when it may still be slow: %s", got)
		}
		time.Sleep(time.Nanosecond)
		if got := ask(health, "GET", "/healthz"); got != "503 text/plain; charset=utf-8 the election has not made a step for 15s\n" {
			t.Errorf("when it is stuck: %q", got)
		}
		hang.Store(false)
		close(release)
		synctest.Wait()
		if got := ask(health, "GET", "/healthz"); got != "200 text/plain; charset=utf-8 ok\n" {
			t.Errorf("when it goes on: %s", got)
		}
	})
}

// TestIdle holds that a loop in which nothing happens turns often enough not to be taken for stuck.
func TestIdle(t *testing.T) {
	play(t, elector.ModeLeaderForLife, elector.Config{}, func(e *elector.Elector, _ *memory.Store) {
		for range 100 {
			time.Sleep(time.Second)
			if err := e.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// subscriber takes events, and notes when each had to be taken.
type subscriber struct {
	header       http.Header
	events       []string
	write, flush error
	deadline     time.Duration
	began        time.Time
}

func (s *subscriber) Header() http.Header { return s.header }
func (s *subscriber) WriteHeader(int)     {}
func (s *subscriber) FlushError() error   { return s.flush }

func (s *subscriber) SetWriteDeadline(t time.Time) error { s.deadline = time.Until(t); return nil }

func (s *subscriber) Write(p []byte) (int, error) {
	s.events = append(s.events, fmt.Sprintf("%v, within %v: %s", time.Since(s.began), s.deadline, p))
	s.deadline = 0
	return len(p), s.write
}

var since = regexp.MustCompile(`,"since":"[^"]*"`)

// TestEventStream holds what a subscriber gets, and when.
func TestEventStream(t *testing.T) {
	lock := new(flaky)
	play(t, elector.ModeLease, elector.Config{Lock: lock}, func(e *elector.Elector, store *memory.Store) {
		s := &subscriber{header: http.Header{}, began: time.Now()}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			elector.AppHandler(e).ServeHTTP(s, httptest.NewRequestWithContext(ctx, "GET", "/events", nil))
			close(done)
		}()
		time.Sleep(9 * time.Second)
		lock.down.Store(true) // it has renewed at 6.67s
		time.Sleep(16 * time.Second)
		store.Edit("ns", "web", func(r elector.Record) elector.Record { r.Holder = "b_2"; return r })
		time.Sleep(16 * time.Second)
		cancel()
		<-done
		var got []string
		for _, event := range s.events {
			if !strings.Contains(event, "alive") {
				// A renewal wakes the stream, which then says that it lives. At the very end of a claim the loop and the stream
				// wake together, and either may be first to say since when.
				got = append(got, since.ReplaceAllString(event, ""))
			}
		}
		event := func(at, status string) string {
			return at + ", within 10s: event: status\ndata: {" + status + "}\n\n"
		}
		const same = `"lock":"web","namespace":"ns","mode":"lease"`
		want := []string{
			event("0s", `"role":"leader","identity":"a_1","leader":"a",`+same+`,"fencingToken":1,"renewed":"2000-01-01T00:00:00.000Z","validUntil":"2000-01-01T00:00:10.000Z","validUntilBoottime":3610000,"lockVersion":1`),
			event("16.666666666s", `"role":"standby","identity":"a_1","leader":"",`+same+``),
			event("25s", `"role":"standby","identity":"a_1","leader":"b",`+same+``),
			event("40s", `"role":"standby","identity":"a_1","leader":"",`+same+``),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if got := s.header.Get("Content-Type") + ", " + s.header.Get("Cache-Control"); got != "text/event-stream, no-store" {
			t.Errorf("headers: %s", got)
		}
		lock.down.Store(false)
	})
	play(t, elector.ModeLeaderForLife, elector.Config{}, func(e *elector.Elector, _ *memory.Store) {
		s := &subscriber{header: http.Header{}, began: time.Now()}
		ctx, cancel := context.WithTimeout(context.Background(), 31*time.Second)
		defer cancel()
		elector.AppHandler(e).ServeHTTP(s, httptest.NewRequestWithContext(ctx, "GET", "/events", nil))
		if want := []string{"15s, within 10s: : alive\n\n", "30s, within 10s: : alive\n\n"}; cmp.Diff(want, s.events[1:]) != "" {
			t.Errorf("signs of life: %q", s.events[1:])
		}
		for name, gone := range map[string]*subscriber{
			"written to": {header: http.Header{}, write: errors.New("gone")},
			"flushed":    {header: http.Header{}, flush: errors.New("gone")},
		} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			elector.AppHandler(e).ServeHTTP(gone, httptest.NewRequestWithContext(ctx, "GET", "/events", nil))
			if len(gone.events) != 1 || ctx.Err() != nil {
				t.Errorf("one that can't be %s gets %d events", name, len(gone.events))
			}
		}
	})
}
