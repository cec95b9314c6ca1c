package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestServerAnswersTheLast holds that a request which has begun is answered when
// the server is told to stop, and that no other comes in.
func TestServerAnswersTheLast(t *testing.T) {
	other := httptest.NewTLSServer(nil) // for its certificate
	defer other.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()

	s := newServer(address, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &other.TLS.Certificates[0], nil })
	began, goOn := make(chan struct{}), make(chan struct{})
	s.Register("/mutate-pod", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-goOn
		if err := r.Context().Err(); err != nil {
			t.Errorf("the request is told to end: %v", err)
		}
		w.WriteHeader(http.StatusOK)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Start(ctx) }()

	client := other.Client()
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true // which the server does not speak
	post := func() (*http.Response, error) {
		for { // until it listens
			response, err := client.Post("https://"+address+"/mutate-pod", "application/json", nil)
			if err == nil || ctx.Err() != nil {
				return response, err
			}
			select {
			case err := <-ended:
				return nil, err
			default:
			}
		}
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		response, err := post()
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK || response.ProtoMajor != 1 {
			t.Errorf("answered with %s by %s", response.Status, response.Proto)
		}
	}()
	<-began
	cancel()
	for { // until it does not listen
		conn, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-ended:
		t.Fatalf("ended before the answer: %v", err)
	default:
	}
	close(goOn)
	<-answered
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
