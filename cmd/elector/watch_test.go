package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

var errStuck = errors.New("the election has not made a step for 15s")

func TestUntilStuck(t *testing.T) {
	const forever = 24 * time.Hour
	hang := func(context.Context) error { time.Sleep(forever); return nil }
	tests := map[string]struct {
		reason   string
		run      func(context.Context) error
		stuck    func(look int) bool
		want     error
		after    time.Duration
		withdraw bool
	}{
		"the election ends": {
			reason: "its end is the process's", run: func(context.Context) error { time.Sleep(time.Minute); return errors.ErrUnsupported },
			stuck: func(int) bool { return false }, want: errors.ErrUnsupported, after: time.Minute,
		},
		"stuck": {
			reason: "a new process helps", run: hang, stuck: func(look int) bool { return look >= 10 },
			want: errStuck, after: 12 * lookEvery, withdraw: true,
		},
		"slept": {
			reason: "after a machine's sleep the loop's next step takes a moment", run: func(context.Context) error { time.Sleep(time.Hour); return nil },
			stuck: func(look int) bool { return look%3 != 0 }, after: time.Hour,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun, look, withdrawn := time.Now(), 0, false
				err := untilStuck(t.Context(), test.run, func() error {
					if look++; test.stuck(look) {
						return errStuck
					}
					return nil
				}, func() { withdrawn = true })
				after := time.Since(begun)
				time.Sleep(forever) // what is left behind ends
				if !errors.Is(err, test.want) || after != test.after || withdrawn != test.withdraw {
					t.Errorf("%s: after %s %v, withdrawn: %v; want after %s %v, %v", test.reason, after, err, withdrawn, test.after, test.want, test.withdraw)
				}
			})
		})
	}
}

// What the election is stuck on may hang whoever touches it.
func TestStuckOnTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		hang := func() { time.Sleep(24 * time.Hour) }
		err := untilStuck(t.Context(), func(context.Context) error { hang(); return nil }, func() error { return errStuck }, hang)
		after := time.Since(begun)
		hang()
		if want := stuckLooks*lookEvery + withdrawTimeout; !errors.Is(err, errStuck) || after != want {
			t.Errorf("after %s %v, want %s", after, err, want)
		}
	})
}

// A leader whose loop hangs, here on its disk, takes the file away and ends, with a claim that was long enough to outlast the look.
func TestSupervise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := elector.StatusDir(t.TempDir())
		settings := elector.Settings{Lock: "web", LeaseDuration: 2 * time.Hour, RenewDeadline: time.Hour}
		lock, err := new(memory.Store).Lock(elector.Description{Settings: settings, Namespace: "ns", Identity: "a_1"})
		if err != nil {
			t.Fatal(err)
		}
		leads := func() bool { _, err := os.Stat(filepath.Join(string(files), elector.LeaderFile)); return err == nil }
		release := make(chan struct{})
		var renewals atomic.Int32
		e, err := elector.New(elector.Config{Lock: lock, Clock: &bubbleClock{time.Now()}, Announce: func(s elector.Status) error {
			if leads() {
				renewals.Add(1)
				<-release
			}
			return files.Announce(s)
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- supervise(ctx, e, files) }()
		time.Sleep(time.Minute)
		if !leads() {
			t.Fatal("it does not lead after a minute")
		}
		if err := <-ended; err == nil || e.Check() == nil || renewals.Load() != 1 || leads() {
			t.Errorf("it ended with %v, after %d renewals; its check says %v; its leader file is there: %v", err, renewals.Load(), e.Check(), leads())
		}
		stop()
		close(release) // in a process, the end
		synctest.Wait()
		time.Sleep(24 * time.Hour)
	})
}

// bubbleClock measures the bubble's time.
type bubbleClock struct{ start time.Time }

func (c *bubbleClock) Now() time.Duration { return time.Since(c.start) }

func (c *bubbleClock) NewAlarm() (elector.Alarm, error) {
	return &bubbleAlarm{clock: c, fired: make(chan struct{}, 1)}, nil
}

type bubbleAlarm struct {
	clock *bubbleClock
	timer *time.Timer
	fired chan struct{}
}

func (a *bubbleAlarm) Set(at time.Duration) {
	a.Close()
	a.timer = time.AfterFunc(at-a.clock.Now(), func() {
		select {
		case a.fired <- struct{}{}:
		default:
		}
	})
}

func (a *bubbleAlarm) C() <-chan struct{} { return a.fired }

func (a *bubbleAlarm) Close() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// A process whose status directory hangs when it is about to say that it leads ends by itself, with a sentence. It takes half a minute.
func TestStuckProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	// What is stuck goes on to the end of the tests, and so does its watch of the lock: the server is not closed.
	api := httptest.NewServer(&leases{version: 1, changed: make(chan struct{})})
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	write(t, kubeconfig, fmt.Sprintf(`{"clusters": [{"name": "c", "cluster": {"server": %q}}],
		"contexts": [{"name": "c", "context": {"cluster": "c", "namespace": "prod"}}], "current-context": "c"}`, api.URL))
	// Where the leader file is written before it is renamed. Nobody reads, so that opening it hangs.
	if err := syscall.Mkfifo(filepath.Join(dir, "."+elector.LeaderFile+".tmp"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := command([]string{
		"--lock=web", "--identity=me", "--kubeconfig=" + kubeconfig, "--status-dir=" + dir, "--http-address=" + freeAddress(t), "--health-address=" + freeAddress(t),
	}, environment(), &stdout, &stderr)
	if want := "the election is stuck and needs a new process"; code != 1 || !strings.Contains(stderr.String(), want) {
		t.Errorf("exit code %d and\n%s\nwant 1 and a line with %q", code, &stderr, want)
	}
}
