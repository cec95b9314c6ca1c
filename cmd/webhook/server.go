package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// What a client gets to send its request and take the answer. API servers take
// milliseconds; they give a handshake 10s, and an answer the chart's
// timeoutSeconds, 10 as well.
const (
	headerTimeout = 10 * time.Second // each for the TLS handshake and the header
	bodyTimeout   = 15 * time.Second // with the header
	answerTimeout = 30 * time.Second // with the request
	idleTimeout   = 90 * time.Second // as long as clients of net/http keep a connection
	maxHeader     = 16 << 10         // bytes; API servers send less than 1 KiB
)

// server is controller-runtime's webhook server, but for how it serves: that one
// (v0.25.2) lets a client send its body for as long as it likes, and its headers
// for half a minute.
type server struct {
	webhook.Server
	address     string
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// newServer returns a server for admission reviews. certificate is called once
// the server has been started.
func newServer(address string, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *server {
	return &server{Server: webhook.NewServer(webhook.Options{}), address: address, certificate: certificate}
}

// Start serves until ctx ends, and then answers what has begun.
func (s *server) Start(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		return fmt.Errorf("listen for admission reviews: %w", err)
	}
	// The end of ctx must not end requests that have begun.
	requests := context.WithoutCancel(ctx)
	srv := &http.Server{
		Handler: s.WebhookMux(), BaseContext: func(net.Listener) context.Context { return requests },
		TLSConfig:         &tls.Config{GetCertificate: s.certificate, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(listener, "", "") }()
	select {
	case err := <-served:
		return fmt.Errorf("serve admission reviews: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(requests, shutdownTimeout)
	defer cancel()
	if err = srv.Shutdown(grace); err != nil {
		err = errors.Join(fmt.Errorf("answer the last admission reviews: %w", err), srv.Close())
	}
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}
