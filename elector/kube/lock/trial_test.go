package lock

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// late returns an error only when the request's time is up: its goroutine did not run in between (the process was stopped, the machine suspended).
type late struct{ next http.RoundTripper }

func (l late) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := l.next.RoundTrip(req)
	if err != nil {
		<-req.Context().Done()
	}
	return res, err
}

// Rule 9 "never give up": a request whose time is up puts its connection on trial. If that was closed already (reset while the process slept), nobody ends
// the trial, and every request from then on waits for the verdict, for ever.
func TestTrialOfAClosedConnection(t *testing.T) {
	var requests atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			<-r.Context().Done() // until the connection is cut
			return
		}
		_, _ = w.Write([]byte("ok"))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	tr := &http.Transport{
		TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &conn{Conn: c, born: time.Now()}, nil
		},
	}
	_ = tls.VersionTLS12
	l := newLine(late{tr})
	get := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		res, err := l.RoundTrip(req)
		if err == nil {
			_ = res.Body.Close()
		}
		return err
	}
	go func() { time.Sleep(300 * time.Millisecond); server.CloseClientConnections() }()
	if err := get(time.Second); err == nil {
		t.Fatal("staging: the first request was answered")
	}
	for i := range 5 {
		if err := get(2 * time.Second); err != nil {
			t.Errorf("request %d after that, to a server that answers at once: %v; the server has seen %d requests", i+1, err, requests.Load())
		}
	}
}

var errCut = errors.New("cut")

// pipe is a connection whose reads and end are told.
type pipe struct {
	net.Conn
	n      int
	closed atomic.Bool
}

func (p *pipe) Read([]byte) (int, error) { return p.n, errCut }
func (p *pipe) Close() error             { p.closed.Store(true); return errCut }
func (p *pipe) LocalAddr() net.Addr      { return &net.TCPAddr{Port: 7} }

// TestTry puts a connection on trial: at a second of its life for a request that was sent half a second before, with a second's patience.
func TestTry(t *testing.T) {
	for name, tc := range map[string]struct {
		reason        string
		before, after func(*conn) // the trial began
		spared        bool        // there is none
		shut          bool        // the connection is closed when patience is over
		over          bool        // the trial is over then
	}{
		"silent":                  {reason: "it is closed, and over when the transport knows", shut: true},
		"heard":                   {reason: "an answer to another request came over it", before: func(c *conn) { c.heard.Store(int64(600 * time.Millisecond)) }, spared: true},
		"heard just then":         {reason: "it lived when the request was sent", before: func(c *conn) { c.heard.Store(int64(500 * time.Millisecond)) }, spared: true},
		"heard before":            {reason: "it may have died since", before: func(c *conn) { c.heard.Store(int64(500*time.Millisecond) - 1) }, shut: true},
		"gone":                    {reason: "nobody would end the trial", before: func(c *conn) { _ = c.Close() }, spared: true, shut: true},
		"a byte comes":            {reason: "it lives", after: func(c *conn) { c.Conn.(*pipe).n = 1; _, _ = c.Read(nil) }, over: true},
		"nothing comes":           {reason: "a read that ended is no sign of life", after: func(c *conn) { _, _ = c.Read(nil) }, shut: true},
		"the transport closes it": {reason: "it knows", after: func(c *conn) { _ = c.Close() }, shut: true, over: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Log(tc.reason)
			synctest.Test(t, func(t *testing.T) {
				inner := &pipe{}
				c := &conn{Conn: inner, born: time.Now()}
				time.Sleep(time.Second)
				if tc.before != nil {
					tc.before(c)
				}
				trial := c.try(time.Now().Add(-500*time.Millisecond), time.Second)
				if (trial == nil) != tc.spared {
					t.Fatalf("on trial: %v", trial != nil)
				}
				if tc.spared {
					if c.trial.Load() != nil {
						t.Error("its trial goes on")
					}
					return
				}
				if again := c.try(time.Now(), time.Hour); again != trial {
					t.Error("it is on trial twice")
				}
				if tc.after != nil {
					tc.after(c)
				}
				time.Sleep(time.Second - 1)
				if inner.closed.Load() && tc.after == nil {
					t.Error("it is closed too early")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if inner.closed.Load() != tc.shut {
					t.Errorf("closed: %v, want %v", inner.closed.Load(), tc.shut)
				}
				select {
				case <-trial.over:
					if !tc.over {
						t.Error("the trial is over before the transport knows")
					}
				default:
					if tc.over {
						t.Error("the trial goes on")
					}
				}
				if err := c.Close(); !errors.Is(err, errCut) || !c.gone.Load() {
					t.Errorf("closing it: %v, gone: %v", err, c.gone.Load())
				}
				<-trial.over
			})
		})
	}
}

// TestConnReads holds that a connection says what comes over it, and notes when.
func TestConnReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &conn{Conn: &pipe{n: 3}, born: time.Now()}
		time.Sleep(time.Second)
		if n, err := c.Read(nil); n != 3 || !errors.Is(err, errCut) || time.Duration(c.heard.Load()) != time.Second {
			t.Errorf("got %d, %v; heard at %v", n, err, time.Duration(c.heard.Load()))
		}
		if addr, ok := c.LocalAddr().(end); !ok || addr.of != c || addr.String() != ":7" {
			t.Errorf("its address is %v", c.LocalAddr())
		}
	})
}

// TestBody holds that an answer's failure is noted, its end is none, and both are passed on.
func TestBody(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err    error
		failed int
	}{"more": {nil, 0}, "end": {io.EOF, 0}, "cut": {errCut, 1}} {
		failed, closed := 0, 0
		b := &body{ReadCloser: reading{3, tc.err}, failed: func() { failed++ }, closed: func() { closed++ }}
		if n, err := b.Read(nil); n != 3 || !errors.Is(err, tc.err) || failed != tc.failed {
			t.Errorf("%s: got %d, %v; failed: %d", name, n, err, failed)
		}
		if err := b.Close(); !errors.Is(err, tc.err) || closed != 1 {
			t.Errorf("%s: closing it: %v, %d", name, err, closed)
		}
	}
}

type reading struct {
	n   int
	err error
}

func (r reading) Read([]byte) (int, error) { return r.n, r.err }
func (r reading) Close() error             { return r.err }
