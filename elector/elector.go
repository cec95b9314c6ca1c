package elector

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// Config says what one candidate contends with and whom it tells. What it contends
// for, and under which name, the Lock says alone.
type Config struct {
	// Lock is the object to contend for, and the Description of the candidate.
	// Required.
	Lock Lock
	// Callbacks are told of changes. Optional.
	Callbacks Callbacks
	// Grace is how long the lock is held, though nobody claims it, for an
	// OnStartedLeading that has not returned when its claim has ended: because Run's
	// context ended, or by Resign, or because the claim ran out and the lock could be
	// renewed after all. When it is over the lock is left to run out, and Run does not
	// wait any longer. Default 30s, as Kubernetes waits for a Pod. In leader-for-life
	// there is nothing to hold: the lock is the Pod's.
	Grace time.Duration
	// Announce publishes a status outside the process, such as
	// StatusDir.Announce. It is called before Run's first request, at every change
	// of the status, and always before the lock is released. A claim that it
	// fails to announce ends at once; a standby that it fails to announce writes
	// nothing to the lock. It must not block. Optional.
	Announce func(Status) error
	// Last is what an earlier process of this candidate announced last, as
	// StatusDir.Withdraw returns it. With it a restarted process resumes its claim
	// with its token if the lock is in the very state that Last speaks of. Without it
	// a lease that names this candidate is another's, and is waited out. Optional.
	Last *Status
	// Aside is why this process must not contend, in words for people, or empty. Then
	// Run asks nothing of the lock: it announces a standby with this Reason, and waits
	// for the end of its context. Optional.
	Aside string
	// Unyielding has a leader keep its lock as long as it can: Resign returns
	// ErrUnyielding, Yield gives nothing up, and elector.io/handover on the lock is not
	// obeyed. For a leader whose application nothing stops while its Pod lives.
	Unyielding bool
	// Metrics counts what this candidate does. Optional.
	Metrics *Metrics
	// Clock measures claims. Default: CLOCK_BOOTTIME of this machine.
	Clock Clock
	// Jitter returns a random duration in [0, limit). Default: math/rand.
	Jitter func(limit time.Duration) time.Duration
}

// DefaultGrace is the default of Config.Grace.
const DefaultGrace = 30 * time.Second

// Callbacks are called at changes of the role or the leader. All are optional.
type Callbacks struct {
	// OnStartedLeading runs in a goroutine of its own while this candidate leads.
	// Its context ends when the claim does. The lock is not released before it has
	// returned, for up to Config.Grace, and a new claim does not begin before.
	// To return earlier ends nothing: the candidate goes on leading. Call Resign, or
	// end Run's context, to have somebody else lead.
	OnStartedLeading func(ctx context.Context)
	// OnStoppedLeading is called after the context of OnStartedLeading has ended
	// and before the lock is released; never for a candidate that did not lead. Like
	// OnStartedLeading it is waited for.
	OnStoppedLeading func()
	// OnNewLeader is called with the holder's identity when another candidate, or
	// this one, is seen to hold the lock. Calls are in order; one may be left out
	// when leaders change faster than it returns. Run does not wait for it.
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
	desc    Description
	running atomic.Bool // Run is
	turning atomic.Bool // ... and its loop listens
	shown   atomic.Pointer[shown]
	beat    atomic.Int64 // Clock time of the loop's last turn
	resigns chan resignation
}

