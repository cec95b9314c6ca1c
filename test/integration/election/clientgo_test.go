//go:build integration

package election

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/test/judge"
)

// wire is a candidate's own connection, which can be cut.
type wire struct {
	next http.RoundTripper
	cut  atomic.Bool
}

var errCut = errors.New("the wire is cut")

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if w.cut.Load() {
		return nil, errCut
	}
	return w.next.RoundTrip(req)
}

func newWire() (*wire, *rest.Config) {
	w := &wire{}
	config := cluster.RESTConfig()
	config.Dial = nil
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { w.next = next; return w })
	return w, config
}

// mixed is one candidate of either kind.
type mixed struct {
	identity string
	ours     bool
	wire     *wire
	run      func(ctx context.Context)
	cancel   context.CancelFunc
	done     chan struct{}
}

func (m *mixed) start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan struct{})
	go func() { defer close(m.done); m.run(ctx) }()
}

func (m *mixed) stop() { m.cancel(); <-m.done }

// TestBesideClientGo mixes client-go's candidates and ours on one Lease, cuts
// their wires and restarts them.
func TestBesideClientGo(t *testing.T) {
	t.Parallel()
	settings := elector.Settings{
		Lock: "mixed", Mode: elector.ModeLease,
		LeaseDuration: quickLease, RenewDeadline: 2 * time.Second, RetryPeriod: 500 * time.Millisecond,
	}
	var mu sync.Mutex
	var lock judge.Lock
	start := time.Now()
	leading := map[string]bool{}
	announce := func(identity string, s elector.Status) {
		mu.Lock()
		defer mu.Unlock()
		if s.Role != elector.RoleLeader {
			delete(leading, identity)
			lock.Ended(identity, time.Since(start))
			return
		}
		if !leading[identity] {
			leading[identity] = true
			lock.Began(identity, s.FencingToken, time.Since(start))
		}
		lock.Until(identity, s.ValidUntil.Sub(start))
	}
	var all []*mixed
	for i := range 2 {
		all = append(all, ourCandidate(t, fmt.Sprintf("ours-%d", i), settings, announce), theirCandidate(t, fmt.Sprintf("theirs-%d", i), settings))
	}
	takes, holder, stopWatching := watchTakes(t, settings)
	for _, m := range all {
		m.start()
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		<-time.After(rand.N(time.Second)) // the weather
		m := all[rand.IntN(len(all))]
		for _, c := range all {
			if rand.IntN(2) == 0 && c.identity == holder.Load() {
				m = c // the holder is where it hurts
			}
		}
		if rand.IntN(2) == 0 {
			m.wire.cut.Store(true)
			time.AfterFunc(rand.N(2*settings.LeaseDuration), func() { m.wire.cut.Store(false) })
		} else {
			m.stop()
			m.start()
		}
	}
	for _, m := range all {
		if !m.ours {
			m.stop()
		}
	}
	eventually(t, "one of ours leads when client-go's are gone", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(leading) == 1
	})
	for _, m := range all {
		if m.ours {
			m.stop()
		}
	}
	stopWatching()
	verdict := lock.Verdict()
	for _, violation := range verdict.Violations {
		t.Error("among ours:", violation)
	}
	t.Logf("%d claims of ours, %d leases taken from client-go's candidates", verdict.Claims, takes.Load())
}

func ourCandidate(t *testing.T, name string, settings elector.Settings, announce func(string, elector.Status)) *mixed {
	w, config := newWire()
	lock, err := kube.New(config, kube.Config{Candidate: elector.Description{Settings: settings, Namespace: "default", Identity: name}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := elector.New(elector.Config{
		Lock:      lock,
		Callbacks: elector.Callbacks{OnStartedLeading: func(context.Context) {}},
		Announce: func(s elector.Status) error { // the moment of the claim, before any callback
			announce(name, s)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &mixed{identity: name, ours: true, wire: w, run: func(ctx context.Context) {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	}}
}

func theirCandidate(t *testing.T, name string, settings elector.Settings) *mixed {
	w, config := newWire()
	config.Timeout = 2 * time.Second
	client, err := coordinationclient.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &mixed{identity: name, wire: w, run: func(ctx context.Context) {
		for ctx.Err() == nil {
			e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
				Lock: &resourcelock.LeaseLock{
					LeaseMeta: metav1.ObjectMeta{Namespace: "default", Name: settings.Lock}, Client: client,
					LockConfig: resourcelock.ResourceLockConfig{Identity: name},
				},
				LeaseDuration: settings.LeaseDuration, RenewDeadline: settings.RenewDeadline, RetryPeriod: settings.RetryPeriod,
				ReleaseOnCancel: true,
				Callbacks:       leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
			})
			if err != nil {
				t.Error(err)
				return
			}
			e.Run(ctx)
		}
	}}
}

// watchTakes checks that none of ours replaces a candidate of client-go's that
// renewed less than a lease-duration ago. All of them write the time of this
// process's clock into the Lease.
func watchTakes(t *testing.T, settings elector.Settings) (takes *atomic.Int64, current *atomic.Value, stop func()) {
	leases := cluster.Client().CoordinationV1().Leases("default")
	ctx, cancel := context.WithCancel(t.Context())
	events, err := leases.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + settings.Lock})
	if err != nil {
		t.Fatal(err)
	}
	takes, current = new(atomic.Int64), new(atomic.Value)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var before coordinationv1.LeaseSpec
		holder := ""
		for event := range events.ResultChan() {
			lease, ok := event.Object.(*coordinationv1.Lease)
			if !ok || event.Type == watch.Deleted {
				continue
			}
			next := *lease.Spec.HolderIdentity
			if len(next) > 4 && next[:4] == "ours" && len(holder) > 6 && holder[:6] == "theirs" {
				takes.Add(1)
				if age := lease.Spec.AcquireTime.Sub(before.RenewTime.Time); age < settings.LeaseDuration {
					t.Errorf("%s took the lease of %s %v after its renewal", next, holder, age)
				}
			}
			holder, before = next, lease.Spec
			current.Store(holder)
		}
	}()
	return takes, current, func() { cancel(); <-done }
}
