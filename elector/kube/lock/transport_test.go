package lock

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elector-io/elector/elector"
)

// writeTimeout is what the candidate gives a write.
const writeTimeout = elector.DefaultRenewDeadline / 3

// user is a lock in use: observed all the time, and written now and then.
type user struct {
	t     *testing.T
	api   *apiServer
	pod   bool // it connects as a Pod does
	lock  elector.Lock
	rec   elector.Record // as seen last
	leave context.CancelFunc
	ended <-chan error // how observing ended
}

// use begins to observe the lock and waits until nothing happens any more.
func use(t *testing.T, api *apiServer, pod bool) *user {
	t.Helper()
	lock, err := New(api.config(t, pod), Config{Candidate: elector.Description{
		Settings: elector.Settings{Lock: testLock}, Namespace: "default", Identity: elector.Identity("me", "1"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	u := &user{t: t, api: api, pod: pod, lock: lock}
	u.observe()
	return u
}

func (u *user) observe() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	u.leave, u.ended = cancel, ended
	go func() {
		for {
			if err := u.lock.Observe(ctx, func(rec elector.Record) { u.rec = rec }); err != nil {
				ended <- err
				return
			}
		}
	}()
	u.t.Cleanup(cancel)
	synctest.Wait()
}

// stop leaves off observing.
func (u *user) stop() {
	u.leave()
	if err := <-u.ended; !errors.Is(err, context.Canceled) {
		u.t.Errorf("observing ended with %v, want that it was cancelled", err)
	}
}

// write is one try.
func (u *user) write() error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	synctest.Wait() // until what was seen is in rec
	base := u.rec
	want := base
	want.Holder, want.RenewTime = elector.Identity("me", "1"), time.Now()
	rec, err := u.lock.Put(ctx, base, want)
	synctest.Wait()
	if err == nil {
		u.rec = rec
	}
	return err
}

func (u *user) mustWrite(what string) {
	u.t.Helper()
	if err := u.write(); err != nil {
		u.t.Fatalf("%s: %v", what, err)
	}
}

// mustTimeOut writes in vain.
func (u *user) mustTimeOut(what string) {
	u.t.Helper()
	if err := u.write(); !errors.Is(err, context.DeadlineExceeded) {
		u.t.Fatalf("%s: the write ended with %v, want a timeout", what, err)
	}
}

// mustSee fails unless the newest version was seen.
func (u *user) mustSee(what string) {
	u.t.Helper()
	synctest.Wait()
	u.api.mu.Lock()
	defer u.api.mu.Unlock()
	if want := u.api.version; u.rec.Version != want {
		u.t.Errorf("%s: version %d of the lock was seen at last, want %d", what, u.rec.Version, want)
	}
}

// connections fails unless so many are open.
func (u *user) connections(what string, want int) {
	u.t.Helper()
	synctest.Wait()
	if _, open := u.api.counts(); open != want {
		u.t.Errorf("%s: %d connections are open, want %d", what, open, want)
	}
}

// dialled fails unless there have been so many connections.
func (u *user) dialled(what string, want int) {
	u.t.Helper()
	synctest.Wait()
	if dialled, _ := u.api.counts(); dialled != want {
		u.t.Errorf("%s: %d connections were made, want %d", what, dialled, want)
	}
}

// mustObserve fails if observing has ended.
func (u *user) mustObserve(what string) {
	u.t.Helper()
	synctest.Wait()
	select {
	case err := <-u.ended:
		u.t.Errorf("%s: observing ended: %v", what, err)
	default:
	}
}

// TestConnections runs a lock against a server in memory, on synctest's clock.
func TestConnections(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		server func(*httptest.Server)
		do     func(*user)
	}{
		"one": {
			reason: "list, watch and writes share a connection, so that no write waits for a handshake",
			do: func(u *user) {
				for range 3 {
					u.mustWrite("a write")
				}
				time.Sleep(4 * time.Minute)
				u.mustWrite("a write after a long rest")
				u.connections("at last", 1)
				u.dialled("at last", 1)
			},
		},
		"dead": {
			reason: "a write that times out takes a dead connection along, and the next one dials; so does the watch",
			do: func(u *user) {
				u.mustWrite("the first")
				for range 3 {
					u.api.silence()
					u.mustTimeOut("over a dead connection")
					u.mustWrite("the next try")
					u.connections("after the next try", 1)
					u.api.change()
					u.mustSee("over the new connection")
				}
				u.mustObserve("at last")
			},
		},
		"dead, and no time to wait": {
			reason: "a try while the connection is on trial does not wait longer than its own deadline",
			do: func(u *user) {
				u.api.silence()
				u.mustTimeOut("over a dead connection")
				ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				defer cancel()
				if _, err := u.lock.Put(ctx, u.rec, u.rec); !errors.Is(err, context.DeadlineExceeded) {
					u.t.Errorf("a short write ended with %v, want a timeout", err)
				}
				u.mustWrite("a try at once")
			},
		},
		"dead, and how soon that is known": {
			reason: "a connection gets an eighth of the time that its request has waited, and never more than half a second",
			do: func(u *user) {
				for _, wait := range []time.Duration{800 * time.Millisecond, 4 * time.Second, 6 * time.Second} {
					u.api.silence()
					ctx, cancel := context.WithTimeout(context.Background(), wait)
					if _, err := u.lock.Put(ctx, u.rec, u.rec); !errors.Is(err, context.DeadlineExceeded) {
						u.t.Fatalf("over a dead connection: %v", err)
					}
					cancel()
					began := time.Now()
					u.mustWrite("the next try")
					if took, want := time.Since(began), min(wait/8, 500*time.Millisecond); took != want {
						u.t.Errorf("after a request of %v the next took %v, want %v", wait, took, want)
					}
				}
			},
		},
		"dead before the watch is answered": {
			reason: "a watch has minutes, but its first answer has not",
			do: func(u *user) {
				u.stop()
				u.api.set(func() { u.api.deaf = true })
				began := time.Now()
				u.observe()
				err := <-u.ended
				if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 5*time.Second {
					u.t.Errorf("observing ended after %s with %v, want a timeout after 5s", took, err)
				}
				u.api.set(func() { u.api.deaf = false })
				u.observe()
				u.mustObserve("again")
				u.connections("observing again", 1)
			},
		},
		"dead at rest": {
			reason: "a standby whose connection dies knows before the default lease-duration is over, although it sends nothing: after a rest and a ping",
			do: func(u *user) {
				u.api.silence()
				began := time.Now()
				err := <-u.ended
				if took := time.Since(began); took != 8*time.Second+5*time.Second {
					u.t.Errorf("observing ended after %s with %v, want 13s", took, err)
				}
				u.connections("after the ping", 0)
			},
		},
		"slow": {
			reason: "a server that is slow but lives keeps its connection: to connect and watch again would make it slower",
			do: func(u *user) {
				u.api.set(func() { u.api.slow = writeTimeout + time.Second })
				for range 3 {
					u.mustTimeOut("a slow write")
					time.Sleep(10 * time.Second) // until it has happened after all, which shows on the watch
				}
				u.api.set(func() { u.api.slow = 0 })
				u.mustWrite("a quick one")
				u.mustObserve("at last")
				u.dialled("at last", 1)
			},
		},
		"cancelled": {
			reason: "who leaves off watching, or writing, still trusts the connection",
			do: func(u *user) {
				u.stop()
				u.observe()
				u.api.set(func() { u.api.slow = time.Second })
				ctx, cancel := context.WithCancel(context.Background())
				time.AfterFunc(time.Millisecond, cancel)
				synctest.Wait()
				if _, err := u.lock.Put(ctx, u.rec, u.rec); !errors.Is(err, context.Canceled) {
					u.t.Errorf("a cancelled write ended with %v", err)
				}
				time.Sleep(2 * time.Second)
				u.mustWrite("afterwards")
				u.dialled("afterwards", 1)
			},
		},
		"hanging dial": {
			reason: "a dial that hangs costs the requests that wanted it and no other, and leaves nothing",
			do: func(u *user) {
				u.api.silence()
				u.api.hang(true)
				u.mustTimeOut("over a dead connection")
				u.mustTimeOut("without a connection")
				u.api.hang(false)
				u.mustWrite("the next try")
				time.Sleep(2 * dialTimeout)
				u.connections("when the dials are given up", 1)
				if waited := u.api.longestDial(); waited != 5*time.Second {
					u.t.Errorf("a dial was given up after %v", waited)
				}
			},
		},
		"GOAWAY": {
			reason: "a server that sends its clients elsewhere now and then (--goaway-chance) fails no renewal and no watch",
			do: func(u *user) {
				u.api.set(func() { u.api.goAway = true })
				for range 5 {
					u.mustWrite("a renewal")
				}
				u.api.set(func() { u.api.goAway = false })
				u.mustWrite("a renewal")
				u.mustObserve("over the old connection")
				u.connections("the old watch goes on where it is", 2)
				u.stop()
				u.observe()
				u.connections("when the old watch has ended", 1)
			},
		},
		"one stream": {
			reason: "a server that allows one stream per connection gets a second connection",
			server: func(s *httptest.Server) { s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1} },
			do: func(u *user) {
				u.mustWrite("beside the watch")
				u.connections("beside the watch", 2)
			},
		},
		"HTTP/1.1": {
			reason: "without HTTP/2 a write that times out closes its own connection, and the watch's is let alone",
			server: func(s *httptest.Server) { s.EnableHTTP2 = false },
			do: func(u *user) {
				u.mustWrite("the first")
				u.connections("a watch and a write", 2)
				u.api.silence()
				u.mustTimeOut("over a dead connection")
				u.mustWrite("the next try")
				u.dialled("after the next try", 3)
				u.connections("after the next try", 2)
				u.mustObserve("at last")
			},
		},
		"two locks": {
			reason: "candidates of one process that shared a connection would lose it together; one that is let go of does not stay",
			do: func(u *user) {
				other := use(u.t, u.api, u.pod)
				other.connections("two locks", 2)
				other.stop()
				time.Sleep(2 * time.Minute)
				u.connections("when one is let go of", 1)
			},
		},
	} {
		for _, pod := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, pod %v", name, pod), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					api := startAPI(t, tc.server)
					t.Log(tc.reason)
					tc.do(use(t, api, pod))
				})
			})
		}
	}
}
