package elector

import (
	"context"
	"sync"
	"time"
)

// writer carries out one Lock.Put at a time. Its goroutine only sends on the
// channel.
type writer struct {
	*Elector
	done chan outcome // each is received, by the loop or by abandon
	wait *sync.WaitGroup

	op     operation
	sent   time.Duration
	cancel context.CancelFunc // nil when no write is under way
}

type outcome struct {
	rec Record
	err error
}

func newWriter(e *Elector, wait *sync.WaitGroup) writer {
	return writer{Elector: e, done: make(chan outcome), wait: wait}
}

// act sends the write that is due and returns when to look again.
func (w *writer) act(ctx context.Context, c *candidate, now time.Duration) time.Duration {
	op, at := c.next(now)
	if op == opNone {
		return at
	}
	// Time for two more tries, and none of them longer than the claim.
	timeout := min(w.desc.Settings.RenewDeadline/renewFraction, c.claimEnd()-now)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	w.op, w.sent, w.cancel = op, now, cancel
	base, want := c.send(op, now, time.Now())
	w.wait.Go(func() {
		rec, err := w.cfg.Lock.Put(ctx, base, want)
		w.done <- outcome{rec, err}
	})
	return c.claimEnd()
}

// ended takes in that the write has ended.
func (w *writer) ended() {
	w.cancel()
	w.cancel = nil
}

// abandon ends the write and waits for it.
func (w *writer) abandon() {
	if w.cancel != nil {
		w.cancel()
		<-w.done
	}
}
