package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// maxConns are the connections that have a place by default, streams apart. A pod's kubelet,
	// scrapers and load balancers need one each, its application one per worker. One
	// costs some 25 KB, and 45 with a header of maxLines: together 12 MB of the 64 MiB
	// that the container may have, and its kernel's buffers as much at most.
	maxConns = 256
	// maxStreams are the streams: one per process of the application is the use.
	maxStreams = 32
	// maxEnding are the connections that were closed here and whose handlers have not
	// noticed yet. New ones wait meanwhile.
	maxEnding = 64
	// turn is how long a connection keeps its place at least: what a client may need
	// from connecting to asking, on a machine that is busy. It is also why a storm
	// costs no more than a core: 12,800 connections a second are taken in at most. The
	// queue of the kernel, 4,096 by default, is through in a third of a second then.
	turn = 20 * time.Millisecond
	// tick is how often it is asked whether there is a place, if there was none.
	tick = time.Millisecond
	// tellEvery keeps a storm out of the log.
	tellEvery = time.Minute
	// readBuffer and writeBuffer are the kernel's for each connection, in bytes; it
	// doubles them. They are charged to the container's memory, and would grow to
	// 10 MiB. An answer fits in, so that a slow reader holds up no handler.
	readBuffer, writeBuffer = 4 << 10, 8 << 10
	// bodyBuffer is readBuffer where bodies are read: what comes of one in a round
	// trip.
	bodyBuffer = 32 << 10
)

// phase is what a connection is doing.
type phase int

const (
	fresh     phase = iota // nobody has looked whether there is a request
	waiting                // for the rest of a request's header
	receiving              // a body that the handler reads
	busy                   // with an answer
	streaming              // an answer that goes on
	ending                 // closed here, while its handler may still run
	phases
)

// listener is a net.Listener that accepts any number of connections and keeps a
// few.
type listener struct {
	net.Listener
	Config
	tell func()    // says that connections are displaced; nil: nobody
	told time.Time // when it was said; Accept's own

	closing sync.Once
	closed  chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{}
}

func newListener(from net.Listener, c Config) *listener {
	return &listener{Listener: from, Config: c.withDefaults(), closed: make(chan struct{}), conns: map[*conn]struct{}{}}
}

// conn is one connection. Its owner guards what changes.
type conn struct {
	net.Conn          // encrypted, if it is to be
	raw      net.Conn // below the encryption
	owner    *listener
	source   string             // the client's address, without the port
	cancel   context.CancelFunc // of its requests; set before there is any

	phase phase
	since time.Time // in this phase

	// Of what may be a header: what was read since the last answer.
	header, lines int
}

// Accept waits for a connection, and then for its place.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			// Perhaps out of descriptors, which this gives back. net/http tries again, with
			// pauses from 5 ms to 1 s.
			l.displaceOne()
		}
		return nil, err
	}
	for {
		admitted, displaced := l.admit(raw)
		if displaced {
			l.tellOf(time.Now())
		}
		if admitted != nil {
			return admitted, nil
		}
		select {
		case <-l.closed:
			raw.Close()
			return nil, net.ErrClosed
		case <-time.After(tick):
		}
	}
}

// Close ends Accept, also while it waits for a place.
func (l *listener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *listener) tellOf(now time.Time) {
	if l.told.IsZero() || now.Sub(l.told) >= tellEvery {
		l.told = now
		if l.tell != nil {
			l.tell()
		}
	}
}

// admit gives a connection a place, another's if there is no other; none if
// nobody has had its turn.
func (l *listener) admit(raw net.Conn) (admitted *conn, displaced bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, of := time.Now(), l.count()
	if of[ending] >= maxEnding {
		return nil, false
	}
	if taken := of[fresh] + of[waiting] + of[receiving] + of[busy]; taken >= l.Places {
		victim := l.victim()
		if victim == nil || now.Sub(victim.since) < l.turnOf(victim) {
			return nil, false
		}
		victim.displace(now)
		if taken > l.Places { // a stream has become a connection like others
			return nil, true
		}
		displaced = true
	}
	if b, ok := raw.(interface {
		SetReadBuffer(bytes int) error
		SetWriteBuffer(bytes int) error
	}); ok {
		size := readBuffer
		if l.Bodies {
			size = bodyBuffer
		}
		_, _ = b.SetReadBuffer(size), b.SetWriteBuffer(writeBuffer) // it serves without
	}
	admitted = &conn{Conn: raw, raw: raw, owner: l, source: sourceOf(raw), since: now}
	if l.Encrypt != nil {
		admitted.Conn = l.Encrypt(raw) // the handshake is part of the first read
	}
	l.conns[admitted] = struct{}{}
	return admitted, displaced
}

func (l *listener) displaceOne() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if victim := l.victim(); victim != nil {
		victim.displace(time.Now())
	}
}

// count is how many connections are in each phase.
func (l *listener) count() (of [phases]int) {
	for one := range l.conns {
		of[one.phase]++
	}
	return of
}

