package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// implementation is one of the two that are compared.
type implementation int

const (
	ours implementation = iota
	peer
)

var implementations = [...]implementation{ours, peer}

func (i implementation) String() string { return [...]string{"elector", "client-go"}[i] }

// namespace holds everything the benchmark makes.
const namespace = "bench"

// candidate is one contender of a group.
type candidate struct {
	identity string
	link     link
	events   chan<- event
	muted    chan struct{} // closed when nobody listens any more
	stop     context.CancelFunc
}

// event is what a candidate tells its application.
type event struct {
	kind      eventKind
	candidate *candidate
	at        time.Time
	err       error // of failed
}

type eventKind int

const (
	leads  eventKind = iota // OnStartedLeading
	stands                  // OnStoppedLeading, of one that led
	knows                   // OnNewLeader
	failed                  // it can't run at all
)

func (c *candidate) tell(kind eventKind, err error) {
	e := event{kind, c, time.Now(), err}
	select {
	case <-c.muted: // looked at first: with both ready, select would draw lots
		return
	default:
	}
	select {
	case c.events <- e:
	case <-c.muted:
	}
}

// leave asks the candidate to go, as SIGTERM does.
func (c *candidate) leave() { c.stop() }

// crash takes the candidate away as a node that loses power does: nothing more of it reaches the API server.
func (c *candidate) crash() {
	c.link.sever()
	c.stop() // it can't release any more; without this it would try for ever
}

// run contends until ctx ends.
func (c *candidate) run(ctx context.Context, who implementation, base *rest.Config, lease string) {
	defer c.link.sever()
	contend := c.contend
	if who == peer {
		contend = c.contendAsPeer
	}
	if err := contend(ctx, c.link.config(base), lease); err != nil {
		c.tell(failed, err)
	}
}

func (c *candidate) contend(ctx context.Context, client *rest.Config, lease string) error {
	lock, err := kube.New(client, kube.Config{
		Candidate: elector.Description{Settings: elector.Settings{Lock: lease}, Namespace: namespace, Identity: c.identity},
	})
	if err != nil {
		return fmt.Errorf("making a lock: %w", err)
	}
	err = elector.Run(ctx, elector.Config{
		Lock: lock,
		Callbacks: elector.Callbacks{
			OnStartedLeading: func(ctx context.Context) {
				c.tell(leads, nil)
				<-ctx.Done()
			},
			OnStoppedLeading: func() { c.tell(stands, nil) },
			OnNewLeader:      func(string) { c.tell(knows, nil) },
		},
	})
	if err != nil {
		return fmt.Errorf("running elector: %w", err)
	}
	return nil
}

func (c *candidate) contendAsPeer(ctx context.Context, client *rest.Config, lease string) error {
	client.Timeout = elector.DefaultRenewDeadline / 2 // as controller-runtime sets it
	leases, err := coordinationclient.NewForConfig(client)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	var led atomic.Bool // OnStoppedLeading is called for those who never led, too
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: lease}, Client: leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: c.identity},
		},
		LeaseDuration: elector.DefaultLeaseDuration, RenewDeadline: elector.DefaultRenewDeadline, RetryPeriod: elector.DefaultRetryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				led.Store(true)
				c.tell(leads, nil)
			},
			OnStoppedLeading: func() {
				if led.Load() {
					c.tell(stands, nil)
				}
			},
			OnNewLeader: func(string) { c.tell(knows, nil) },
		},
	})
	if err != nil {
		return fmt.Errorf("making a LeaderElector: %w", err)
	}
	e.Run(ctx) // one-shot: in this benchmark, who loses the lock is not needed again
	return nil
}
