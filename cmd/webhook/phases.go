package main

import (
	"context"
	"time"

	"k8s.io/klog/v2"
)

// phases are what a replica goes through: it works, then it drains, then it ends.
type phases struct {
	// working ends with the signal: this replica leads no more and is not ready.
	working context.Context
	// serving ends when API servers have found the other replicas: nothing is begun
	// any more, and what has begun is answered.
	serving context.Context
}

// newPhases begins with ctx, and drains for the given time when it ends. end goes
// through what is left of the phases, without waiting.
func newPhases(ctx context.Context, drain time.Duration) (p phases, end func()) {
	working, stopWorking := context.WithCancel(ctx)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer stopServing()
		select {
		case <-working.Done():
		case <-serving.Done():
			return
		}
		klog.FromContext(ctx).Info("draining", "for", drain)
		select {
		case <-serving.Done():
		case <-time.After(drain):
		}
	}()
	return phases{working: working, serving: serving}, func() {
		stopServing()
		stopWorking()
		<-drained
	}
}
