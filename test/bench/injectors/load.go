package main

import (
	"context"
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

// full is how many reviews an injector answers when each connection sends the next one as soon as the last is answered.
type full struct {
	rate float64 // per second
	cpu  time.Duration
}

func measureFull(ctx context.Context, c *measure.Caller, pid int, review []byte, window time.Duration) (f full, err error) {
	if _, err := fill(ctx, c, review, func(sent int) bool { return sent < warm }); err != nil {
		return f, err
	}
	before, err := measure.CPUTime(pid)
	if err != nil {
		return f, err
	}
	began := time.Now()
	n, err := fill(ctx, c, review, func(int) bool { return time.Since(began) < window })
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
func fill(ctx context.Context, c *measure.Caller, review []byte, more func(sent int) bool) (n int64, err error) {
	var all atomic.Int64
	sending, ctx := errgroup.WithContext(ctx)
	for range connections {
		sending.Go(func() error {
			for sent := 0; more(sent); sent++ {
				if _, err := c.Send(ctx, review); err != nil {
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
