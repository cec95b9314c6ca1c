// Package kubeletapi serves the HTTPS endpoints of a node that kubectl logs, exec and port-forward reach through the API server.
//
// Only the API server may call, by its client certificate; it has authorised the user before. Attach is not served.
package kubeletapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/test/cluster/internal/processlet"
)

// Streams that nothing goes through are closed after idleTimeout; a client has creationTimeout to set its streams up. The kubelet's numbers.
const (
	idleTimeout     = 4 * time.Hour
	creationTimeout = 30 * time.Second
)

// followEvery is how often a followed log is looked at for more.
const followEvery = 100 * time.Millisecond

// Host runs the containers that the endpoints are about.
type Host interface {
	Log(namespace, pod, container string, previous bool) (log io.ReadSeekCloser, ended <-chan struct{}, err error)
	Exec(ctx context.Context, namespace, pod, container string, cmd []string, streams processlet.Streams) error
	PodAddr(namespace, pod string) (netip.Addr, error)
}

// Config says where and for whom to serve.
type Config struct {
	// Host runs the containers. Required.
	Host Host
	// CertFile and KeyFile are what to serve with, ClientCAFile issued the caller's certificate, ClientName is its common name. Required.
	CertFile, KeyFile, ClientCAFile, ClientName string
}

// Server answers for every node: they differ only in their address.
type Server struct {
	cfg  Config
	http *http.Server
}

// New reads the certificates. Nothing is served before Serve.
func New(cfg Config) (*Server, error) {
	cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the kubelet's certificate: %w", err)
	}
	ca, err := os.ReadFile(cfg.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("load the clients' authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	s := &Server{cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", s.authorised(s.logs))
	mux.Handle("/exec/{namespace}/{pod}/{container}", s.authorised(s.exec))
	mux.Handle("/exec/{namespace}/{pod}/{uid}/{container}", s.authorised(s.exec))
	mux.Handle("/portForward/{namespace}/{pod}", s.authorised(s.portForward))
	mux.Handle("/portForward/{namespace}/{pod}/{uid}", s.authorised(s.portForward))
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(klogWriter{}, "", 0),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven,
			NextProtos: []string{"http/1.1"}, // streams take the connection over, which HTTP/2 does not allow
		},
	}
	return s, nil
}

// klogWriter keeps what net/http has to say out of the terminal.
type klogWriter struct{}

func (klogWriter) Write(line []byte) (int, error) {
	klog.V(1).InfoS("Kubelet endpoint", "message", string(line))
	return len(line), nil
}

// Serve answers on all listeners until ctx ends, then cuts what is left.
func (s *Server) Serve(ctx context.Context, listeners []net.Listener) error {
	results := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { results <- s.http.ServeTLS(l, "", "") }()
	}
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	var failed error
	for range listeners {
		if err := <-results; !errors.Is(err, http.ErrServerClosed) {
			failed = errors.Join(failed, err, s.http.Close())
		}
	}
	return failed
}

func (s *Server) authorised(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if certs := r.TLS.PeerCertificates; len(certs) == 0 || certs[0].Subject.CommonName != s.cfg.ClientName {
			http.Error(w, "only the API server may ask", http.StatusUnauthorized)
			return
		}
		next(w, r)
	})
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	file, ended, err := s.cfg.Host.Log(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"), q.Get("previous") == "true")
	if err != nil {
		answerError(w, err)
		return
	}
	defer file.Close()
	if tail := q.Get("tailLines"); tail != "" {
		n, err := strconv.Atoi(tail)
		if err != nil || n < 0 {
			http.Error(w, "tailLines must be a number of lines", http.StatusBadRequest)
			return
		}
		if err := seekTail(file, n); err != nil {
			answerError(w, err)
			return
		}
	}
	// A failed copy means that the client has gone, or that the log ended early: the client sees that by itself.
	var out io.Writer = flusher{w}
	if limit := q.Get("limitBytes"); limit != "" {
		n, err := strconv.ParseInt(limit, 10, 64)
		if err != nil || n < 1 {
			http.Error(w, "limitBytes must be a number of bytes", http.StatusBadRequest)
			return
		}
		_, _ = io.CopyN(out, file, n)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.Copy(out, file)
	if q.Get("follow") == "true" {
		follow(r.Context(), out, file, ended)
	}
}

// follow copies what is written to a log until its container has ended or the client has gone.
func follow(ctx context.Context, out io.Writer, file io.Reader, ended <-chan struct{}) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		over := false
		select {
		case <-ctx.Done():
			return
		case <-ended:
			over = true
		case <-tick.C:
		}
		if _, err := io.Copy(out, file); err != nil || over {
			return
		}
	}
}

