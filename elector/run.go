package elector

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// run is one call of Run: the loop that feeds the candidate with what happens
// and carries out what it decides. Everything in it belongs to the loop's
// goroutine; reading, writing and callbacks have goroutines of their own, which
// only send on the channels. So nothing that hangs can keep the loop from ending
// a claim.
type run struct {
	*Elector
	log   klog.Logger
	alarm Alarm
	c     candidate

	// Reading: one Lock.Observe at a time.
	seen      chan sighting
	ended     chan error
	reading   *reading      // nil when none is under way
	readAt    time.Duration // when to begin the next
	readFails int

	// Writing: one Lock.Put at a time.
	written chan outcome
	writing *write // nil when none is under way

	free time.Duration // when the lock that is being acquired became free; 0 when it did not

	// Telling; see tell.go.
	told     news          // what was announced last, or tried to be
	since    time.Time     // when its role began
	untold   bool          // announcing it failed
	tellAt   time.Duration // when to try again
	leading  bool          // the application was told that it leads
	work     *work         // what OnStartedLeading runs; nil when it has returned
	holder   string        // whom OnNewLeader was told of last
	holders  chan string
	resigned []chan error // calls of Resign to answer once the claim's end is told

	complaint   string
	complaintAt time.Duration

	giveUp time.Duration // when to leave without having released the lock

	goroutines sync.WaitGroup
}

type reading struct {
	cancel  context.CancelFunc
	doubted bool // cancelled by the loop, to read anew
}

type sighting struct {
	rec     Record
	attempt int
}

type write struct {
	op     operation
	base   Record
	sent   time.Duration
	cancel context.CancelFunc
}

type outcome struct {
	rec Record
	err error
}

type work struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (r *run) loop(ctx context.Context) error {
	defer r.abandon()
	background := context.WithoutCancel(ctx) // releasing goes on after ctx has ended
	stop := ctx.Done()
	for {
		now := r.cfg.Clock.Now()
		r.beat.Store(int64(now))
		r.c.settle(now)
		r.tell(background, now)
		if r.writing == nil && !r.untold && r.c.done() {
			return nil
		}
		if now >= r.giveUp {
			return r.leaveBehind()
		}
		wake := min(r.act(background, now), r.giveUp, now+heartbeat)
		r.alarm.Set(wake)

		var worked chan struct{}
		if r.work != nil {
			worked = r.work.done
		}
		select {
		case <-r.alarm.C():
		case s := <-r.seen:
			r.sighted(s, r.cfg.Clock.Now())
		case err := <-r.ended:
			r.readingEnded(err, r.cfg.Clock.Now())
		case o := <-r.written:
			r.writeEnded(o, r.cfg.Clock.Now())
		case <-worked:
			r.work = nil
			r.c.busy = false
		case done := <-r.resigns:
			r.resign(done, r.cfg.Clock.Now())
		case <-stop:
			stop = nil
			r.giveUp = r.cfg.Clock.Now() + r.cfg.Settings.RenewDeadline
			r.c.stop()
		}
	}
}

// leaveBehind reports what could not be undone before the time for it was up.
func (r *run) leaveBehind() error {
	if r.untold {
		return errors.New("the end of the claim could not be announced; the lock was not released")
	}
	r.log.Info("leaving without releasing the lock", "working", r.work != nil, "unsure", r.c.doubt)
	return nil
}

// abandon ends what is under way and waits for it.
func (r *run) abandon() {
	if r.reading != nil {
		r.reading.cancel()
		<-r.ended //nolint:errcheck // how it ended does not matter any more
	}
	if r.writing != nil {
		r.writing.cancel()
		<-r.written
	}
	for _, done := range r.resigned {
		done <- ErrNotRunning
	}
}

// act starts what is due and returns when to look again.
func (r *run) act(ctx context.Context, now time.Duration) time.Duration {
	wake := r.read(ctx, now)
	if r.untold {
		return min(wake, r.tellAt)
	}
	if r.writing != nil {
		return min(wake, r.c.claimEnd())
	}
	op, at := r.c.next(now)
	if op == opNone {
		return min(wake, at)
	}
	r.send(ctx, op, now)
	return min(wake, r.c.claimEnd())
}

