package main

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// link is one candidate's way to the API server. Its connections are its own: candidates that shared one would wait for each other, and
// could not be cut off one by one.
type link struct {
	mu       sync.Mutex
	cut      bool
	conns    map[*countedConn]bool // that are open
	dialled  int
	requests counts
	// conflicts is how many answers said that the object had changed.
	conflicts int
	bytes     int
	// answered and wrote are when the first request, and the first write, was carried out since the link was marked.
	answered, wrote time.Time
}

// counts are requests by verb: get, list, watch, create, update, patch, delete.
type counts map[string]int

var errCut = errors.New("cut off")

// config returns base with every connection through the link.
func (l *link) config(base *rest.Config) *rest.Config {
	cfg := rest.CopyConfig(base)
	cfg.QPS = -1 // client-go's limiter is for clients that share it; neither side is to be slowed down
	cfg.Dial = l.dial
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return roundTripper{l, next} })
	return cfg
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.isCut() {
		return nil, errCut
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_ = conn.Close()
		return nil, errCut
	}
	if l.conns == nil {
		l.conns = map[*countedConn]bool{}
	}
	counted := &countedConn{conn, l}
	l.conns[counted] = true
	l.dialled++
	return counted, nil
}

// countedConn is a connection that its link knows of while it is open.
type countedConn struct {
	net.Conn
	link *link
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.link.carried(n)
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.link.carried(n)
	return n, err
}

func (c *countedConn) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}

func (l *link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// sever ends the link for good: no byte passes any more, in either direction.
func (l *link) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for conn := range l.conns {
		_ = conn.Conn.Close()
	}
	l.conns = nil
}

// sent returns how many requests were sent so far.
func (l *link) sent() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.requests)
}

// roundTripper counts the requests of a link and stops them when it is cut.
type roundTripper struct {
	link *link
	next http.RoundTripper
}

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := r.link.count(verb(req)); err != nil {
		return nil, err
	}
	res, err := r.next.RoundTrip(req)
	if err == nil {
		r.link.answer(verb(req), res.StatusCode)
	}
	return res, err
}

func (l *link) answer(verb string, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case status == http.StatusConflict:
		l.conflicts++
	case status >= http.StatusMultipleChoices:
		return
	case l.wrote.IsZero() && (verb == "update" || verb == "create"):
		l.wrote = time.Now()
	}
	if l.answered.IsZero() {
		l.answered = time.Now()
	}
}

// mark forgets what was answered so far.
func (l *link) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered, l.wrote = time.Time{}, time.Time{}
}

// since returns when the first request, and the first write, was carried out since the mark; zero if none was.
func (l *link) since() (answered, wrote time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered, l.wrote
}

func (l *link) carried(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes += n
}

// tally is what a link has been used for so far, and how many connections it has open.
type tally struct{ writes, conflicts, dialled, bytes, open int }

func (l *link) tally() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tally{l.requests["update"] + l.requests["create"], l.conflicts, l.dialled, l.bytes, len(l.conns)}
}

func (t *tally) add(o tally) {
	t.writes += o.writes
	t.conflicts += o.conflicts
	t.dialled += o.dialled
	t.bytes += o.bytes
	t.open += o.open
}

func (l *link) count(verb string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return errCut
	}
	if l.requests == nil {
		l.requests = counts{}
	}
	l.requests[verb]++
	return nil
}

// verb is what RBAC and the API server's metrics call the request.
func verb(req *http.Request) string {
	query := req.URL.Query()
	switch {
	case query.Get("watch") == "true" || query.Get("watch") == "1":
		return "watch"
	case req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/leases"):
		return "list"
	case req.Method == http.MethodPut:
		return "update"
	case req.Method == http.MethodPost:
		return "create"
	}
	return strings.ToLower(req.Method)
}

// minus returns what was counted since before.
func (c counts) minus(before counts) counts {
	since := counts{}
	for verb, n := range c {
		if n > before[verb] {
			since[verb] = n - before[verb]
		}
	}
	return since
}

// plus adds other to c.
func (c counts) plus(other counts) {
	for verb, n := range other {
		c[verb] += n
	}
}
