package elector

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// Config says what one candidate contends for and whom it tells.
type Config struct {
	// Settings are the election's; all candidates of a lock should have the same.
	Settings Settings
	// Identity names this candidate in the lock. It must be unique among the
	// candidates and the same after a restart that should resume the claim; see
	// Identity. Required.
	Identity string
	// Namespace is the lock's, for the status only.
	Namespace string
	// Lock is the object to contend for. Required.
	Lock Lock
	// Callbacks are told of changes. Optional.
	Callbacks Callbacks
	// Announce publishes a status outside the process, such as
	// StatusDir.Announce. It is called before Run's first request, at every change
	// of the status, and always before the lock is released. A claim that it
	// fails to announce ends at once; a standby that it fails to announce writes
	// nothing to the lock. It must not block. Optional.
	Announce func(Status) error
	// Metrics counts what this candidate does. Optional.
	Metrics *Metrics
	// Clock measures claims. Default: CLOCK_BOOTTIME of this machine.
	Clock Clock
	// Jitter returns a random duration in [0, limit). Default: math/rand.
	Jitter func(limit time.Duration) time.Duration
}

// Callbacks are called at changes of the role or the leader. All are optional.
type Callbacks struct {
	// OnStartedLeading runs in a goroutine of its own while this candidate leads.
	// Its context ends when the claim does. The lock is not released before it
	// has returned; if it does not return within renew-deadline, the lock is left
	// to run out.
	OnStartedLeading func(ctx context.Context)
	// OnStoppedLeading is called after the context of OnStartedLeading has ended
	// and before the lock is released; never for a candidate that did not lead.
	// It has to return soon.
	OnStoppedLeading func()
	// OnNewLeader is called with the holder's identity when another candidate, or
	// this one, is seen to hold the lock. Calls are in order; one may be left out
	// when leaders change faster than it returns.
	OnNewLeader func(identity string)
}

const (
	// heartbeat is how often an idle loop turns to show that it is alive.
	heartbeat = 5 * time.Second
	// stuckAfter is how long a loop may not have turned before Check fails.
	stuckAfter = 3 * heartbeat
)

// Elector is one candidate. Its methods may be called from any goroutine.
type Elector struct {
	cfg     Config
	running atomic.Bool
	shown   atomic.Pointer[shown]
	beat    atomic.Int64 // Clock time of the loop's last turn
	resigns chan chan error
}

// shown is the last status with the claim's end on the Clock, so that readers
// need not trust that the loop is still turning.
type shown struct {
	status  Status
	end     time.Duration
	changed chan struct{} // closed when it is not the last any more
}

// New checks the configuration.
func New(cfg Config) (*Elector, error) {
	if err := cfg.Settings.Validate(""); err != nil {
		return nil, err
	}
	if cfg.Identity == "" {
		return nil, errors.New("identity must not be empty: it names this candidate in the lock")
	}
	if cfg.Lock == nil {
		return nil, errors.New("lock must not be nil")
	}
	if cfg.Clock == nil {
		clock, err := newBootClock()
		if err != nil {
			return nil, err
		}
		cfg.Clock = clock
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.N[time.Duration]
	}
	if cfg.Announce == nil {
		cfg.Announce = func(Status) error { return nil }
	}
	e := &Elector{cfg: cfg, resigns: make(chan chan error)}
	e.beat.Store(int64(cfg.Clock.Now()))
	e.show(Status{
		Role: RoleStandby, Identity: cfg.Identity, Lock: cfg.Settings.Lock, Namespace: cfg.Namespace,
		Mode: cfg.Settings.Mode, Since: stamp(time.Now()),
	}, 0)
	return e, nil
}

func (e *Elector) show(s Status, end time.Duration) {
	old := e.shown.Swap(&shown{status: s, end: end, changed: make(chan struct{})})
	if old != nil {
		close(old.changed)
	}
}

