package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// latency is a figure of both implementations.
type latency struct {
	replicas int
	of       [2]measure.Sample
}

// each runs series for every group of both implementations at once, and collects what they measure.
func (l *lab) each(ctx context.Context, series func(ctx context.Context, who implementation, lease string) (measure.Sample, error), kind string) ([2]measure.Sample, error) {
	var (
		mu    sync.Mutex
		found [2]measure.Sample
	)
	work, ctx := errgroup.WithContext(ctx)
	for i := range l.plan.groups {
		for _, who := range implementations { // by turns, so that neither has the earlier start
			work.Go(func() error {
				s, err := series(ctx, who, fmt.Sprintf("%s-%s-%d", kind, who, i))
				mu.Lock()
				defer mu.Unlock()
				found[who] = append(found[who], s...)
				return err
			})
		}
	}
	return found, work.Wait()
}

// handovers measures how long groups of so many replicas are without a leader when theirs is removed.
func (l *lab) handovers(ctx context.Context, kind string, replicas int, remove func(*candidate)) (latency, error) {
	found, err := l.each(ctx, func(ctx context.Context, who implementation, lease string) (measure.Sample, error) {
		g := newGroup(who, l.base, lease)
		defer g.close()
		if err := g.elect(ctx, replicas); err != nil {
			return nil, err
		}
		var s measure.Sample
		for range l.plan.rounds {
			took, err := g.handover(ctx, remove)
			if err != nil {
				return nil, err
			}
			s = append(s, took)
		}
		return s, nil
	}, fmt.Sprintf("%s-%d", kind, replicas))
	if err != nil {
		return latency{}, fmt.Errorf("measuring %s with %d replicas: %w", kind, replicas, err)
	}
	return latency{replicas, found}, nil
}

// crashes measures takeovers of all sizes at once: they take many seconds, in which the machine has little to do.
func (l *lab) crashes(ctx context.Context) ([]latency, error) {
	found := make([]latency, len(l.plan.sizes))
	work, ctx := errgroup.WithContext(ctx)
	for i, replicas := range l.plan.sizes {
		work.Go(func() (err error) {
			found[i], err = l.handovers(ctx, "crash", replicas, (*candidate).crash)
			return err
		})
	}
	return found, work.Wait()
}

// firstClaims starts single candidates on new Leases, which gives start, and then writes another holder into those, which gives demotion.
func (l *lab) firstClaims(ctx context.Context) (start, demotion [2]measure.Sample, err error) {
	var mu sync.Mutex
	start, err = l.each(ctx, func(ctx context.Context, who implementation, lease string) (measure.Sample, error) {
		// Otherwise all would start at once the first time, and wait for each other.
		if err := measure.Sleep(ctx, rand.N(pauseSpread)); err != nil {
			return nil, err
		}
		var s measure.Sample
		for i := range l.plan.rounds {
			started, stepped, err := l.firstClaim(ctx, who, fmt.Sprintf("%s-%d", lease, i))
			if err != nil {
				return nil, err
			}
			s = append(s, started)
			mu.Lock()
			demotion[who] = append(demotion[who], stepped)
			mu.Unlock()
		}
		return s, nil
	}, "first")
	if err != nil {
		return start, demotion, fmt.Errorf("measuring first claims and demotion: %w", err)
	}
	return start, demotion, nil
}

func (l *lab) firstClaim(ctx context.Context, who implementation, lease string) (start, demotion time.Duration, err error) {
	g := newGroup(who, l.base, lease)
	defer g.close()
	began := time.Now()
	if err := g.elect(ctx, 1); err != nil {
		return 0, 0, err
	}
	start = g.since.Sub(began)
	if err := g.rest(ctx, pause()); err != nil {
		return 0, 0, err
	}
	g.deposed = true
	written, err := l.depose(ctx, lease)
	if err != nil {
		return 0, 0, err
	}
	if err := g.until(ctx, "the deposed leader to step down", func() bool { return g.leader == nil }); err != nil {
		return 0, 0, err
	}
	return start, g.since.Sub(written), nil
}

// depose writes another holder into a Lease and returns when it sent that, the earliest moment at which it can have counted.
func (l *lab) depose(ctx context.Context, lease string) (sent time.Time, err error) {
	leases := l.client.CoordinationV1().Leases(namespace)
	for {
		found, err := leases.Get(ctx, lease, metav1.GetOptions{})
		if err != nil {
			return sent, fmt.Errorf("reading the Lease: %w", err)
		}
		now := metav1.NowMicro()
		found.Spec.HolderIdentity = new("somebody-else")
		found.Spec.LeaseTransitions = new(ptr.Deref(found.Spec.LeaseTransitions, 0) + 1)
		found.Spec.AcquireTime, found.Spec.RenewTime = &now, &now
		sent = time.Now()
		_, err = leases.Update(ctx, found, metav1.UpdateOptions{})
		switch {
		case apierrors.IsConflict(err): // it was just renewed
			continue
		case err != nil:
			return sent, fmt.Errorf("writing another holder into the Lease: %w", err)
		}
		return sent, nil
	}
}
