package main

import (
	"context"
	"errors"
	"net/http"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/elector"
)

// candidate contends for the manager's own lock with elector's own library and
// runs the reconcilers while it leads.
type candidate struct {
	elector *elector.Elector
	// failed ends the election when a reconciler cannot work: to lead without
	// working would keep others from it.
	failed chan error
}

// newCandidate returns the candidate of this replica. The reconcilers must work
// until their context ends. files, if there are any, tell a restarted container
// what it claimed before.
func newCandidate(lock elector.Lock, files elector.StatusDir, reconcilers ...func(context.Context) error) (*candidate, error) {
	c := &candidate{failed: make(chan error, 1)}
	cfg := elector.Config{
		Lock: lock,
		Callbacks: elector.Callbacks{
			OnStartedLeading: func(ctx context.Context) {
				group, working := errgroup.WithContext(ctx)
				for _, reconcile := range reconcilers {
					group.Go(func() error { return reconcile(working) })
				}
				if err := group.Wait(); err != nil && ctx.Err() == nil {
					select {
					case c.failed <- err:
					default:
					}
				}
			},
			OnNewLeader: func(identity string) {
				klog.Background().Info("new leader", "identity", identity)
			},
		},
	}
	if files != "" {
		last, err := files.Withdraw()
		if err != nil {
			return nil, err
		}
		cfg.Last, cfg.Announce = last, files.Announce
	}
	e, err := elector.New(cfg)
	c.elector = e
	return c, err
}

// run contends until ctx ends or stop is closed, or a reconciler fails. When it
// returns, no reconciler works and the lock is free if this replica had it.
func (c *candidate) run(ctx context.Context, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group := errgroup.Group{}
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-stop:
			cancel()
			return nil
		case err := <-c.failed:
			cancel()
			return err
		}
	})
	err := c.elector.Run(ctx)
	cancel()
	return errors.Join(err, group.Wait())
}

// check fails when the election is stuck, so that the kubelet restarts the
// replica.
func (c *candidate) check(*http.Request) error { return c.elector.Check() }