// look returns the status as it is now, and what tells of the next one.
func (e *Elector) look() (Status, *shown) {
	last := e.shown.Load()
	s := last.status
	if s.Role == RoleLeader && e.cfg.Clock.Now() >= last.end {
		s.Role, s.Leader, s.FencingToken, s.Renewed, s.ValidUntil = RoleStandby, "", 0, nil, nil
	}
	return s, last
}

// Status returns what this candidate is now. It is right even when the loop is
// stuck or the machine was suspended: a claim that ran out is not one.
func (e *Elector) Status() Status {
	s, _ := e.look()
	return s
}

// IsLeader tells whether this candidate leads now.
func (e *Elector) IsLeader() bool { return e.Status().Role == RoleLeader }

// Leader returns the name of the leader as far as this candidate knows, or "".
func (e *Elector) Leader() string { return e.Status().Leader }

// Check returns an error when Run's loop is stuck, so that somebody restarts the
// process. Not leading, and not reaching the API server, are no errors.
func (e *Elector) Check() error {
	idle := e.cfg.Clock.Now() - time.Duration(e.beat.Load())
	if e.running.Load() && idle > stuckAfter {
		return fmt.Errorf("the election has not made a step for %s", idle.Round(time.Second))
	}
	return nil
}

// ErrNotRunning is returned by Resign when Run is not running.
var ErrNotRunning = errors.New("the election is not running")

// Resign ends this candidate's claim, if it has one, and then frees the lock.
// The candidate stands back until another one holds the lock, or for a
// lease-duration. Resign returns when the claim has ended; freeing the lock
// follows. In leader-for-life this is the only way to free the lock of a living
// Pod.
func (e *Elector) Resign(ctx context.Context) error {
	done := make(chan error, 1)
	stopped := time.NewTicker(100 * time.Millisecond)
	defer stopped.Stop()
	for {
		select {
		case e.resigns <- done:
			return <-done
		case <-ctx.Done():
			return ctx.Err()
		case <-stopped.C:
			if !e.running.Load() {
				return ErrNotRunning
			}
		}
	}
}

// Run makes a candidate of cfg and runs it until ctx ends; see Elector.Run.
func Run(ctx context.Context, cfg Config) error {
	e, err := New(cfg)
	if err != nil {
		return err
	}
	return e.Run(ctx)
}

// Run contends for the lock until ctx ends: it waits for leadership, leads,
// and, should the claim be lost, contends again. Requests that fail are tried
// again for ever. When ctx ends the claim ends first, then the lock is released
// (in leader-for-life it stays with the Pod), then Run returns nil. A release
// that fails is tried again until renew-deadline is over, one that is ErrDenied
// for a retry-period; the lease then runs out by itself. Run returns
// an error if it can't start, if a claim could not be withdrawn, or if it is
// running already.
func (e *Elector) Run(ctx context.Context) error {
	if !e.running.CompareAndSwap(false, true) {
		return errors.New("the election is running already")
	}
	defer e.running.Store(false)
	alarm, err := e.cfg.Clock.NewAlarm()
	if err != nil {
		return err
	}
	defer alarm.Close()
	log := klog.FromContext(ctx).WithValues("lock", klog.KRef(e.cfg.Namespace, e.cfg.Settings.Lock))
	r := &run{
		Elector: e,
		log:     log,
		alarm:   alarm,
		c:       candidate{settings: e.cfg.Settings, identity: e.cfg.Identity, jitter: e.cfg.Jitter},
		seen:    make(chan sighting),
		ended:   make(chan error, 1),
		written: make(chan outcome, 1),
		holders: make(chan string, 1),
		giveUp:  forever,
	}
	defer r.goroutines.Wait()
	defer close(r.holders)
	r.goroutines.Go(r.callOnNewLeader)
	// No claim of an earlier process may survive, whatever happens next.
	if err := r.announce(ctx, r.news(0), e.cfg.Clock.Now()); err != nil {
		return fmt.Errorf("withdrawing earlier claims: %w", err)
	}
	log.Info("contending", "identity", e.cfg.Identity, "mode", e.cfg.Settings.Mode, "clock", e.cfg.Clock.Now())
	return r.loop(ctx)
}
