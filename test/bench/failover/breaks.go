package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// breaks is how long it takes until another's application leads when the leader's does not work.
type breaks struct {
	figure string
	wait   time.Duration // elector.io/unready-for
	knows  measure.Sample
}

// The ways. A handover comes unready-for after the manager has seen that the leader does not work.
var ways = []struct {
	name, figure string
	ails         string // see -health of test/witness/app
	wait         time.Duration
	annotations  []string
}{
	{"crash", "crash loop, `unready-for: 5s`", "crash", 5 * time.Second, []string{"unready-for", "5s"}},
	{"unready", "not Ready, `handover-when: unready`, `unready-for: 5s`", "unready", 5 * time.Second, []string{"handover-when", "unready", "unready-for", "5s"}},
	{"default", "crash loop, the defaults", "crash", 30 * time.Second, nil},
}

// measureBreaks breaks the leaders of as many locks at a time, all of a kind.
func (l *lab) measureBreaks(ctx context.Context) ([]breaks, error) {
	var found []breaks
	for _, way := range ways {
		all := names("break-"+way.name, l.plan.breaks)
		for _, name := range all {
			t, err := l.elected(name, way.annotations...)
			if err != nil {
				return nil, err
			}
			if err := l.deploy(ctx, name, 2, l.probed(t)); err != nil {
				return nil, err
			}
		}
		b := breaks{figure: way.figure, wait: way.wait}
		var mu sync.Mutex
		breaking, ctx := errgroup.WithContext(ctx)
		for _, name := range all {
			breaking.Go(func() error {
				took, err := l.breakLeader(ctx, name, way.ails)
				mu.Lock()
				defer mu.Unlock()
				b.knows = append(b.knows, took)
				return err
			})
		}
		if err := breaking.Wait(); err != nil {
			return nil, fmt.Errorf("breaking leaders, %s: %w", way.figure, err)
		}
		if err := l.remove(context.WithoutCancel(ctx), all...); err != nil {
			return nil, err
		}
		found = append(found, b)
	}
	return found, nil
}

func (l *lab) breakLeader(ctx context.Context, lock, how string) (time.Duration, error) {
	leader, _, _, err := l.settled(ctx, lock, 2)
	if err != nil {
		return 0, err
	}
	broken, err := l.ails(leader.Name, how)
	if err != nil {
		return 0, err
	}
	knows, err := l.successor(ctx, lock, leader, broken)
	return knows - broken, err
}
