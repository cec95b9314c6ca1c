package elector_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

type bubbleClock struct {
	start  time.Time
	freeze atomic.Int64 // the process is stopped for so long right after the next reading of the clock
	armed  func() bool
}

func (c *bubbleClock) Now() time.Duration {
	t := time.Since(c.start)
	if f := c.freeze.Load(); f != 0 && c.armed() {
		c.freeze.Store(0)
		time.Sleep(time.Duration(f))
	}
	return t
}
func (c *bubbleClock) NewAlarm() (elector.Alarm, error) {
	return &bubbleAlarm{c: c, ch: make(chan struct{}, 1)}, nil
}

func newBubbleClock() *bubbleClock { return &bubbleClock{start: time.Now().Add(-time.Hour)} }

type bubbleAlarm struct {
	c  *bubbleClock
	t  *time.Timer
	ch chan struct{}
}

func (a *bubbleAlarm) Set(at time.Duration) {
	if a.t != nil {
		a.t.Stop()
	}
	a.t = time.AfterFunc(at-time.Since(a.c.start), func() {
		select {
		case a.ch <- struct{}{}:
		default:
		}
	})
}
func (a *bubbleAlarm) C() <-chan struct{} { return a.ch }
func (a *bubbleAlarm) Close() {
	if a.t != nil {
		a.t.Stop()
	}
}

func describe(identity string, mode elector.Mode) elector.Description {
	return elector.Description{Settings: elector.Settings{Lock: "web", Mode: mode}, Namespace: "ns", Identity: identity}
}

// flaky fails writes while it is down.
type flaky struct {
	elector.Lock
	down atomic.Bool
}

func (f *flaky) Put(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	if f.down.Load() {
		return elector.Record{}, errors.New("unreachable")
	}
	return f.Lock.Put(ctx, base, want)
}

// A claim of Become's that ran out is not released the moment the lock can be written again: what it stops may still be ending.
func TestBecomeHoldsUnderWork(t *testing.T) {
	t.Parallel()
	var store memory.Store
	of := func(identity string) elector.Lock {
		d := describe(identity, elector.ModeLease)
		d.Settings.LeaseDuration, d.Settings.RenewDeadline, d.Settings.RetryPeriod = 6*time.Second, 2*time.Second, 500*time.Millisecond
		l, err := store.Lock(d)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	lock := &flaky{Lock: of("a_1")}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	leading, err := elector.Become(ctx, lock)
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan time.Time, 1)
	go func() {
		if _, err := elector.Become(ctx, of("b_1")); err == nil {
			next <- time.Now()
		}
	}()
	lock.down.Store(true)
	<-leading.Done()
	lost := time.Now()
	lock.down.Store(false) // the API server is back
	select {
	case at := <-next:
		t.Errorf("the next candidate leads %v after the claim's context ended; the lease runs for 4s more, and the work may have just begun to end", at.Sub(lost))
	case <-time.After(3 * time.Second): // it ended its work well inside its lease
	}
}

// validUntil is never later than the claim's end, wherever the process is frozen (after any one reading of the clock) and then killed
// right after it wrote status.json.
func TestValidUntilAfterFreeze(t *testing.T) {
	for k := range 6 {
		synctest.Test(t, func(t *testing.T) {
			var store memory.Store
			lock, _ := store.Lock(describe("a_1", elector.ModeLease))
			clock := &bubbleClock{start: time.Now()}
			var puts, calls atomic.Int64
			var sent time.Time
			counted := &counting{Lock: lock, puts: &puts, onPut: func() {
				if puts.Load() <= 1 {
					sent = time.Now()
				}
			}}
			clock.armed = func() bool { return puts.Load() >= 2 && calls.Add(1) > int64(k) }
			clock.freeze.Store(int64(20 * time.Second))
			ctx, stop := context.WithCancel(t.Context())
			var bad *elector.Status
			done := make(chan error, 1)
			go func() {
				done <- elector.Run(ctx, elector.Config{Lock: counted, Clock: clock, Announce: func(s elector.Status) error {
					if puts.Load() <= 2 && s.Role == elector.RoleLeader && s.ValidUntil.After(sent.Add(elector.DefaultRenewDeadline)) {
						bad = &s // here it is killed: this is what stays in status.json
					}
					return nil
				}})
			}()
			time.Sleep(60 * time.Second)
			stop()
			<-done //nolint:errcheck // it was told to end
			if bad != nil {
				t.Errorf("frozen after clock reading %d: the last renewal was sent at %v, status.json says it was at %v and valid until %v", k, sent.UTC(), bad.Renewed, bad.ValidUntil)
			}
		})
	}
}

type counting struct {
	elector.Lock
	puts  *atomic.Int64
	onPut func()
}

