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
// only send on channels. So nothing that hangs can keep the loop from ending a
// claim.
type run struct {
	*Elector
	log    klog.Logger
	alarm  Alarm
	c      candidate
	reader reader
	writer writer
	teller teller
	said   complaint
	// unheeded is what was said last of a request for a handover that is not obeyed.
	unheeded string

	goroutines sync.WaitGroup // the reader's, the writer's and the teller's
}

func (r *run) loop(ctx context.Context) error {
	defer r.abandon()
	background := context.WithoutCancel(ctx) // releasing goes on after ctx has ended
	stop := ctx.Done()
	for {
		now := r.cfg.Clock.Now()
		r.beat.Store(int64(now))
		r.c.settle(now)
		r.heed(now)
		if err := r.teller.tell(background, &r.c, now); err != nil {
			r.complain("announcing what this candidate is", err, now)
		}
		if !r.teller.untold && r.c.done() {
			return nil
		}
		if now >= r.c.leaveAt() {
			return r.leaveBehind()
		}
		r.alarm.Set(min(r.act(background, now), r.c.leaveAt(), now+heartbeat))

		select {
		case <-r.alarm.C():
		case s := <-r.reader.seen:
			r.sighted(s, r.cfg.Clock.Now())
		case err := <-r.reader.done:
			r.readingEnded(err, r.cfg.Clock.Now())
		case o := <-r.writer.done:
			r.writeEnded(o, r.cfg.Clock.Now())
		case <-r.teller.worked():
			r.teller.work = nil
			r.c.worked(r.cfg.Clock.Now())
		case asked := <-r.resigns:
			r.resign(asked, r.cfg.Clock.Now())
		case <-stop:
			stop = nil
			r.c.stop(r.cfg.Clock.Now())
		}
	}
}

// resign does what a call of Resign or Yield is for.
func (r *run) resign(asked resignation, now time.Duration) {
	if asked.yields && !r.c.yield(now) {
		asked.done <- errNobodyFollows
		return
	}
	r.teller.resigned = append(r.teller.resigned, asked.done)
	if !asked.yields {
		r.c.resign(lossResigned, now)
	}
}

// heed obeys a request for a handover, or says once why it does not.
func (r *run) heed(now time.Duration) {
	if h, obeyed := r.c.obey(now); obeyed {
		r.log.Info("handing over", "fencingToken", h.Token, "to", h.To, "why", h.Why)
	}
	if why := r.c.unheeded(); why != r.unheeded {
		r.unheeded = why
		if why != "" {
			r.log.Info("not handing over", "reason", why)
		}
	}
}

// leaveBehind reports what could not be undone before the time for it was up.
func (r *run) leaveBehind() error {
	if r.teller.untold {
		return errors.New("the end of the claim could not be announced; the lock was not released")
	}
	r.log.Info("leaving without releasing the lock", "working", r.teller.work != nil)
	return nil
}

// abandon ends what is under way and waits for it.
func (r *run) abandon() {
	r.reader.abandon()
	r.writer.abandon()
}

// act starts what is due and returns when to look again.
func (r *run) act(ctx context.Context, now time.Duration) time.Duration {
	wake := r.reader.act(ctx, &r.c, now)
	if r.teller.untold {
		return min(wake, r.teller.again) // nothing is written that was not told
	}
	return min(wake, r.writer.act(ctx, &r.c, now))
}

func (r *run) sighted(s sighting, now time.Duration) {
	r.reader.worked(now)
	r.c.observe(s.rec, s.reading, now)
	if s.rec.Foreign != "" {
		r.complain("waiting for the lock's name", errors.New(s.rec.Foreign), now)
	}
	if r.c.twinned() {
		r.complain("standing back", errTwin, now)
	}
}

// errTwin is what is complained of when another process goes by the same identity.
var errTwin = errors.New("another process renews the lock in this candidate's name, or somebody wrote that into it: every candidate needs an identity of its own")

func (r *run) readingEnded(err error, now time.Duration) {
	if r.reader.ended(err, now) {
		r.complain("reading the lock", err, now)
		r.denied(err, now)
	}
}

func (r *run) denied(err error, now time.Duration) {
	if errors.Is(err, ErrDenied) {
		r.c.denied(now)
	}
}

func (r *run) writeEnded(o outcome, now time.Duration) {
	op := r.writer.op
	r.writer.ended()
	switch {
	case o.err == nil:
		r.log.V(4).Info("wrote the lock", "operation", op, "version", o.rec.Version)
		r.said = complaint{}
		if op == opRenew {
			r.cfg.Metrics.renewed(now - r.writer.sent)
		}
		r.c.written(o.rec, now)
	case errors.Is(o.err, ErrConflict):
		r.log.V(2).Info("the lock changed before the write", "operation", op)
		r.c.refused(now)
	default:
		r.c.failed(now)
		r.complain("writing the lock", o.err, now)
		r.denied(o.err, now)
	}
}

// complaint is what was logged last, and when to log it again.
type complaint struct {
	text  string
	again time.Duration
}

// complain logs an error that is waited out: the first time, when it changes,
// and once a minute.
func (r *run) complain(what string, err error, now time.Duration) {
	if text := what + err.Error(); text != r.said.text || now >= r.said.again {
		r.said = complaint{text, now + time.Minute}
		r.log.Error(err, "trying again", "while", what)
		return
	}
	r.log.V(2).Info("trying again", "while", what, "err", err)
}
