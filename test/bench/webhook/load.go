package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

const (
	// pace is how many reviews per second are sent while the latency is measured.
	pace = 100
	// fullConnections is over how many connections as many reviews as possible are sent.
	fullConnections = 8
	// warmReviews are sent before and do not count: the first ones wait for a TLS handshake.
	warmReviews = 50
)

// paced is how long reviews take that come at a pace, whether those before them have been answered or not.
type paced struct {
	bytes int            // of a review
	due   measure.Sample // from the moment when a review was to be sent
	sent  measure.Sample // from the moment when it was
}

// measurePaced sends reviews at times that are fixed beforehand: one that is slow holds up no other, and is not left out either.
func (l *lab) measurePaced(ctx context.Context, review []byte) (p paced, err error) {
	c, err := l.endpoint.caller(0)
	if err != nil {
		return p, err
	}
	defer c.Close()
	if err := warm(ctx, c, review); err != nil {
		return p, err
	}
	n := int(l.plan.paced.Seconds() * pace)
	p = paced{bytes: len(review), due: make(measure.Sample, n), sent: make(measure.Sample, n)}
	var sending errgroup.Group
	// The runtime's timers are up to a millisecond late, the kernel's are not; they block the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := time.Now()
	for i := range n {
		at := time.Duration(i) * time.Second / pace
		if err := ctx.Err(); err != nil {
			break
		}
		if left := at - time.Since(began); left > 0 {
			ts := unix.NsecToTimespec(left.Nanoseconds())
			_ = unix.Nanosleep(&ts, nil) // a signal may end it early; then a review is sent early
		}
		sending.Go(func() error {
			sent := time.Now()
			answer, err := c.Send(ctx, review)
			if err != nil {
				return err
			}
			p.due[i], p.sent[i] = time.Since(began)-at, time.Since(sent)
			return checkAnswer(answer)
		})
	}
	if err := sending.Wait(); err != nil {
		return p, err
	}
	return p, context.Cause(ctx)
}

func warm(ctx context.Context, c *measure.Caller, review []byte) error {
	for range warmReviews {
		answer, err := c.Send(ctx, review)
		if err != nil {
			return err
		}
		if err := checkAnswer(answer); err != nil {
			return err
		}
	}
	return nil
}

// full is how many reviews the manager answers when each connection sends the next one as soon as the last is answered.
type full struct {
	window  time.Duration
	latency measure.Sample
	used    []usage
}

func (f full) rate() float64 { return float64(len(f.latency)) / f.window.Seconds() }

// cpu is the CPU time that all replicas together took for a review.
func (f full) cpu() time.Duration {
	if len(f.latency) == 0 {
		return 0
	}
	var sum time.Duration
	for _, u := range f.used {
		sum += u.cpu
	}
	return sum / time.Duration(len(f.latency))
}

func (l *lab) measureFull(ctx context.Context, review []byte) (f full, err error) {
	c, err := l.endpoint.caller(fullConnections)
	if err != nil {
		return f, err
	}
	defer c.Close()
	if err := warm(ctx, c, review); err != nil {
		return f, err
	}
	end, err := l.watchReplicas()
	if err != nil {
		return f, err
	}
	var mu sync.Mutex
	sending, working := errgroup.WithContext(ctx)
	began := time.Now()
	for range fullConnections {
		sending.Go(func() error {
			var latency measure.Sample
			for time.Since(began) < l.plan.full {
				sent := time.Now()
				if _, err := c.Send(working, review); err != nil {
					return err
				}
				latency = append(latency, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			f.latency = append(f.latency, latency...)
			return nil
		})
	}
	if err := sending.Wait(); err != nil {
		return f, fmt.Errorf("sending reviews: %w", err)
	}
	f.window = time.Since(began)
	f.used, err = end()
	return f, err
}
