package elector

import (
	"context"
	"errors"
	"time"
)

// news is what there is to tell: a status is announced when it changes.
type news struct {
	role    Role
	leader  string
	token   uint64
	renewed time.Duration
}

func (r *run) news(now time.Duration) news {
	switch {
	case r.c.leads(now):
		return news{RoleLeader, NameOf(r.cfg.Identity), r.c.claim.token, r.c.claim.renewed}
	case r.c.known && !r.c.mine() && !r.c.overdue(now):
		return news{role: RoleStandby, leader: NameOf(r.c.rec.Holder)}
	}
	return news{role: RoleStandby}
}

// tell announces what is new. It runs before every write, so that the end of a
// claim is known before the lock is freed. What can't be announced is no claim.
func (r *run) tell(ctx context.Context, now time.Duration) {
	n := r.news(now)
	if n != r.told || r.untold && now >= r.tellAt {
		if err := r.announce(ctx, n, now); err != nil && n.role == RoleLeader {
			r.c.resign(lossUntold, now)
			_ = r.announce(ctx, r.news(now), now) // it has complained, and is tried again
		}
	}
	if r.holder != r.c.rec.Holder && r.c.rec.Holder != "" {
		r.queueOnNewLeader(r.c.rec.Holder)
	}
	r.holder = r.c.rec.Holder
	r.answerResigned()
}

// announce tells everybody: of leadership the status directory first, of its end
// the process itself first.
func (r *run) announce(ctx context.Context, n news, now time.Duration) error {
	s := r.status(n, now)
	if n.role == RoleStandby {
		r.show(s, 0)
		r.stopWork()
	}
	err := r.cfg.Announce(s)
	r.told, r.since, r.untold, r.tellAt = n, s.Since, err != nil, now+r.cfg.Settings.RetryPeriod
	if err != nil {
		r.complain("announcing that this is a "+string(n.role), err, now)
	}
	if n.role == RoleStandby {
		r.stoppedLeading()
		return err
	}
	if err == nil {
		r.show(s, r.c.claimEnd())
		r.startedLeading(ctx, now)
	}
	return err
}

func (r *run) status(n news, now time.Duration) Status {
	wall := time.Now()
	s := Status{
		Role: n.role, Identity: r.cfg.Identity, Leader: n.leader, Lock: r.cfg.Settings.Lock, Namespace: r.cfg.Namespace,
		Mode: r.cfg.Settings.Mode, FencingToken: n.token, Since: r.since,
	}
	if n.role != r.told.role {
		s.Since = stamp(wall)
	}
	if n.role == RoleLeader && s.Mode == ModeLease {
		renewed := stamp(wall.Add(n.renewed - now))
		until := renewed.Add(r.cfg.Settings.RenewDeadline)
		s.Renewed, s.ValidUntil = &renewed, &until
	}
	return s
}

// stamp is a time as it is shown: in UTC, cut to milliseconds so that a
// validUntil is never too late.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// startedLeading notes a claim, or its renewal. What is logged of claims lets them
// be compared afterwards, on machines that share a clock: the begin is never too
// late and the end never too early.
func (r *run) startedLeading(ctx context.Context, now time.Duration) {
	if r.leading {
		r.log.V(2).Info("still leading", "fencingToken", r.told.token, "clock", now, "until", r.until())
		return
	}
	r.leading = true
	r.cfg.Metrics.claimed()
	if r.free > 0 {
		r.cfg.Metrics.handedOver(r.cfg.Clock.Now() - r.free)
	}
	r.free = 0
	r.log.Info("leading", "fencingToken", r.told.token, "clock", now, "until", r.until())
	if r.cfg.Callbacks.OnStartedLeading == nil {
		return
	}
	working, cancel := context.WithCancel(ctx)
	w := &work{cancel: cancel, done: make(chan struct{})}
	r.work, r.c.busy = w, true
	go func() { // not among r.goroutines: Run does not wait for ever for foreign code
		defer close(w.done)
		r.cfg.Callbacks.OnStartedLeading(working)
	}()
}

// until is when the claim ends by itself, as it is logged.
func (r *run) until() string {
	if end := r.c.claimEnd(); end != forever {
		return end.String()
	}
	return "the lock goes"
}

func (r *run) stopWork() {
	if r.work != nil {
		r.work.cancel()
	}
}

func (r *run) stoppedLeading() {
	if !r.leading {
		return
	}
	r.leading = false
	r.cfg.Metrics.lost(r.c.loss)
	r.log.Info("standing by", "reason", r.c.loss, "holder", r.c.rec.Holder, "clock", r.cfg.Clock.Now())
	if r.cfg.Callbacks.OnStoppedLeading != nil {
		r.cfg.Callbacks.OnStoppedLeading()
	}
}

// queueOnNewLeader replaces a holder that OnNewLeader has not been called with yet.
func (r *run) queueOnNewLeader(holder string) {
	select {
	case <-r.holders:
	default:
	}
	r.holders <- holder
}

func (r *run) callOnNewLeader() {
	for holder := range r.holders {
		if r.cfg.Callbacks.OnNewLeader != nil {
			r.cfg.Callbacks.OnNewLeader(holder)
		}
	}
}

// answerResigned returns from the calls of Resign whose claim's end was told.
func (r *run) answerResigned() {
	var err error
	if r.untold {
		err = errors.New("the end of the claim could not be announced; the lock is not released")
	}
	for _, done := range r.resigned {
		done <- err
	}
	r.resigned = nil
}
