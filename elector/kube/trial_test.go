package kube

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
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