func (c *counting) Put(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	c.onPut()
	rec, err := c.Lock.Put(ctx, base, want)
	c.puts.Add(1)
	return rec, err
}

// The longest grace is one.
func TestLongestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		lock, _ := store.Lock(describe("a_1", elector.ModeLease))
		ctx, stop := context.WithCancel(t.Context())
		started, finish, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			done <- elector.Run(ctx, elector.Config{Lock: lock, Clock: newBubbleClock(), Grace: math.MaxInt64, Callbacks: elector.Callbacks{
				OnStartedLeading: func(context.Context) { close(started); <-finish },
			}})
		}()
		<-started
		stop()
		time.Sleep(5 * time.Second)
		select {
		case err := <-done:
			t.Errorf("Run returned (%v) 5s after the stop though the work goes on and Grace is %v", err, time.Duration(math.MaxInt64))
		default:
		}
		close(finish)
		time.Sleep(time.Minute)
	})
}

// An identity that no JSON can carry is refused: the API server would store another one.
func TestIdentityIsText(t *testing.T) {
	d := describe("web\xff_uid", elector.ModeLease)
	if err := d.WithDefaults().Validate(""); err == nil {
		data, err := json.Marshal(d.Identity)
		if err != nil {
			t.Fatal(err)
		}
		var back string
		_ = json.Unmarshal(data, &back)
		t.Errorf("identity %q is accepted, the API server gets %q: the candidate never recognises its own lock", d.Identity, back)
	}
}

// Callbacks may call Resign, or never return: Run ends all the same.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	for _, tc := range []string{"Resign in OnNewLeader", "Resign in OnStoppedLeading", "slow OnNewLeader"} {
		t.Run(tc, func(t *testing.T) {
			t.Parallel()
			var store memory.Store
			lock, _ := store.Lock(describe("a_1", elector.ModeLease))
			ctx, stop := context.WithCancel(t.Context())
			var e *elector.Elector
			release := make(chan struct{})
			defer close(release)
			cb := elector.Callbacks{}
			resign := func() {
				rctx, c := context.WithCancel(context.Background())
				defer c()
				go func() { <-release; c() }()
				_ = e.Resign(rctx)
			}
			switch tc {
			case "Resign in OnNewLeader":
				cb.OnNewLeader = func(string) { <-ctx.Done(); time.Sleep(300 * time.Millisecond); resign() }
			case "Resign in OnStoppedLeading":
				cb.OnStoppedLeading = resign
			default:
				cb.OnNewLeader = func(string) { <-release }
			}
			var err error
			if e, err = elector.New(elector.Config{Lock: lock, Callbacks: cb}); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- e.Run(ctx) }()
			time.Sleep(500 * time.Millisecond)
			stop()
			select {
			case <-done: //nolint:errcheck // it was told to end
			case <-time.After(12 * time.Second):
				t.Error("Run has not returned 12s after its context ended (renew-deadline is 10s, there is no work)")
			}
		})
	}
}

// unwatched is a lock that can be read, and not watched.
type unwatched struct {
	elector.Lock
	why      error
	readings atomic.Int64
}

func (u *unwatched) Observe(ctx context.Context, see func(elector.Record)) error {
	u.readings.Add(1)
	ctx, end := context.WithCancel(ctx)
	defer end()
	_ = u.Lock.Observe(ctx, func(rec elector.Record) { see(rec); end() })
	return u.why
}

