package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// Condition is what a Link does to the traffic through it.
type Condition int

const (
	// Healthy passes everything on.
	Healthy Condition = iota
	// Partitioned has cut every connection and cuts new ones: the pod sees errors at once.
	Partitioned
	// Stalled keeps connections open and accepts new ones, but moves no byte: the pod sees silence. Bytes held back arrive after Healthy.
	Stalled
)

// Link is one pod's way to the API server: a TCP proxy that can be cut or stalled without touching any other pod.
type Link struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu        sync.Mutex
	condition Condition
	moving    chan struct{} // closed while bytes may move
	conns     map[net.Conn]struct{}
	closed    bool
}

// NewLink listens on a free port of at and forwards to target. The caller must Close it.
func NewLink(at netip.Addr, target netip.AddrPort) (*Link, error) {
	l, err := net.Listen("tcp4", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return nil, fmt.Errorf("listen for a pod's API connections: %w", err)
	}
	link := &Link{target: target.String(), listener: l, moving: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(link.moving)
	link.wg.Go(link.accept)
	return link, nil
}

// Addr is where the pod connects to.
func (l *Link) Addr() netip.AddrPort { return l.listener.Addr().(*net.TCPAddr).AddrPort() }

// Set changes the condition. Setting the present one again does nothing.
func (l *Link) Set(c Condition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || c == l.condition {
		return
	}
	if l.condition == Stalled {
		close(l.moving)
	}
	if c == Stalled {
		l.moving = make(chan struct{})
	}
	l.condition = c
	if c == Partitioned {
		l.cutAll()
	}
}

// Close cuts everything and returns when no goroutine of the link is left.
func (l *Link) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		if l.condition == Stalled {
			close(l.moving)
		}
		l.listener.Close()
		l.cutAll()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *Link) cutAll() {
	for c := range l.conns {
		reset(c)
		delete(l.conns, c)
	}
}

func (l *Link) accept() {
	for {
		c, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		l.wg.Go(func() { l.serve(c) })
	}
}

func (l *Link) serve(client net.Conn) {
	if !l.track(client) {
		return
	}
	defer l.drop(client)
	if !l.wait() {
		return
	}
	server, err := net.Dial("tcp4", l.target)
	if err != nil {
		reset(client)
		return
	}
	if !l.track(server) {
		return
	}
	defer l.drop(server)
	var wg sync.WaitGroup
	wg.Go(func() { l.copy(server, client) })
	l.copy(client, server)
	wg.Wait()
}

// copy moves bytes one way. Bytes already read when the link stalls are held until it moves again.
func (l *Link) copy(to, from net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if !l.wait() {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				reset(from)
				return
			}
		}
		if errors.Is(err, io.EOF) {
			closeWrite(to)
			return
		}
		if err != nil {
			reset(to)
			return
		}
	}
}

// wait returns when bytes may move, or false when the link is cut or closed.
func (l *Link) wait() bool {
	for {
		l.mu.Lock()
		moving, ok := l.moving, !l.closed && l.condition != Partitioned
		stalled := l.condition == Stalled
		l.mu.Unlock()
		if !ok {
			return false
		}
		if !stalled {
			return true
		}
		<-moving
	}
}

func (l *Link) track(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.condition == Partitioned {
		reset(c)
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

// reset closes a connection so that the other side gets an error, not an orderly end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else it ends orderly
	}
	c.Close()
}

func closeWrite(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite() // fails if it is closed
	}
}
