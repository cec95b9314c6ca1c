package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/elector-io/elector/elector"
)

const (
	// lookEvery is how often the election is asked whether it turns.
	lookEvery = 5 * time.Second
	// stuckLooks is how many looks in a row must find it stuck. One is not enough:
	// after a machine's sleep, or a frozen container's, the loop is given the time to
	// take its next step.
	stuckLooks = 3
	// withdrawTimeout is for the last words of a stuck election, whose disk may be
	// what it is stuck on.
	withdrawTimeout = time.Second
)

// supervise runs the election until it ends, or is stuck: then it takes the
// leader file away and returns, so that the process ends and is started anew. It
// is a liveness probe without a port, and without a process every ten seconds.
//
// A stuck election claims nothing: its claim ended by the clock, which readers of
// status.json and HTTP know. The file does not, and would lie until the next
// process begins, which may be minutes. It cannot notice a process that as a whole
// does not run.
func supervise(ctx context.Context, e *elector.Elector, files elector.StatusDir) error {
	return untilStuck(ctx, e.Run, e.Check, func() {
		if _, err := files.Withdraw(); err != nil {
			klog.FromContext(ctx).Error(err, "the leader file stays until the next start")
		}
	})
}

// untilStuck is supervise with the election's parts.
func untilStuck(ctx context.Context, run func(context.Context) error, check func() error, withdraw func()) error {
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }() // left behind if it is stuck: the process ends
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for stuck := 0; ; {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		err := check()
		if err == nil {
			stuck = 0
			continue
		}
		if stuck++; stuck < stuckLooks {
			continue
		}
		withdrawn := make(chan struct{})
		go func() {
			defer close(withdrawn)
			withdraw()
		}()
		select {
		case <-withdrawn:
		case <-time.After(withdrawTimeout):
		}
		return fmt.Errorf("the election is stuck and needs a new process: %w", err)
	}
}
