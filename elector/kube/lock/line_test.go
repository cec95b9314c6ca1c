package lock

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/transport"

	"github.com/elector-io/elector/elector"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// closing notes that it was closed.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func newRequest(ctx context.Context, t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestLateWatch has a watch's answer come after it was given up: it is no answer any more, and nobody else would close it.
func TestLateWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rest := &closing{Reader: strings.NewReader("late")}
		l := newLine(roundTrip(func(*http.Request) (*http.Response, error) {
			time.Sleep(5*time.Second + 1)
			return &http.Response{StatusCode: http.StatusOK, Body: rest}, nil
		}))
		res, err := l.RoundTrip(newRequest(t.Context(), t, http.MethodGet, "http://api/?watch=true", nil))
		if err == nil {
			_ = res.Body.Close()
		}
		if !errors.Is(err, context.DeadlineExceeded) || res != nil || !rest.closed {
			t.Errorf("got %v, %v; closed: %v", res, err, rest.closed)
		}
	})
}

// TestWrapped holds that client-go finds its transport in what a line wraps: it looks for it to end idle connections.
func TestWrapped(t *testing.T) {
	t.Parallel()
	inner := &http.Transport{}
	if got := httpTransport(newLine(newLine(inner))); got != inner {
		t.Errorf("got %v", got)
	}
	if inner.HTTP2 == nil || inner.HTTP2.SendPingTimeout != pingAfter || inner.HTTP2.PingTimeout != pingTimeout {
		t.Errorf("its pings are set to %+v", inner.HTTP2)
	}
	if got := httpTransport(roundTrip(nil)); got != nil {
		t.Errorf("of something else: %v", got)
	}
}

// TestWatchOutlivesItsAnswer holds that only the answer of a watch has to come soon.
func TestWatchOutlivesItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rest := &closing{Reader: strings.NewReader("events")}
		l := newLine(roundTrip(func(req *http.Request) (*http.Response, error) {
			time.Sleep(5*time.Second - 1)
			return &http.Response{StatusCode: http.StatusOK, Body: rest, Request: req}, nil
		}))
		res, err := l.RoundTrip(newRequest(t.Context(), t, http.MethodGet, "http://api/?watch=true", nil))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := res.Request.Context().Err(); err != nil {
			t.Errorf("an hour later: %v", err)
		}
		if err := res.Body.Close(); err != nil || !rest.closed || res.Request.Context().Err() == nil {
			t.Errorf("closing it: %v, %v, %v", err, rest.closed, res.Request.Context().Err())
		}
	})
}

// TestVerdictIsAwaited holds that a request which can't wait for the end of a trial is not sent, and is over.
func TestVerdictIsAwaited(t *testing.T) {
	l := &line{next: roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("it was sent")
	})}
	l.trial.Store(&trial{over: make(chan struct{})})
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	sent := &closing{Reader: strings.NewReader("{}")}
	for _, body := range []io.Reader{sent, nil} {
		res, err := l.RoundTrip(newRequest(ctx, t, http.MethodPut, "http://api/", body))
		if err == nil {
			_ = res.Body.Close()
		}
		if !errors.Is(err, why) {
			t.Errorf("it ended with %v", err)
		}
	}
	if !sent.closed {
		t.Error("its body was not closed")
	}
}

// TestOnRequest holds what is counted of requests.
func TestOnRequest(t *testing.T) {
	const held = `{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"resourceVersion":"7"}}`
	s := &script{answers: []reply{{code: http.StatusOK, body: listOf()}, {code: http.StatusOK}, {code: http.StatusCreated, body: held}, failure(http.StatusConflict, "Conflict")}}
	down := false
	var got []string
	l, err := New(serverOf("http://api", roundTrip(func(req *http.Request) (*http.Response, error) {
		if down {
			return nil, errors.New("unreachable")
		}
		return s.RoundTrip(req)
	})), Config{
		Candidate: elector.Description{Settings: elector.Settings{Lock: testLock}, Namespace: "default", Identity: "web-0_u0"},
		OnRequest: func(verb, result string) { got = append(got, verb+" "+result) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Observe(t.Context(), func(elector.Record) {}); err != nil {
		t.Error(err)
	}
	rec, err := l.Put(t.Context(), elector.Record{}, elector.Record{Holder: "web-0_u0"})
	if err != nil {
		t.Error(err)
	}
	if _, err := l.Put(t.Context(), rec, rec); !errors.Is(err, elector.ErrConflict) {
		t.Error(err)
	}
	down = true
	if _, err := l.Put(t.Context(), rec, rec); err == nil {
		t.Error("an API server that is away is no error")
	}
	if diff := cmp.Diff([]string{"get 200", "watch 200", "post 201", "put 409", "put error"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestNew refuses what is no candidate, and describes the one that is.
func TestNew(t *testing.T) {
	valid := elector.Description{Settings: elector.Settings{Lock: testLock}, Namespace: "default", Identity: "web-0_u0"}
	for name, tc := range map[string]struct {
		change func(*elector.Description)
		server Server
		err    string
	}{
		"valid":        {change: func(*elector.Description) {}},
		"no lock":      {change: func(d *elector.Description) { d.Settings.Lock = "" }, err: `lock "" is not allowed`},
		"no namespace": {change: func(d *elector.Description) { d.Namespace = "" }, err: `namespace "" is not allowed: it is where the lock is and must not be empty`},
		"no authority": {change: func(*elector.Description) {}, server: Server{URL: new(url.URL), Connect: clientGo(&transport.Config{TLS: transport.TLSConfig{CAFile: "/none"}})}, err: "making a client of the API server: open /none"},
	} {
		t.Run(name, func(t *testing.T) {
			d := valid
			tc.change(&d)
			if tc.server.URL == nil {
				tc.server = serverOf("http://api", nil)
			}
			l, err := New(tc.server, Config{Candidate: d})
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || l != nil {
					t.Errorf("got %v, %v; want %q", l, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(valid.WithDefaults(), l.Describe()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestNewest holds that the highest version that was seen never sinks.
func TestNewest(t *testing.T) {
	l := &lock{}
	for _, version := range []uint64{7, 9, 8, 9} {
		if got := l.see(version); got != version {
			t.Errorf("see(%d) is %d", version, got)
		}
	}
	if got := l.newest.Load(); got != 9 {
		t.Errorf("the newest is %d", got)
	}
}
