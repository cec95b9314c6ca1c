package measure

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// Caller sends reviews the way API servers do: over HTTP/1.1 and connections that are kept.
type Caller struct {
	url    string
	client *http.Client
}

// NewCaller trusts the CA, in PEM. It connects to the address instead of the URL's host, unless that is empty, by so many connections at
// most; 0 is no limit.
func NewCaller(url string, ca []byte, address string, connections int) (*Caller, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("there is no CA to trust")
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: keptConnections,
	}
	if address != "" {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}
	return &Caller{url: url, client: &http.Client{Transport: transport}}, nil
}

// keptConnections is more than any of these programs has.
const keptConnections = 100

// Close ends the connections.
func (c *Caller) Close() { c.client.CloseIdleConnections() }

// Send sends a review and returns the whole answer.
func (c *Caller) Send(ctx context.Context, review []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(review))
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("sending a review: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer to a review: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("a review was answered with %s: %s", response.Status, answer)
	}
	return answer, nil
}
