package elector

import (
	"context"
	"sync"
	"time"
)

// reader keeps one Lock.Observe going. Its goroutine only sends on the channels.
type reader struct {
	*Elector
	seen chan sighting
	done chan error // how a reading ended; each is received, by the loop or by abandon
	wait *sync.WaitGroup

	current *reading      // nil when none is under way
	at      time.Duration // when to begin the next
	fails   int           // readings failed in a row
}

type reading struct {
	cancel context.CancelFunc
	seen   time.Duration // when it first saw the lock; 0 if it has not
	ended  bool          // by the loop, to read anew
}

// sighting is a state of the lock, and the number of the reading that saw it.
type sighting struct {
	rec     Record
	reading int
}

// shortReading is how long a reading has to last, from when it first saw the lock, to
// have been of use: a lock that ends readings at once is not asked again at once.
const shortReading = time.Second

func newReader(e *Elector, wait *sync.WaitGroup) reader {
	return reader{Elector: e, seen: make(chan sighting), done: make(chan error), wait: wait}
}

// act begins a reading when none is under way, ends one that is too old to settle
// a doubt, and returns when to look again.
func (r *reader) act(ctx context.Context, c *candidate, now time.Duration) time.Duration {
	if r.current != nil {
		if c.outread(now) {
			r.current.ended = true
			r.current.cancel()
		}
		return forever
	}
	if now < r.at {
		return r.at
	}
	ctx, cancel := context.WithCancel(ctx)
	r.current = &reading{cancel: cancel}
	number := c.beginReading(now)
	r.wait.Go(func() {
		r.done <- r.cfg.Lock.Observe(ctx, func(rec Record) {
			select {
			case r.seen <- sighting{rec, number}:
			case <-ctx.Done():
			}
		})
	})
	return forever
}

// ended takes in that the reading has ended and tells whether it failed.
func (r *reader) ended(err error, now time.Duration) (failed bool) {
	last := r.current
	last.cancel()
	r.current = nil
	lasted := last.seen != 0 && now >= last.seen+shortReading
	if lasted {
		r.fails = 0
	}
	if last.ended || err == nil && lasted {
		r.at = now
		return false
	}
	r.fails++
	// All who lose an API server lose it at the same moment, and would come back in
	// step: so most of the pause is drawn.
	pause := backoff(r.fails, r.desc.Settings.RetryPeriod)
	r.at = now + pause*2/5 + r.cfg.Jitter(pause*4/5)
	return err != nil
}

// worked takes in that the reading saw the lock. What it sees first proves little: where
// reading works and watching does not, each reading sees that much. A change does.
func (r *reader) worked(now time.Duration) {
	if r.current.seen == 0 {
		r.current.seen = now
		return
	}
	r.fails = 0
}

// abandon ends the reading and waits for it.
func (r *reader) abandon() {
	if r.current != nil {
		r.current.cancel()
		<-r.done //nolint:errcheck // how it ended does not matter any more
	}
}
