// Package listen serves HTTP to clients that nobody knows, on a port that every
// pod of a cluster may reach, in a process that has little memory.
//
// Guaranteed is that memory, descriptors and goroutines stay within bounds,
// whatever clients send, and that a client which sends a request at once and
// reads the answer gets one also while others hold all places: a new connection
// takes the place of the one that has waited longest for its client, and is left
// alone for its turn.
//
// Not guaranteed is an answer to a client whose connection the kernel drops
// because more are opened than a process can accept, some ten thousand a second.
// Idle connections may be closed at any time, so that clients which keep one have
// to try again, as HTTP asks them to (RFC 9112, section 9.3.1). Handlers get no
// body to read.
package listen

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// What a client gets to send its request and take the answer. Kubelets, scrapers
// and applications take milliseconds.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second // with the header
	// answerTimeout is longer than a handler here may take, 5s, and than Prometheus
	// waits by default, 10s.
	answerTimeout = 15 * time.Second
	idleTimeout   = 90 * time.Second // as long as clients of net/http keep a connection
)

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

// Serve answers on address with handler until stop is called, which waits for the
// listener to end and cuts connections off. isStream tells a request whose answer
// goes on and on; nil if there is none. A stream's handler has to set a deadline
// before each write: answerTimeout ends it else.
func Serve(ctx context.Context, address string, handler http.Handler, isStream func(*http.Request) bool) (stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	log := klog.FromContext(ctx)
	return newListener(listener, func() {
		log.Info("More clients than places, closing the connections that have waited longest", "address", address, "places", maxConns)
	}).serve(ctx, handler, isStream), nil
}

func (l *listener) serve(ctx context.Context, handler http.Handler, isStream func(*http.Request) bool) (stop func()) {
	server := &http.Server{
		Handler:   l.bound(handler, isStream),
		ConnState: l.changed, ConnContext: l.begin,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		// conn.Read is stricter, and does not keep the connection for half a second after
		// it has refused a header. net/http's own handler of OPTIONS * does.
		MaxHeaderBytes: 4 * maxHeader, DisableGeneralOptionsHandler: true,
		ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(klog.FromContext(ctx)), slog.LevelWarn),
	}
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

// bound refuses requests with a body, and counts streams.
func (l *listener) bound(next http.Handler, isStream func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own, ok := r.Context().Value(connKey{}).(*conn)
		if !ok {
			http.Error(w, "not a connection of this listener", http.StatusInternalServerError)
			return
		}
		if r.ContentLength != 0 {
			// What follows a body was not counted as a header.
			w.Header().Set("Connection", "close")
			if !dropBody(r) {
				l.refuse(w, own)
				return
			}
		}
		if isStream != nil && isStream(r) {
			l.stream(own)
		}
		next.ServeHTTP(w, r)
	})
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
