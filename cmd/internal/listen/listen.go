// Package listen serves HTTP to clients that nobody knows, on a port that every
// pod of a cluster may reach, in a process that has little memory.
//
// Guaranteed is that memory, descriptors and goroutines stay within bounds,
// whatever clients send, and that a client which sends a request at once and
// reads the answer gets one also while others hold all places: a new connection
// takes the place of one that waits for its client, from the address that has most
// of these, and there of the one that has waited longest. So a client that floods
// the port takes places from itself. Each is left alone for its turn.
//
// Not guaranteed is an answer to a client whose connection the kernel drops
// because more are opened than a process can accept, some ten thousand a second.
// Idle connections may be closed at any time, so that clients which keep one have
// to try again, as HTTP asks them to (RFC 9112, section 9.3.1). Handlers get no
// body to read, unless they say that they bound what they read of it.
package listen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// Config says how to serve.
type Config struct {
	// Address is host:port or :port. Required.
	Address string
	// Handler answers. Required.
	Handler http.Handler
	// IsStream tells a request whose answer goes on and on; nil if there is none. A
	// stream's handler has to set a deadline before each write: Answer ends it else.
	IsStream func(*http.Request) bool
	// Encrypt returns a connection on which what clients send is decrypted; it must
	// not wait for them. HTTP/2 is not spoken: it would let one connection be as many.
	// A tls.Config here would link TLS into programs that serve without. Default: none.
	Encrypt func(net.Conn) net.Conn
	// Bodies lets the handler read bodies; it has to bound what it keeps of them.
	// Default: a body of more than a few bytes is refused.
	Bodies bool
	// Places are the connections that are served at a time, streams apart. Default:
	// 256.
	Places int
	// Patience is how long an answer is left alone when all places are taken by
	// answers. Default: 20ms.
	Patience time.Duration
	// Header, Request and Answer are what a client gets to send the header of its
	// request, with its handshake; all of it; and, with these, to take the answer.
	// Default: 5s, 10s and 15s.
	Header, Request, Answer time.Duration
}

// What a client gets by default to send its request and take the answer. Kubelets,
// scrapers and applications take milliseconds.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second // with the header
	// answerTimeout is longer than a handler here may take, 5s, and than Prometheus
	// waits by default, 10s.
	answerTimeout = 15 * time.Second
	idleTimeout   = 90 * time.Second // as long as clients of net/http keep a connection
)

func (c Config) withDefaults() Config {
	c.Places = cmp.Or(c.Places, maxConns)
	c.Patience = cmp.Or(c.Patience, turn)
	c.Header, c.Request, c.Answer = cmp.Or(c.Header, headerTimeout), cmp.Or(c.Request, bodyTimeout), cmp.Or(c.Answer, answerTimeout)
	return c
}

const (
	// maxHeader is in bytes. Kubelet and Prometheus send less than 1 KiB, a mesh adds
	// as much.
	maxHeader = 8 << 10
	// maxLines bounds a header's lines: an empty one of 4 bytes takes 100 when it is
	// parsed. A browser sends 20, and a mesh adds 10.
	maxLines = 100
	// maxBody is in bytes, of a body that no handler wants. Some clients send {}.
	maxBody = 1 << 10
)

// Serve answers on address with handler until stop is called. For isStream see
// Config.
func Serve(ctx context.Context, address string, handler http.Handler, isStream func(*http.Request) bool) (stop func(), err error) {
	return Config{Address: address, Handler: handler, IsStream: isStream}.Serve(ctx)
}

// Serve answers until stop is called, which waits for the listener to end and cuts
// connections off.
func (c Config) Serve(ctx context.Context) (stop func(), err error) {
	l, err := open(ctx, c)
	if err != nil {
		return nil, err
	}
	return l.serve(ctx), nil
}

// Run answers until ctx ends. Then it answers what has begun, for grace at most.
func (c Config) Run(ctx context.Context, grace time.Duration) error {
	l, err := open(ctx, c)
	if err != nil {
		return err
	}
	// The end of ctx must not end requests that have begun.
	requests := context.WithoutCancel(ctx)
	server := l.server(requests)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(requests, grace)
	defer cancel()
	if err = server.Shutdown(ending); err != nil {
		err = errors.Join(fmt.Errorf("answering the last requests: %w", err), server.Close())
	}
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}

func open(ctx context.Context, c Config) (*listener, error) {
	from, err := net.Listen("tcp", c.Address)
	if err != nil {
		return nil, err
	}
	l := newListener(from, c)
	log := klog.FromContext(ctx)
	l.tell = func() {
		log.Info("more clients than places, closing the connections that have waited longest", "address", c.Address, "places", l.Places)
	}
	return l, nil
}

func (l *listener) server(ctx context.Context) *http.Server {
	return &http.Server{
		Handler: l.bound(), BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: l.changed, ConnContext: l.begin,
		ReadHeaderTimeout: l.Header, ReadTimeout: l.Request, WriteTimeout: l.Answer, IdleTimeout: idleTimeout,
		// conn.Read is stricter, and does not keep the connection for half a second after
		// it has refused a header. net/http's own handler of OPTIONS * does.
		MaxHeaderBytes: 4 * maxHeader, DisableGeneralOptionsHandler: true,
		ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(klog.FromContext(ctx)), slog.LevelWarn),
	}
}

func (l *listener) serve(ctx context.Context) (stop func()) {
	server := l.server(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(ctx).Error(err, "serving", "address", l.Addr().String())
		}
	}()
	return func() {
		_ = server.Close() // streams would hold a graceful shutdown up
		<-done
	}
}

// bound refuses requests with a body unless the handler reads them, and counts
// streams.
func (l *listener) bound() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own, ok := r.Context().Value(connKey{}).(*conn)
		if !ok {
			http.Error(w, "not a connection of this listener", http.StatusInternalServerError)
			return
		}
		switch {
		case r.ContentLength == 0:
		case l.Bodies:
			l.enter(own, receiving)
			r = r.WithContext(r.Context()) // a copy: net/http looks at its own for how much was read
			r.Body = &body{r.Body, func() { l.enter(own, busy) }}
		default:
			// What follows a body was not counted as a header.
			w.Header().Set("Connection", "close")
			if !dropBody(r) {
				l.refuse(w, own)
				return
			}
		}
		if l.IsStream != nil && l.IsStream(r) {
			l.stream(own)
		}
		l.Handler.ServeHTTP(w, r)
	})
}

// body tells when all of it has come, or no more will.
type body struct {
	io.ReadCloser
	ended func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.ended()
	}
	return n, err
}

// dropBody reports whether the body has come and was small.
func dropBody(r *http.Request) bool {
	if r.ContentLength > maxBody {
		return false
	}
	_, err := io.CopyN(io.Discard, r.Body, maxBody+1)
	return errors.Is(err, io.EOF)
}

// Answers that close the connection.
const (
	closing        = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
	headerTooLarge = "HTTP/1.1 431 Request Header Fields Too Large" + closing + "the request's header is too large\n"
	bodyTooLarge   = "HTTP/1.1 413 Content Too Large" + closing + "send no body\n"
	notEncrypted   = "HTTP/1.1 400 Bad Request" + closing + "this is HTTPS, and the request was not encrypted\n"
)

// refuse ends a request whose body is too large or too slow. net/http would read
// on, and keep the connection for half a second.
func (l *listener) refuse(w http.ResponseWriter, own *conn) {
	hijacked, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer l.remove(own)
	defer hijacked.Close()
	own.say(bodyTooLarge)
}