// flusher sends every write on at once.
type flusher struct{ http.ResponseWriter }

func (f flusher) Write(b []byte) (int, error) {
	n, err := f.ResponseWriter.Write(b)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(f.ResponseWriter).Flush()
}

// seekTail moves to the beginning of the last n lines.
func seekTail(f io.ReadSeeker, n int) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("find the end of the log: %w", err)
	}
	const block = 8 << 10
	buf := make([]byte, block)
	newlines := 0
	for at := end; at > 0; {
		size := min(at, block)
		at -= size
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if _, err := io.ReadFull(f, buf[:size]); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || at+i == end-1 {
				continue // the last newline ends the last line, it does not begin another
			}
			if newlines++; newlines == n {
				_, err := f.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	if n == 0 {
		_, err = f.Seek(end, io.SeekStart)
		return err
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e := executor{host: s.cfg.Host, namespace: r.PathValue("namespace")}
	remotecommand.ServeExec(w, r, e, r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"), r.URL.Query()["command"], options,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

// executor turns the library's idea of an exec into ours.
type executor struct {
	host      Host
	namespace string
}

// exitError tells the library the exit code of a command.
type exitError struct{ *processlet.ExitError }

func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return e.Code }

// ExecInContainer runs one command and returns when it has ended.
func (e executor) ExecInContainer(ctx context.Context, pod, _, container string, cmd []string, in io.Reader, out, stderr io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streams := processlet.Streams{TTY: tty}
	// A nil stream of the library is a nil pointer of some type, or a nil interface.
	if in != nil {
		streams.In = in
	}
	if out != nil {
		streams.Out = out
	}
	if stderr != nil {
		streams.Err = stderr
	}
	if resize != nil {
		sizes := make(chan [2]uint16)
		streams.Resize = sizes
		go func() { // ends with the command, or when the client closes its stream
			for {
				select {
				case <-ctx.Done():
					return
				case size, ok := <-resize:
					if !ok {
						return
					}
					select {
					case sizes <- [2]uint16{size.Width, size.Height}:
					case <-ctx.Done():
						return
					}
				}
			}
		}()
	}
	err := e.host.Exec(ctx, e.namespace, pod, container, cmd, streams)
	if exit, ok := errors.AsType[*processlet.ExitError](err); ok {
		return exitError{exit}
	}
	return err
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f := forwarder{host: s.cfg.Host, namespace: r.PathValue("namespace")}
	portforward.ServePortForward(w, r, f, r.PathValue("pod"), r.PathValue("uid"), options, idleTimeout, creationTimeout, portforward.SupportedProtocols)
}

type forwarder struct {
	host      Host
	namespace string
}

// PortForward connects a stream to a port of a pod until one side ends.
func (f forwarder) PortForward(ctx context.Context, pod, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	addr, err := f.host.PodAddr(f.namespace, pod)
	if err != nil {
		return err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp4", netip.AddrPortFrom(addr, uint16(port)).String())
	if err != nil {
		return fmt.Errorf("connect to port %d of the pod: %w", port, err)
	}
	defer conn.Close()
	go func() { // ends with the stream, which is closed on return
		_, _ = io.Copy(conn, stream)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, conn)
	return err
}

func answerError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if errors.Is(err, processlet.ErrNotFound) {
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
}
