package elector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"
)

// Become waits until this candidate leads and returns a context that ends when it
// does not any more: with ctx, or with the claim, or, in leader-for-life, when
// somebody deletes the lock, gives it away or asks for a handover. Pass that context to what only the
// leader may do, and end ctx only when that has returned: the lock is released
// with ctx, or DefaultGrace after the claim has ended. An error says that ctx ended first or that the lock can't be used.
//
// It is operator-sdk's leader.Become in the way it is used, for leases as well, and
// keeps looking at its lock besides. A nil lock means that this is no Pod: Become
// then logs so and returns ctx, as operator-sdk does for development outside a
// cluster. kube.ForPod makes the lock of the Pod that this process runs in.
//
// The candidate goes on in the background until one of them ends; in
// leader-for-life the lock stays with the Pod.
func Become(ctx context.Context, lock Lock) (leading context.Context, err error) {
	if lock == nil {
		klog.FromContext(ctx).Info("not in a cluster, leading without an election")
		return ctx, nil
	}
	leading, lose := context.WithCancelCause(ctx)
	running, stop := context.WithCancel(ctx)
	elected := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		defer stop()
		ended <- Run(running, Config{Lock: lock, Callbacks: Callbacks{
			OnStartedLeading: func(claim context.Context) {
				elected <- struct{}{} // the first claim is the last: there is room for it
				<-claim.Done()
				lose(errLost)
				// What the claim's end stops may take its time: the lock is held for it if that
				// can be. A second claim would not bring it back.
				select {
				case <-ctx.Done():
				case <-time.After(DefaultGrace):
				}
				stop()
			},
		}})
	}()
	select {
	case <-elected:
		return leading, nil
	case err := <-ended:
		if err == nil {
			err = fmt.Errorf("waiting to lead: %w", context.Cause(ctx))
		}
		lose(err)
		return nil, err
	}
}

// errLost is the cause of a context of Become's that ended before its parent.
var errLost = errors.New("the claim ended: the lease could not be renewed, or the lock was deleted or given away, or a handover was asked for")
