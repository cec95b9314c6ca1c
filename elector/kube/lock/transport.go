package lock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// dialTimeout is how long a connection may take; requests have less, mostly.
	dialTimeout = 5 * time.Second
	// pingAfter is how long nothing may come over the connection before a ping asks
	// whether it lives, and pingTimeout how long the ping may take. Together they
	// are less than the default lease-duration: a standby whose connection died in
	// silence has another one before it takes the leader for dead. With the default
	// durations each renewal shows on the watch before a ping is due.
	pingAfter, pingTimeout = 8 * time.Second, 5 * time.Second
	// trialFraction of the time that a request has waited in vain, and maxTrial at
	// most, is what its connection gets to show that it lives.
	trialFraction = 8
	maxTrial      = 500 * time.Millisecond
)

// keepAlive finds out within half a minute that the other end of a silent watch
// is gone, where the server has no HTTP/2 and so no pings.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// DialFunc makes connections, as net.Dialer's DialContext does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Connect makes a transport whose connections are dial's and whose requests, when
// they have all that makes them somebody's, go through wrap.
type Connect func(dial DialFunc, wrap func(http.RoundTripper) http.RoundTripper) (http.RoundTripper, error)

// httpClient returns a client whose requests share one connection, which no other
// client uses; see line. With a server that only speaks HTTP/1.1 a watch occupies a
// connection, and other requests share a second.
func httpClient(server Server, onRequest func(verb, result string)) (*http.Client, error) {
	dial := server.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext
	}
	rt, err := server.Connect(func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout) // the request's end does not end it
		defer cancel()
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c, born: time.Now()}, nil
	}, newLine)
	if err != nil {
		return nil, fmt.Errorf("making a client of the API server: %w", err)
	}
	if onRequest != nil {
		rt = counter{rt, onRequest}
	}
	// No timeout: each request has a context with a deadline of its own.
	return &http.Client{Transport: rt, CheckRedirect: stay}, nil
}

// stay follows no redirect. An API server sends none, a write that is redirected may
// become a read, which must not pass for a renewal, and the Pod's token is for the
// API server alone.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// line sends all requests over one connection, and takes care that a connection
// that died in silence costs one request and no more.
//
// HTTP/2 by itself would send every retry down a dead connection until pings have
// found out. So a request that times out puts its connection on trial: if nothing
// at all comes over it for a moment it is closed, and the next request, which
// waits for that, dials anew. What else was under way on it fails then, too. A
// server that is merely slow answers the ping that goes with the cancellation and
// keeps the connection: a handshake, a list and a watch for every late answer
// would make it slower still.
type line struct {
	next  http.RoundTripper
	trial atomic.Pointer[trial] // the last one
}

func newLine(next http.RoundTripper) http.RoundTripper {
	if t := httpTransport(next); t != nil {
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	}
	return &line{next: next}
}

// httpTransport returns what client-go may have wrapped, nil if it is something else.
func httpTransport(rt http.RoundTripper) *http.Transport {
	switch rt := rt.(type) {
	case *http.Transport:
		return rt
	case interface{ WrappedRoundTripper() http.RoundTripper }:
		return httpTransport(rt.WrappedRoundTripper())
	}
	return nil
}

// errNoAnswer is a timeout like that of a context.
var errNoAnswer = fmt.Errorf("no answer within %s: %w", readTimeout, context.DeadlineExceeded)

// RoundTrip implements http.RoundTripper. Only a request that its deadline ends
// makes its connection suspect: one that is cancelled may not have waited long.
func (l *line) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if err := l.verdict(ctx); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	began, until := time.Now(), deadline(ctx)
	var used atomic.Pointer[net.Conn]
	ctx, cancel := context.WithCancelCause(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { used.Store(&got.Conn) },
	}))
	timedOut := func() {
		if c := used.Load(); c != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			l.suspect(*c, began, until)
		}
	}
	answered := func() bool { return true }
	if isWatch(req) { // its deadline is that of the stream, minutes away
		answered = time.AfterFunc(readTimeout, func() { cancel(errNoAnswer) }).Stop
		until = began.Add(readTimeout)
	}
	res, err := l.next.RoundTrip(req.WithContext(ctx))
	if !answered() && err == nil {
		_ = res.Body.Close()
		err = errNoAnswer
	}
	if err != nil {
		timedOut()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	until = deadline(ctx)
	res.Body = &body{ReadCloser: res.Body, failed: timedOut, closed: func() { cancel(nil) }}
	return res, nil
}