// victim is whose place a new connection takes: one's that waits for its client, of
// those from the address that has most of these the one that has waited longest.
// New connections count, or a flood that nobody has looked at yet would take
// others' places. Answers are cut off only if all places are taken by them, because
// those take long that nobody reads.
func (l *listener) victim() *conn {
	if victim := l.oldestOfMost(fresh, waiting, receiving); victim != nil {
		if victim.phase == fresh {
			return nil // it will wait or be busy in a moment
		}
		return victim
	}
	return l.oldestOfMost(busy)
}

// oldestOfMost returns the oldest connection in the given phases of the address
// that has most of these, nil if there is none. A fresh one is younger than others.
func (l *listener) oldestOfMost(in ...phase) *conn {
	type share struct {
		conns  int
		oldest *conn
	}
	shares := map[string]share{}
	for one := range l.conns {
		if !slices.Contains(in, one.phase) {
			continue
		}
		s := shares[one.source]
		s.conns++
		if s.oldest == nil || older(one, s.oldest) {
			s.oldest = one
		}
		shares[one.source] = s
	}
	var most share
	for _, s := range shares {
		if s.conns > most.conns || s.conns == most.conns && older(s.oldest, most.oldest) {
			most = s
		}
	}
	return most.oldest
}

func older(a, b *conn) bool {
	if (a.phase == fresh) != (b.phase == fresh) {
		return b.phase == fresh
	}
	return a.since.Before(b.since)
}

// turnOf is how long a connection keeps its place when others want it.
func (l *listener) turnOf(c *conn) time.Duration {
	if c.phase == busy {
		return l.Patience
	}
	return turn
}

// sourceOf is where a connection comes from.
func sourceOf(c net.Conn) string {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return string(tcp.IP)
	}
	return ""
}

// displace closes a connection and ends its request. The owner's lock is held.
func (c *conn) displace(now time.Time) {
	c.enter(ending, now)
	_ = c.Close()
	c.cancel()
}

func (c *conn) enter(p phase, now time.Time) {
	if c.phase != ending {
		c.phase, c.since = p, now
	}
}

// stream gives a connection a place among the streams, another's if there is no
// other, as victim chooses among those that wait: a client that wants its stream comes back, one that has
// forgotten it does not.
func (l *listener) stream(own *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.count()[streaming] >= maxStreams {
		l.oldestOfMost(streaming).displace(now)
	}
	own.enter(streaming, now)
}

type connKey struct{}

// begin is http.Server's ConnContext. It lets a connection that is displaced end
// its request.
func (l *listener) begin(ctx context.Context, c net.Conn) context.Context {
	own, ok := c.(*conn)
	if !ok {
		return ctx
	}
	ctx, own.cancel = context.WithCancel(ctx)
	return context.WithValue(ctx, connKey{}, own)
}

// changed is http.Server's ConnState. A connection is active from the end of a
// request's header to the end of its answer.
func (l *listener) changed(c net.Conn, state http.ConnState) {
	own, ok := c.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		l.enter(own, busy)
	case http.StateIdle:
		l.enter(own, waiting)
	case http.StateClosed:
		l.remove(own)
	case http.StateNew, http.StateHijacked: // refuse removes it
	}
}

func (l *listener) enter(own *conn, p phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own.enter(p, time.Now())
	own.header, own.lines = 0, 0
}

func (l *listener) remove(own *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, own)
	own.cancel()
}

// Close is net.Conn's. It says no farewell: a client that does not read would hold
// it up.
func (c *conn) Close() error { return c.raw.Close() }

// Read is net.Conn's, and ends a header that is too large.
func (c *conn) Read(p []byte) (int, error) {
	c.owner.looks(c)
	n, err := c.Conn.Read(p)
	if garbled, ok := errors.AsType[tls.RecordHeaderError](err); ok && isHTTP(garbled.RecordHeader) {
		c.Conn = c.raw // to be read by a person
		c.say(notEncrypted)
		_ = c.Close()
		return 0, io.EOF
	}
	if c.owner.countHeader(c, p[:n]) {
		return n, err
	}
	c.say(headerTooLarge)
	_ = c.Close() // lest net/http says more
	return 0, io.EOF
}

// isHTTP reports whether what should be encrypted begins like a request.
func isHTTP(begin [5]byte) bool {
	return slices.Contains([]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"}, string(begin[:]))
}

// looks notes that somebody looks whether there is a request.
func (l *listener) looks(own *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if own.phase == fresh {
		own.enter(waiting, time.Now())
	}
}

// countHeader reports whether what was read may still become a header.
func (l *listener) countHeader(own *conn, data []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if own.phase != waiting {
		return true
	}
	own.header += len(data)
	own.lines += bytes.Count(data, []byte{'\n'})
	return own.header <= maxHeader && own.lines <= maxLines
}

// say writes an answer of a few words, to whoever reads it.
func (c *conn) say(answer string) {
	_ = c.SetWriteDeadline(time.Now().Add(answerTimeout))
	_, _ = io.WriteString(c.Conn, answer)
}