// A lock whose watches are refused, or end at once, is read the more seldom the longer that goes on, and led by all the same.
func TestReadSeldom(t *testing.T) {
	t.Parallel()
	for name, why := range map[string]error{"refused": errors.New("too many requests"), "ends at once": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var store memory.Store
				lock, err := store.Lock(describe("a_1", elector.ModeLease))
				if err != nil {
					t.Fatal(err)
				}
				u := &unwatched{Lock: lock, why: why}
				e, err := elector.New(elector.Config{Lock: u, Clock: newBubbleClock(), Jitter: func(limit time.Duration) time.Duration { return limit / 2 }})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- e.Run(ctx) }()
				time.Sleep(time.Minute)
				if n := u.readings.Load(); n > 25 {
					t.Errorf("read %d times in a minute; most pauses are to be of two retry-periods (4s), less a fifth", n)
				}
				if !e.IsLeader() {
					t.Error("it does not lead")
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A lock in memory behaves as one in a cluster does.
func TestMemoryStore(t *testing.T) {
	t.Run("a hand that counts a transition voids the note", func(t *testing.T) {
		var store memory.Store
		lock, _ := store.Lock(describe("a_1", elector.ModeLease))
		_, err := lock.Put(t.Context(), elector.Record{}, elector.Record{Holder: "a_1", LeaseDuration: 15 * time.Second, Note: elector.Note{Holder: "a_1", Write: "p.1"}})
		if err != nil {
			t.Fatal(err)
		}
		store.Edit("ns", "web", func(r elector.Record) elector.Record { r.Transitions++; return r })
		if n := store.Get("ns", "web").Note; n != (elector.Note{}) {
			t.Errorf("the API's lock has no valid note then (kube.readNote), the store's has %+v", n)
		}
	})
	t.Run("a hand's twin", func(t *testing.T) {
		var store memory.Store
		lock, _ := store.Lock(describe("a_1", elector.ModeLeaderForLife))
		rec, _ := lock.Put(t.Context(), elector.Record{}, elector.Record{Holder: "a_1", RenewTime: time.Unix(5, 0), AcquireTime: time.Unix(5, 0), Note: elector.Note{Holder: "a_1", Write: "p.1"}})
		if !rec.RenewTime.IsZero() || !rec.AcquireTime.IsZero() {
			t.Error("a ConfigMap stores no times, the store keeps them")
		}
	})
}

// Work does not begin for a claim that is over because announcing it took long: on a disk that hung, or in a process that was stopped.
func TestNoWorkAfterTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		lock, _ := store.Lock(describe("a_1", elector.ModeLease))
		other, _ := store.Lock(describe("b_1", elector.ModeLease))
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var slow sync.Once
		var otherLeads, both atomic.Bool
		begin := time.Now()
		wg.Go(func() {
			_ = elector.Run(ctx, elector.Config{Lock: lock, Clock: newBubbleClock(),
				Announce: func(s elector.Status) error {
					if s.Role == elector.RoleLeader {
						slow.Do(func() { time.Sleep(20 * time.Second) })
					}
					return nil
				},
				Callbacks: elector.Callbacks{OnStartedLeading: func(c context.Context) {
					if otherLeads.Load() {
						both.Store(true)
						t.Errorf("work for a claim of 10s is started %v after it began, with a context that lives (%v), while another leads", time.Since(begin), c.Err())
					}
					<-c.Done()
				}}})
		})
		time.Sleep(time.Second)
		wg.Go(func() {
			_ = elector.Run(ctx, elector.Config{Lock: other, Clock: newBubbleClock(), Callbacks: elector.Callbacks{
				OnStartedLeading: func(c context.Context) { otherLeads.Store(true); <-c.Done(); otherLeads.Store(false) }}})
		})
		time.Sleep(40 * time.Second)
		stop()
		wg.Wait()
	})
}

// stuck lets writes hang, once told to, until their context ends.
type stuck struct {
	elector.Lock
	hang atomic.Bool
}

func (s *stuck) Put(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	if s.hang.Load() {
		<-ctx.Done()
		return elector.Record{}, ctx.Err()
	}
	return s.Lock.Put(ctx, base, want)
}

// A candidate that cannot release leaves when its time for that is up, to the instant, and ends the write that is under way.
func TestRunLeavesOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		inner, _ := store.Lock(describe("a_1", elector.ModeLease))
		lock := &stuck{Lock: inner}
		ctx, stop := context.WithCancel(t.Context())
		leading, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- elector.Run(ctx, elector.Config{Lock: lock, Clock: newBubbleClock(), Callbacks: elector.Callbacks{
				OnStartedLeading: func(context.Context) { close(leading) }, // there is no work to wait for
			}})
		}()
		<-leading
		lock.hang.Store(true)
		stop()
		stopped := time.Now()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(stopped); took != elector.DefaultRenewDeadline {
			t.Errorf("Run returned %v after its context had ended, the time for releasing is the renew deadline, %v", took, elector.DefaultRenewDeadline)
		}
	})
}

// A candidate that leaves without having told the end of its claim says so, and has not released the lock.
func TestRunLeavesUntold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store memory.Store
		lock, _ := store.Lock(describe("a_1", elector.ModeLease))
		ctx, stop := context.WithCancel(t.Context())
		leading, done := make(chan struct{}), make(chan error, 1)
		full := errors.New("no space left on device")
		go func() {
			led := false
			done <- elector.Run(ctx, elector.Config{Lock: lock, Clock: newBubbleClock(),
				Announce: func(s elector.Status) error {
					if led && s.Role == elector.RoleStandby {
						return full
					}
					led = s.Role == elector.RoleLeader
					return nil
				},
				Callbacks: elector.Callbacks{OnStartedLeading: func(context.Context) { close(leading) }},
			})
		}()
		<-leading
		stop()
		if err := <-done; err == nil {
			t.Error("Run returned without a word, while readers of the announcement believe that it leads")
		}
		if holder := store.Get("ns", "web").Holder; holder != "a_1" {
			t.Errorf("the lock is held by %q: it was released though its readers were not told", holder)
		}
	})
}
