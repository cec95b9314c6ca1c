package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/elector-io/elector/cmd/internal/listen"
)

// What a client gets to send its request and take the answer. API servers take
// milliseconds; they give a handshake 10s, and an answer the chart's
// timeoutSeconds, 10 as well.
const (
	headerTimeout = 10 * time.Second // with the TLS handshake
	bodyTimeout   = 15 * time.Second // with the header
	answerTimeout = 30 * time.Second // with the request
	// answerPatience is how long an answer is waited for that others want the place
	// of: longer than admit lets a review wait for its turn, 5s.
	answerPatience = 6 * time.Second
)

// server is controller-runtime's webhook server, but for how it serves: that one
// (v0.25.2) lets any number of clients connect and send their headers and bodies
// for as long as they like.
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

// Start serves until ctx ends, and then answers what has begun. It speaks HTTP/1.1
// as API servers do to webhooks (kubernetes/kubernetes#75791).
func (s *server) Start(ctx context.Context) error {
	config := &tls.Config{GetCertificate: s.certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	err := listen.Config{
		Address: s.address, Handler: s.WebhookMux(), Bodies: true, // which package admit bounds
		Encrypt: func(c net.Conn) net.Conn { return tls.Server(c, config) },
		Header:  headerTimeout, Request: bodyTimeout, Answer: answerTimeout, Patience: answerPatience,
	}.Run(ctx, shutdownTimeout)
	if err != nil {
		return fmt.Errorf("serving admission reviews: %w", err)
	}
	return nil
}