// WrappedRoundTripper lets client-go find what it made.
func (l *line) WrappedRoundTripper() http.RoundTripper { return l.next }

// verdict waits until no connection is on trial.
func (l *line) verdict(ctx context.Context) error {
	t := l.trial.Load()
	if t == nil {
		return nil
	}
	select {
	case <-t.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// suspect puts the connection that is c, or in it, on trial for a request that
// waited from began until its deadline. Over HTTP/1.1 nothing else used the
// connection, and the transport has closed it.
func (l *line) suspect(c net.Conn, began, deadline time.Time) {
	if t, ok := c.(*tls.Conn); !ok || t.ConnectionState().NegotiatedProtocol != "h2" {
		return
	}
	if end, ok := c.LocalAddr().(end); ok {
		if t := end.of.try(deadline, min(deadline.Sub(began)/trialFraction, maxTrial)); t != nil {
			l.trial.Store(t)
		}
	}
}

// deadline is ctx's, or a time that is long past.
func deadline(ctx context.Context) time.Time {
	t, _ := ctx.Deadline()
	return t
}

// body notes when reading an answer fails, and when it is done.
type body struct {
	io.ReadCloser
	failed, closed func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed()
	}
	return n, err
}

func (b *body) Close() error {
	defer b.closed()
	return b.ReadCloser.Close()
}

// conn is a connection that can be put on trial.
type conn struct {
	net.Conn
	born  time.Time
	heard atomic.Int64          // when something was read last, in nanoseconds since born
	trial atomic.Pointer[trial] // nil when it is not on trial
	gone  atomic.Bool
}

// trial is over when the connection has shown that it lives, or the transport
// knows that it is closed.
type trial struct{ over chan struct{} }

// end is an address of a conn that leads back to it, through whatever wraps it:
// TLS, and what client-go closes connections with when credentials change.
type end struct {
	net.Addr
	of *conn
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return end{c.Conn.LocalAddr(), c} }

// try closes the connection if nothing is read from it between since and
// patience from now.
func (c *conn) try(since time.Time, patience time.Duration) *trial {
	t := &trial{over: make(chan struct{})}
	if !c.trial.CompareAndSwap(nil, t) {
		return c.trial.Load()
	}
	if c.gone.Load() || time.Duration(c.heard.Load()) >= since.Sub(c.born) { // the ping was quicker than this
		c.acquit()
		return nil
	}
	time.AfterFunc(patience, func() {
		if c.trial.Load() == t {
			// Not t's end yet: the transport would go on using it. It reads the error, forgets
			// the connection and calls Close.
			_ = c.Conn.Close()
		}
	})
	return t
}

// acquit ends the trial, if there is one.
func (c *conn) acquit() {
	if t := c.trial.Swap(nil); t != nil {
		close(t.over)
	}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(int64(time.Since(c.born)))
		c.acquit()
	}
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.gone.Store(true) // before acquit: a trial that begins later sees it
	c.acquit()
	return err
}

// isWatch tells whether req asks for a watch.
func isWatch(req *http.Request) bool { return req.URL.Query().Has("watch") }

// counter reports requests as they are answered.
type counter struct {
	next   http.RoundTripper
	report func(verb, result string)
}

func (c counter) RoundTrip(req *http.Request) (*http.Response, error) {
	verb := strings.ToLower(req.Method)
	if isWatch(req) {
		verb = "watch"
	}
	res, err := c.next.RoundTrip(req)
	if err != nil {
		c.report(verb, "error")
		return nil, err
	}
	c.report(verb, strconv.Itoa(res.StatusCode))
	return res, nil
}
