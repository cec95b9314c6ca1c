package elector

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// teller tells the application and everybody else what the candidate is.
type teller struct {
	*Elector
	log klog.Logger

	told     view          // what was announced last, or tried to be
	since    time.Time     // when its role began
	untold   bool          // announcing it failed
	again    time.Duration // when to try again
	leading  bool          // the application was told that it leads
	work     *work         // what OnStartedLeading runs; nil when it has returned
	holder   string        // whom OnNewLeader was told of last
	holders  chan string
	resigned []chan error // calls of Resign to answer once the claim's end is told
}

// work is what runs for one claim.
type work struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// tell announces what is new. It runs before every write, so that the end of a
// claim is known before the lock is freed. What can't be announced is no claim.
func (t *teller) tell(ctx context.Context, c *candidate, now time.Duration) error {
	var failure error
	if v := c.view(now); v != t.told || t.untold && now >= t.again {
		failure = t.announce(ctx, c, v, now)
		if failure != nil && v.role == RoleLeader {
			c.resign(lossUntold, now)
			failure = errors.Join(failure, t.announce(ctx, c, c.view(now), now))
		}
	}
	if holder := c.holder(); holder != t.holder {
		t.holder = holder
		if holder != "" {
			t.queueOnNewLeader(holder)
		}
	}
	t.answerResigned()
	return failure
}

// announce tells everybody: of leadership the status directory first, of its end
// the process itself first.
func (t *teller) announce(ctx context.Context, c *candidate, v view, now time.Duration) error {
	s := t.status(v, c.claimEnd())
	if v.role == RoleStandby {
		t.show(s, 0)
		t.stopWork()
	}
	err := t.cfg.Announce(s)
	t.told, t.since, t.untold, t.again = v, s.Since, err != nil, now+t.desc.Settings.RetryPeriod
	if v.role == RoleStandby {
		t.stoppedLeading(c)
		return err
	}
	if err == nil && c.leads(t.cfg.Clock.Now()) { // announcing it may have taken long
		t.show(s, c.claimEnd())
		t.startedLeading(ctx, c, now)
	}
	return err
}

func (t *teller) status(v view, end time.Duration) Status {
	// In this order: time that passes in between makes the claim shorter.
	wall, now := time.Now(), t.cfg.Clock.Now()
	s := t.standby()
	s.Role, s.Leader, s.FencingToken, s.LockVersion, s.Since = v.role, shorten(v.leader), v.token, v.version, t.since
	if v.role != t.told.role {
		s.Since = stamp(wall)
	}
	if v.role == RoleLeader && s.Mode == ModeLease {
		renewed := stamp(wall.Add(v.renewed - now))
		until, boottime := renewed.Add(end-v.renewed), end.Milliseconds()
		s.Renewed, s.ValidUntil, s.ValidUntilBoottime = &renewed, &until, &boottime
	}
	if v.held != 0 {
		boottime := v.held.Milliseconds()
		s.HeldUntilBoottime = &boottime
	}
	return s
}

// stamp is a time as it is shown: in UTC, cut to milliseconds so that a
// validUntil is never too late.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// startedLeading notes a claim, or its renewal. What is logged of claims lets them
// be compared afterwards, on machines that share a clock: the begin is never too
// late and the end never too early.
func (t *teller) startedLeading(ctx context.Context, c *candidate, now time.Duration) {
	until := "the lock goes"
	if end := c.claimEnd(); end != forever {
		until = end.String()
	}
	if t.leading {
		t.log.V(2).Info("still leading", "fencingToken", t.told.token, "clock", now, "until", until)
		return
	}
	t.leading = true
	t.cfg.Metrics.claimed()
	if freed := c.tookOver(); freed > 0 {
		t.cfg.Metrics.handedOver(t.cfg.Clock.Now() - freed)
	}
	t.log.Info("leading", "fencingToken", t.told.token, "clock", now, "until", until)
	if t.cfg.Callbacks.OnStartedLeading != nil || t.cfg.Callbacks.OnStoppedLeading != nil {
		c.working()
		t.startWork(ctx)
	}
}

// startWork runs the callbacks of a claim. Nothing in them can hang the loop, and
// Run does not wait for them for ever.
func (t *teller) startWork(ctx context.Context) {
	working, cancel := context.WithCancel(ctx)
	w := &work{cancel: cancel, done: make(chan struct{})}
	t.work = w
	var callbacks sync.WaitGroup
	callbacks.Go(func() {
		if t.cfg.Callbacks.OnStartedLeading != nil {
			t.cfg.Callbacks.OnStartedLeading(working)
		}
	})
	callbacks.Go(func() {
		<-working.Done()
		if t.cfg.Callbacks.OnStoppedLeading != nil {
			t.cfg.Callbacks.OnStoppedLeading()
		}
	})
	go func() {
		callbacks.Wait()
		close(w.done)
	}()
}

// worked is closed when the application has let go of the claim's work; nil if it
// has none.
func (t *teller) worked() <-chan struct{} {
	if t.work == nil {
		return nil
	}
	return t.work.done
}

func (t *teller) stopWork() {
	if t.work != nil {
		t.work.cancel()
	}
}

func (t *teller) stoppedLeading(c *candidate) {
	if !t.leading {
		return
	}
	t.leading = false
	t.cfg.Metrics.lost(c.lost())
	t.log.Info("standing by", "reason", c.lost(), "holder", shorten(c.holder()), "clock", t.cfg.Clock.Now())
}

// queueOnNewLeader replaces a holder that OnNewLeader has not been called with yet.
func (t *teller) queueOnNewLeader(holder string) {
	select {
	case <-t.holders:
	default:
	}
	t.holders <- holder
}

func (t *teller) callOnNewLeader() {
	for holder := range t.holders {
		if t.cfg.Callbacks.OnNewLeader != nil {
			t.cfg.Callbacks.OnNewLeader(holder)
		}
	}
}

// answerResigned returns from the calls of Resign whose claim's end was told.
func (t *teller) answerResigned() {
	var err error
	if t.untold {
		err = errors.New("the end of the claim could not be announced; the lock is not released")
	}
	for _, done := range t.resigned {
		done <- err
	}
	t.resigned = nil
}
