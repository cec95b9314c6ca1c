package lock

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/transport"
)

// network connects clients to one listener in memory, so that synctest's clock is the only one.
type network struct {
	accept chan net.Conn
	closed chan struct{}
	close  func()

	mu    sync.Mutex
	wires []*wire
	hangs bool // dials do
	hung  time.Duration
}

func newNetwork() *network {
	n := &network{accept: make(chan net.Conn), closed: make(chan struct{})}
	n.close = sync.OnceFunc(func() { close(n.closed) })
	return n
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error { n.close(); return nil }

func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	hangs := n.hangs
	n.mu.Unlock()
	if hangs {
		began := time.Now()
		<-ctx.Done()
		n.mu.Lock()
		defer n.mu.Unlock()
		n.hung = max(n.hung, time.Since(began))
		return nil, ctx.Err()
	}
	w := newWire()
	select {
	case n.accept <- w.server:
	case <-n.closed:
		return nil, net.ErrClosed
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires = append(n.wires, w)
	return w.client, nil
}

// dialled is how many connections there have been, and open how many the client has not closed.
func (n *network) counts() (dialled, open int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.wires {
		if !w.client.in.isClosed() {
			open++
		}
	}
	return len(n.wires), open
}

// silence makes every connection swallow all bytes from now on, both ways, without a sign to either end. New ones work.
func (n *network) silence() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.wires {
		w.client.in.silence()
		w.server.in.silence()
	}
}

func (n *network) hang(hangs bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hangs = hangs
}

// longestDial is how long a dial hung that was given up.
func (n *network) longestDial() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hung
}

// wire is a connection.
type wire struct{ client, server *socket }

func newWire() *wire {
	up, down := newStream(), newStream()
	return &wire{client: &socket{in: down, out: up}, server: &socket{in: up, out: down}}
}

// socket is one side of a wire.
type socket struct{ in, out *stream }

func (s *socket) Read(p []byte) (int, error)  { return s.in.read(p) }
func (s *socket) Write(p []byte) (int, error) { return s.out.write(p) }

func (s *socket) Close() error {
	s.in.closeReader()
	s.out.closeWriter()
	return nil
}

func (s *socket) LocalAddr() net.Addr               { return &net.TCPAddr{} }
func (s *socket) RemoteAddr() net.Addr              { return &net.TCPAddr{} }
func (s *socket) SetDeadline(t time.Time) error     { return s.SetReadDeadline(t) }
func (s *socket) SetWriteDeadline(time.Time) error  { return nil } // writes never block
func (s *socket) SetReadDeadline(t time.Time) error { s.in.setDeadline(t); return nil }

// stream is one direction of a wire, with room for everything.
type stream struct {
	mu         sync.Mutex
	changed    *sync.Cond
	buf        bytes.Buffer
	silent     bool
	deadline   time.Time
	readerGone bool
	writerGone bool
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// change does something that a reader may wait for.
func (s *stream) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	s.changed.Broadcast()
}

func (s *stream) silence()     { s.change(func() { s.silent = true; s.buf.Reset() }) }
func (s *stream) closeReader() { s.change(func() { s.readerGone = true }) }
func (s *stream) closeWriter() { s.change(func() { s.writerGone = !s.silent }) }

func (s *stream) setDeadline(t time.Time) {
	s.change(func() { s.deadline = t })
	if !t.IsZero() {
		time.AfterFunc(time.Until(t), func() { s.change(func() {}) })
	}
}

func (s *stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readerGone
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readerGone:
			return 0, net.ErrClosed
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return 0, os.ErrDeadlineExceeded
		case s.buf.Len() > 0:
			return s.buf.Read(p)
		case s.writerGone:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.writerGone:
		return 0, net.ErrClosed
	case s.silent:
	case s.readerGone:
		return 0, io.ErrClosedPipe
	default:
		s.buf.Write(p)
		s.changed.Broadcast()
	}
	return len(p), nil
}

// apiServer keeps one Lease, as much as a lock needs of it.
type apiServer struct {
	*network
	http *httptest.Server

	mu      sync.Mutex
	changed *sync.Cond
	lease   coordinationv1.Lease
	version uint64
	stopped bool
	// slow is how long a write takes; goAway ends the connection with every write, as --goaway-chance does with one in some
	// thousand requests; deaf silences the connections when a watch arrives.
	slow         time.Duration
	goAway, deaf bool
}

const testLock = "web"

// startAPI starts a server; change makes it another than the usual one.
func startAPI(t *testing.T, change func(*httptest.Server)) *apiServer {
	t.Helper()
	s := &apiServer{network: newNetwork(), version: 1}
	s.changed = sync.NewCond(&s.mu)
	s.lease = coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: testLock, ResourceVersion: "1"},
	}
	s.http = httptest.NewUnstartedServer(s)
	_ = s.http.Listener.Close()
	s.http.Listener = s.network
	s.http.EnableHTTP2 = true
	if change != nil {
		change(s.http)
	}
	s.http.StartTLS()
	t.Cleanup(func() {
		s.set(func() { s.stopped = true })
		s.network.mu.Lock()
		for _, w := range s.wires {
			_ = w.client.Close()
			_ = w.server.Close()
		}
		s.network.mu.Unlock()
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

// set changes the server.
func (s *apiServer) set(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	s.changed.Broadcast()
}

// change is a write by somebody else.
func (s *apiServer) change() {
	s.set(func() {
		s.version++
		s.lease.ResourceVersion = strconv.FormatUint(s.version, 10)
	})
}

// config is the server as client-go connects to it, or as a Pod does.
func (s *apiServer) config(t *testing.T, pod bool) Server {
	t.Helper()
	server := serverOf("https://127.0.0.1", nil)
	server.Dial = s.dial
	if !pod {
		server.Connect = clientGo(&transport.Config{TLS: transport.TLSConfig{CAData: []byte(certificateOf(s.http))}})
		return server
	}
	own, err := credentialsIn(podDir(t, s.http), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server.Connect = own.connect
	return server
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodPut:
		s.update(w, r)
	case isWatch(r):
		s.watch(w, r)
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		list := coordinationv1.LeaseList{Items: []coordinationv1.Lease{s.lease}}
		list.Kind, list.APIVersion, list.ResourceVersion = "LeaseList", "coordination.k8s.io/v1", strconv.FormatUint(s.version, 10)
		answer(w, list)
	}
}

func answer(w http.ResponseWriter, object any) {
	if err := json.NewEncoder(w).Encode(object); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *apiServer) update(w http.ResponseWriter, r *http.Request) {
	var lease coordinationv1.Lease
	if err := json.NewDecoder(r.Body).Decode(&lease); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	slow, goAway := s.slow, s.goAway
	s.mu.Unlock()
	time.Sleep(slow) // synctest's clock
	if goAway {
		w.Header().Set("Connection", "close")
	}
	s.set(func() {
		s.version++
		lease.ResourceVersion = strconv.FormatUint(s.version, 10)
		s.lease = lease
	})
	answer(w, lease)
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf {
		s.silence()
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	defer context.AfterFunc(r.Context(), func() { s.set(func() {}) })()
	last, _ := strconv.ParseUint(r.URL.Query().Get("resourceVersion"), 10, 64)
	for !s.stopped && r.Context().Err() == nil {
		if s.version > last {
			last = s.version
			answer(w, map[string]any{"type": "MODIFIED", "object": s.lease})
			_ = http.NewResponseController(w).Flush()
		}
		s.changed.Wait()
	}
}