// resignation is a call of Resign or Yield.
type resignation struct {
	yields bool       // only if somebody is to follow
	done   chan error // answered once
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
	if cfg.Lock == nil {
		return nil, errors.New("lock must not be nil")
	}
	desc := cfg.Lock.Describe().WithDefaults()
	if err := desc.Validate(""); err != nil {
		return nil, err
	}
	if cfg.Grace < 0 {
		return nil, &FieldError{Field: "grace", Value: short(cfg.Grace), Allowed: "it must not be negative"}
	}
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Last != nil && (cfg.Last.Identity != desc.Identity || cfg.Last.Lock != desc.Settings.Lock ||
		cfg.Last.Namespace != desc.Namespace || cfg.Last.Mode != desc.Settings.Mode) {
		cfg.Last = nil // another candidate's
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
	e := &Elector{cfg: cfg, desc: desc, resigns: make(chan resignation)}
	e.beat.Store(int64(cfg.Clock.Now()))
	e.show(e.standby(), 0)
	return e, nil
}

// standby is the status of a candidate that knows nothing.
func (e *Elector) standby() Status {
	return Status{
		Role: RoleStandby, Identity: e.desc.Identity, Lock: e.desc.Settings.Lock, Namespace: e.desc.Namespace,
		Mode: e.desc.Settings.Mode, Since: stamp(time.Now()), Reason: e.cfg.Aside,
	}
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
		s.Role, s.Leader, s.FencingToken, s.LockVersion, s.Renewed, s.ValidUntil, s.ValidUntilBoottime = RoleStandby, "", 0, 0, nil, nil, nil
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

// ErrUnyielding is returned by Resign where Config.Unyielding is set.
var ErrUnyielding = errors.New("this leader does not resign: nothing but the end of its Pod stops its application, so delete the Pod")

// ErrNotRunning is returned by Resign and Yield when Run is not running.
var ErrNotRunning = errors.New("the election is not running")

// Resign ends this candidate's claim, if it has one, and then frees the lock.
// The candidate stands back until another one holds the lock, or for a
// lease-duration. Resign returns when the claim has ended, or with ctx's error when
// that ends first; the claim ends then all the same, as soon as it can be
// announced. Freeing the lock follows, after OnStartedLeading has returned. In
// leader-for-life this is the only way to free the lock of a living Pod.
func (e *Elector) Resign(ctx context.Context) error {
	if e.cfg.Unyielding {
		return ErrUnyielding
	}
	return e.giveUp(ctx, resignation{done: make(chan error, 1)})
}

// Yield is Resign for a leader that could as well lead on, because its application has
// ended by itself and begins anew: it gives the lock up only if that names somebody else
// who is to follow, in elector.io/next, and tells whether. Then, as after Resign, the claim
// has ended. In leader-for-life nothing is given up.
func (e *Elector) Yield(ctx context.Context) (yielded bool, err error) {
	if e.cfg.Unyielding {
		return false, nil
	}
	err = e.giveUp(ctx, resignation{yields: true, done: make(chan error, 1)})
	if errors.Is(err, errNobodyFollows) {
		return false, nil
	}
	return err == nil, err
}

// errNobodyFollows is the answer to a Yield that gave nothing up.
var errNobodyFollows = errors.New("nobody is to follow")

// giveUp asks the loop and waits for its answer.
func (e *Elector) giveUp(ctx context.Context, r resignation) error {
	stopped := time.NewTicker(100 * time.Millisecond)
	defer stopped.Stop()
	asked := e.resigns
	for {
		select {
		case asked <- r:
			asked = nil
		case err := <-r.done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-stopped.C:
			if asked != nil && !e.turning.Load() {
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
// again for ever. When ctx ends the claim ends first; the lock is then held until
// OnStartedLeading has returned, for up to Config.Grace, and released (in
// leader-for-life it stays with the Pod); then Run returns nil. A release
// that fails is tried again until renew-deadline is over, one that is ErrDenied
// for a retry-period; the lease then runs out by itself. Run returns
// an error if it can't start, if a claim could not be withdrawn, or if it is
// running already.
func (e *Elector) Run(ctx context.Context) error {
	if e.cfg.Aside != "" {
		return e.standAside(ctx)
	}
	if !e.running.CompareAndSwap(false, true) {
		return errors.New("the election is running already")
	}
	defer e.running.Store(false)
	alarm, err := e.cfg.Clock.NewAlarm()
	if err != nil {
		return err
	}
	defer alarm.Close()
	r := &run{
		Elector: e,
		log:     klog.FromContext(ctx).WithValues("lock", klog.KRef(e.desc.Namespace, e.desc.Settings.Lock)),
		alarm:   alarm,
		c: candidate{
			settings: e.desc.Settings, identity: e.desc.Identity, grace: e.cfg.Grace, unyielding: e.cfg.Unyielding, jitter: e.cfg.Jitter,
			process: strconv.FormatUint(rand.Uint64(), 36), last: e.cfg.Last, //nolint:gosec // it has to be unique, not secret
		},
	}
	r.reader, r.writer = newReader(e, &r.goroutines), newWriter(e, &r.goroutines)
	r.teller = teller{Elector: e, log: r.log, holders: make(chan string, 1)}
	e.cfg.Last = nil // a second Run has a first one before it, which has told the end of its claim
	defer r.goroutines.Wait()
	defer close(r.teller.holders)
	go r.teller.callOnNewLeader() // foreign code, which is not waited for
	// No claim of an earlier process may survive, whatever happens next.
	now := e.cfg.Clock.Now()
	if err := r.teller.announce(ctx, &r.c, r.c.view(now), now); err != nil {
		return fmt.Errorf("withdrawing earlier claims: %w", err)
	}
	r.log.Info("contending", "identity", e.desc.Identity, "mode", e.desc.Settings.Mode, "clock", now)
	e.turning.Store(true)
	defer e.turning.Store(false)
	return r.loop(ctx)
}

// standAside is Run of a process that must not contend. There is no loop which
// could be stuck, and nothing to resign.
func (e *Elector) standAside(ctx context.Context) error {
	if err := e.cfg.Announce(e.Status()); err != nil {
		return fmt.Errorf("withdrawing earlier claims: %w", err)
	}
	klog.FromContext(ctx).Info("standing aside", "lock", klog.KRef(e.desc.Namespace, e.desc.Settings.Lock), "identity", e.desc.Identity, "reason", e.cfg.Aside)
	<-ctx.Done()
	return nil
}