// read begins a reading when none is under way, and ends one that is too old to
// settle a doubt.
func (r *run) read(ctx context.Context, now time.Duration) time.Duration {
	if r.reading != nil {
		if r.c.unsure(now) {
			r.reading.doubted = true
			r.reading.cancel()
		}
		return forever
	}
	if now < r.readAt {
		return r.readAt
	}
	ctx, cancel := context.WithCancel(ctx)
	r.reading = &reading{cancel: cancel}
	r.c.attempt++
	attempt := r.c.attempt
	r.goroutines.Go(func() {
		r.ended <- r.cfg.Lock.Observe(ctx, func(rec Record) {
			select {
			case r.seen <- sighting{rec, attempt}:
			case <-ctx.Done():
			}
		})
	})
	return forever
}

func (r *run) sighted(s sighting, now time.Duration) {
	r.readFails = 0
	r.c.observe(s.rec, s.attempt, now)
	if s.rec.Foreign != "" {
		r.complain("waiting for the lock's name", errors.New(s.rec.Foreign), now)
	}
}

func (r *run) readingEnded(err error, now time.Duration) {
	doubted := r.reading.doubted
	r.reading.cancel()
	r.reading = nil
	if doubted {
		r.readAt = now
		return
	}
	r.readFails++
	pause := backoff(r.readFails, r.cfg.Settings.RetryPeriod)
	r.readAt = now + pause + r.cfg.Jitter(pause/5)
	r.complain("reading the lock", err, now)
	r.denied(err, now)
}

// denied makes a candidate that stops give up soon when it may not release: its
// namespace or its permissions are being removed, and its Pod would be waited for.
func (r *run) denied(err error, now time.Duration) {
	if r.c.stopping && errors.Is(err, ErrDenied) {
		r.giveUp = min(r.giveUp, now+r.cfg.Settings.RetryPeriod)
	}
}

// send carries out op in the background.
func (r *run) send(ctx context.Context, op operation, now time.Duration) {
	timeout := r.cfg.Settings.RenewDeadline / renewFraction
	if r.c.claim != nil {
		timeout = min(timeout, r.c.claimEnd()-now)
	}
	writing, cancel := context.WithTimeout(ctx, timeout)
	r.writing = &write{op: op, base: r.c.rec, sent: now, cancel: cancel}
	base, want := r.c.rec, r.c.want(op, time.Now())
	r.goroutines.Go(func() {
		rec, err := r.cfg.Lock.Put(writing, base, want)
		r.written <- outcome{rec, err}
	})
}

func (r *run) writeEnded(o outcome, now time.Duration) {
	w := r.writing
	r.writing = nil
	w.cancel()
	switch {
	case o.err == nil:
		r.log.V(4).Info("wrote the lock", "operation", w.op, "version", o.rec.Version)
		r.complaint = ""
		if w.op == opRenew {
			r.cfg.Metrics.renewed(now - w.sent)
		}
		if w.op == opAcquire && w.base.Holder == "" {
			r.free = r.c.freed
		}
		r.c.written(w.op, o.rec, w.sent, now)
	case errors.Is(o.err, ErrConflict):
		r.log.V(2).Info("the lock changed before the write", "operation", w.op)
		r.c.refused(w.base, now)
	default:
		r.c.failed(w.sent, now)
		r.complain("writing the lock", o.err, now)
		r.denied(o.err, now)
	}
}

func (r *run) resign(done chan error, now time.Duration) {
	r.resigned = append(r.resigned, done)
	if r.c.claim == nil && !r.c.mine() {
		return // nothing to give up
	}
	r.c.resign(lossResigned, now)
}

// complain logs an error that is waited out: the first time, when it changes,
// and once a minute.
func (r *run) complain(what string, err error, now time.Duration) {
	if text := what + err.Error(); text != r.complaint || now >= r.complaintAt {
		r.complaint, r.complaintAt = text, now+time.Minute
		r.log.Error(err, "trying again", "while", what)
		return
	}
	r.log.V(2).Info("trying again", "while", what, "err", err)
}
