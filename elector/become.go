package elector

import (
	"context"
	"errors"

	"k8s.io/klog/v2"
)

// PodLock is a leader-for-life lock with the Pod that would own it; kube.ForPod
// makes one of the Pod that this process runs in.
type PodLock struct {
	Lock
	// Namespace and Name are the lock's.
	Namespace, Name string
	// Identity is the Pod's; see the function Identity.
	Identity string
}

// Become waits until this Pod is the leader for life and returns a context that
// ends when it is not any more: with ctx, or when somebody deletes the lock or
// gives it away. Pass that context to what only the leader may do. An error says
// that ctx ended first or that the lock can't be used.
//
// It is operator-sdk's leader.Become in the way it is used, and keeps looking at
// its lock besides. A nil lock means that this is no Pod: Become then logs so
// and returns ctx, as operator-sdk does for development outside a cluster.
//
// The candidate goes on in the background until one of them ends; the lock stays
// with the Pod.
func Become(ctx context.Context, lock *PodLock) (leading context.Context, err error) {
	if lock == nil {
		klog.FromContext(ctx).Info("not in a cluster, leading without an election")
		return ctx, nil
	}
	settings := DefaultSettings()
	settings.Mode, settings.Lock = ModeLeaderForLife, lock.Name
	leading, cancel := context.WithCancelCause(ctx)
	running, stop := context.WithCancel(ctx)
	elected := make(chan struct{})
	e, err := New(Config{
		Settings: settings, Identity: lock.Identity, Namespace: lock.Namespace, Lock: lock.Lock,
		Callbacks: Callbacks{
			OnStartedLeading: func(claim context.Context) {
				close(elected)
				<-claim.Done()
				cancel(errLost)
				stop() // a second claim would not bring back what this one's end stopped
			},
		},
	})
	if err != nil {
		cancel(err)
		stop()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(running) }()
	select {
	case <-elected:
		return leading, nil
	case err := <-ended:
		if err == nil {
			err = ctx.Err()
		}
		cancel(err)
		stop()
		return nil, err
	}
}

// errLost is the cause of a context of Become's that ended before its parent.
var errLost = errors.New("the lock was deleted or given away")
