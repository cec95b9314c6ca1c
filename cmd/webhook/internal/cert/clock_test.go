package cert

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"
)

// dated answers as an API server does whose clock is ahead of the true time.
type dated struct {
	ahead  time.Duration
	delay  time.Duration // each of the request's way and the answer's
	status int
	silent bool // no Date
	down   bool
	asked  int
}

func (d *dated) RoundTrip(r *http.Request) (*http.Response, error) {
	d.asked++
	if d.down {
		return nil, errCut
	}
	if err := d.wait(r.Context()); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	if !d.silent {
		w.Header().Set("Date", time.Now().Add(d.ahead).UTC().Format(http.TimeFormat))
	}
	w.WriteHeader(max(d.status, http.StatusOK))
	if err := d.wait(r.Context()); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func (d *dated) wait(ctx context.Context) error {
	select {
	case <-time.After(d.delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newClock(t *testing.T, server http.RoundTripper) *ServerClock {
	t.Helper()
	c, err := NewServerClock(&rest.Config{Host: "https://api"}, &http.Client{Transport: server})
	must(t, err)
	return c
}

// TestServerClock holds that the clock is right to a second and the time that an
// answer takes, whatever this machine's shows, and that it does not jump about
// within the seconds that it is told.
func TestServerClock(t *testing.T) {
	const day = 24 * time.Hour
	tests := map[string]struct {
		reason        string
		server        *dated
		wall          time.Duration
		early, late   time.Duration
		ahead, within time.Duration
	}{
		"right":       {"clocks agree", &dated{}, 0, time.Second, 0, 0, 0},
		"ahead":       {"a node without NTP", &dated{}, 400 * day, time.Second, 0, 400 * day, time.Second},
		"behind":      {"a node that begins in 1970", &dated{}, -20000 * day, time.Second, 0, -20000 * day, time.Second},
		"slow":        {"the answer takes two seconds", &dated{delay: time.Second}, 0, 2 * time.Second, 2 * time.Second, 0, 0},
		"its own way": {"the API server's clock is right by definition", &dated{ahead: 30 * day}, 0, time.Second, 0, -30 * day, time.Second},
		"forbidden":   {"an answer that refuses has a time, too", &dated{status: http.StatusForbidden}, 0, time.Second, 0, 0, 0},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClock(t, tc.server)
				c.wall = func() time.Time { return time.Now().Add(tc.wall) }
				var last time.Time
				for range 100 {
					time.Sleep(370 * time.Millisecond)
					for _, tell := range []func(context.Context) (time.Time, error){c.Ask, c.Now} {
						now, err := tell(quiet(t))
						must(t, err)
						truth := time.Now().Add(tc.server.ahead)
						if off := now.Sub(truth); off < -tc.early || off > tc.late {
							t.Errorf("%s: off by %s", tc.reason, off)
						}
						if now.Before(last) {
							t.Errorf("%s: %s back", tc.reason, last.Sub(now))
						}
						last = now
					}
				}
				if off := (c.ahead - tc.ahead).Abs(); off > tc.within {
					t.Errorf("%s: it says that this machine is %s ahead, want %s", tc.reason, c.ahead, tc.ahead)
				}
			})
		})
	}
}

// TestServerClockSet holds that an API server's clock that was set is followed at
// the next answer.
func TestServerClockSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &dated{}
		c := newClock(t, server)
		for _, ahead := range []time.Duration{0, 9000 * time.Hour, -9000 * time.Hour, time.Minute, 0} {
			server.ahead = ahead
			now, err := c.Ask(quiet(t))
			must(t, err)
			if off := now.Sub(time.Now().Add(ahead)); off.Abs() > time.Second {
				t.Errorf("set by %s, off by %s", ahead, off)
			}
		}
	})
}

// TestServerClockAway holds what is known while the API server does not answer.
func TestServerClockAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &dated{down: true}
		c := newClock(t, server)
		if _, err := c.Now(quiet(t)); err == nil {
			t.Error("a time that nobody told")
		}
		server.down = false
		_, err := c.Now(quiet(t))
		must(t, err)
		asked := server.asked
		for _, bad := range []*dated{{down: true}, {silent: true}, {status: http.StatusBadGateway}, {delay: time.Hour}} {
			*server = *bad
			if _, err := c.Ask(quiet(t)); err == nil {
				t.Errorf("%+v: a time that the API server did not tell", bad)
			}
			for range 90 {
				time.Sleep(time.Second)
				now, err := c.Now(quiet(t))
				must(t, err)
				if off := time.Until(now); off > 0 || off < -time.Second-2*askTimeout {
					t.Errorf("%+v: off by %s", bad, off)
				}
			}
			if n := server.asked; n != 2 {
				t.Errorf("%+v: asked %d times in a minute and a half, want 2", bad, n)
			}
		}
		if asked != 2 {
			t.Errorf("asked %d times before, want 2", asked)
		}
	})
}

// TestServerClockReal asks a real HTTP server: it tells the time without being
// told to.
func TestServerClockReal(t *testing.T) {
	path := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20))) // more than is read
	}))
	defer server.Close()
	c, err := NewServerClock(&rest.Config{Host: server.URL + "/clusters/a"}, server.Client())
	must(t, err)
	before := time.Now()
	now, err := c.Ask(quiet(t))
	must(t, err)
	if now.Before(before.Add(-time.Second)) || now.After(time.Now()) {
		t.Errorf("told %s between %s and %s", now, before, time.Now())
	}
	if path != "/clusters/a/version" {
		t.Errorf("asked %s", path)
	}
}
