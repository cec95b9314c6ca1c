// Package control is the way from other programs into a running cluster: HTTP on a unix socket that only its owner can open.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// Action is one thing that can be done to a pod.
type Action func(namespace, pod string) error

// ErrStopped is what Serve returns when a request asked the cluster to stop.
var ErrStopped = errors.New("stop was asked for")

// maxPath is how long a unix socket's path may be on Linux.
const maxPath = 107

// Server answers POST /pods/{namespace}/{name}/{action}, POST /apiserver/restart and POST /stop.
type Server struct {
	listener net.Listener
	http     *http.Server
	stop     chan struct{}
}

// Listen opens the socket. restart is for the API server; the request lasts until it has done so. An error that wraps the action's makes 404
// if notFound is in its chain, else 500.
func Listen(socket string, actions map[string]Action, restart func(context.Context) error, notFound error) (*Server, error) {
	if len(socket) > maxPath {
		return nil, fmt.Errorf("the path of the control socket may have %d bytes, choose a shorter directory than that of %s", maxPath, socket)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect the control socket: %w", err)
	}
	s := &Server{listener: l, stop: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		select {
		case s.stop <- struct{}{}:
		default:
		}
	})
	mux.HandleFunc("POST /apiserver/restart", func(w http.ResponseWriter, r *http.Request) {
		if err := restart(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /pods/{namespace}/{name}/{action}", func(w http.ResponseWriter, r *http.Request) {
		action, ok := actions[r.PathValue("action")]
		if !ok {
			http.Error(w, fmt.Sprintf("no action %q, there are %s", r.PathValue("action"), names(actions)), http.StatusNotFound)
			return
		}
		err := action(r.PathValue("namespace"), r.PathValue("name"))
		switch {
		case errors.Is(err, notFound):
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return s, nil
}

func names(actions map[string]Action) string {
	var list []string
	for name := range actions {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// Serve answers until ctx ends, or until a stop is asked for: then it returns ErrStopped.
func (s *Server) Serve(ctx context.Context) error {
	result := make(chan error, 1)
	go func() { result <- s.http.Serve(s.listener) }()
	var asked error
	select {
	case <-ctx.Done():
	case <-s.stop:
		asked = ErrStopped
	case err := <-result:
		return fmt.Errorf("serve the control socket: %w", err)
	}
	// The answer to a stop is still on its way.
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err := s.http.Shutdown(shutdown)
	if served := <-result; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return errors.Join(asked, err)
}

// Post sends one request to a cluster's socket: "stop", or "pods/NAMESPACE/NAME/ACTION".
func Post(ctx context.Context, socket, path string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://cluster/"+path, nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusMultipleChoices {
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return errors.New(strings.TrimSpace(string(reason)))
	}
	return nil
}
