package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

const (
	// connections is over how many as many reviews as possible are sent.
	connections = 8
	// warm is how many reviews are sent over each before and do not count.
	warm = 10
)

// caller sends reviews the way API servers do: over HTTP/1.1 and connections that are kept.
type caller struct {
	url    string
	client *http.Client
}

func newCaller(s said) (*caller, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(s.CA)) {
		return nil, errors.New("there is no CA in what it says")
	}
	return &caller{url: s.URL, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections,
	}}}, nil
}

func (c *caller) close() { c.client.CloseIdleConnections() }

// send sends a review and returns the whole answer.
func (c *caller) send(ctx context.Context, review []byte) ([]byte, error) {
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

// full is how many reviews an injector answers when each connection sends the next one as soon as the last is answered.
type full struct {
	rate float64 // per second
	cpu  time.Duration
}

func (c *caller) measureFull(ctx context.Context, pid int, review []byte, window time.Duration) (f full, err error) {
	if _, err := c.fill(ctx, review, func(sent int) bool { return sent < warm }); err != nil {
		return f, err
	}
	before, err := measure.CPUTime(pid)
	if err != nil {
		return f, err
	}
	began := time.Now()
	n, err := c.fill(ctx, review, func(int) bool { return time.Since(began) < window })
	if err != nil {
		return f, err
	}
	took := time.Since(began)
	after, err := measure.CPUTime(pid)
	if err != nil {
		return f, err
	}
	return full{rate: float64(n) / took.Seconds(), cpu: (after - before) / time.Duration(n)}, nil
}

// fill sends reviews over all connections, and returns how many; more is asked with how many one of them has sent.
func (c *caller) fill(ctx context.Context, review []byte, more func(sent int) bool) (n int64, err error) {
	var all atomic.Int64
	sending, ctx := errgroup.WithContext(ctx)
	for range connections {
		sending.Go(func() error {
			for sent := 0; more(sent); sent++ {
				if _, err := c.send(ctx, review); err != nil {
					return err
				}
				all.Add(1)
			}
			return nil
		})
	}
	err = sending.Wait()
	return all.Load(), err
}
