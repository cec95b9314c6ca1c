package main

import (
	"context"
	"time"

	"k8s.io/klog/v2"
)

// phases are what a replica goes through: it works, then it drains, then it ends.
//
// working ends with ctx, at the signal: this replica leads no more and is not
// ready. serving ends when API servers have had the time drain to find the other
// replicas: nothing is begun any more, and what has begun is answered. end goes
// through what is left.
func phases(ctx context.Context, drain time.Duration) (working, serving context.Context, end func()) {
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
	return working, serving, func() {
		stopServing()
		stopWorking()
		<-drained
	}
}
