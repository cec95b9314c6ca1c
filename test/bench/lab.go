package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// plan is how much is measured.
type plan struct {
	// sizes are the numbers of replicas for handovers and takeovers.
	sizes []int
	// groups of each implementation go through so many rounds each: every latency is measured groups * rounds times.
	groups, rounds int
	// rest is for how long resting groups and sidecars are watched, at least.
	rest time.Duration
	// storm is how long each storm rages.
	storm time.Duration
	// locks is how many lose their leaders at the same moment, massRounds how often, and drained how many lose them one after the other.
	locks, massRounds, drained int
	// massQuiet is for how long it is measured what so many cost at rest.
	massQuiet   time.Duration
	leastWrites int // of each of some Leases without candidates
}

// results is what one run has found.
type results struct {
	began, ended time.Time
	machine      measure.Machine

	graceful, crash []latency // in the order of plan.sizes
	start, demotion [2]measure.Sample
	traffic         [2]traffic
	footprints      [2]footprint
	storms          storms
	mass            [2]mass
}

// lab is a cluster to measure on.
type lab struct {
	plan   plan
	base   *rest.Config
	client kubernetes.Interface
	// progress receives a line for people after every measurement.
	progress io.Writer
	// stormed is how many sidecars were started for a storm.
	stormed int
}

// measure carries out the plan.
func (l *lab) measure(ctx context.Context, built measure.Programs) (r results, err error) {
	r.began = time.Now()
	if err := l.makeNamespace(ctx); err != nil {
		return r, err
	}
	// What rests does so from now to the end, beside everything else.
	pods, err := l.startSidecars(ctx, built)
	if err != nil {
		return r, err
	}
	var still [2]resting
	for _, who := range implementations {
		g, err := l.restGroup(ctx, who)
		if err != nil {
			return r, err
		}
		defer g.close()
		still[who] = g.begin()
	}
	if err := pods.begin(); err != nil {
		return r, err
	}
	if err := l.latencies(ctx, &r); err != nil {
		return r, err
	}
	if err := l.waitUntil(ctx, pods.began.Add(l.plan.rest)); err != nil {
		return r, err
	}
	for _, who := range implementations {
		if r.traffic[who], err = still[who].end(); err != nil {
			return r, err
		}
	}
	r.footprints, err = l.endSidecars(ctx, pods, built)
	r.ended = time.Now()
	return r, err
}

func (l *lab) makeNamespace(ctx context.Context) error {
	return measure.CreateNamespace(ctx, l.client, namespace)
}

func (l *lab) latencies(ctx context.Context, r *results) error {
	for _, replicas := range l.plan.sizes {
		found, err := l.handovers(ctx, "graceful", replicas, (*candidate).leave)
		if err != nil {
			return err
		}
		r.graceful = append(r.graceful, found)
		l.say("graceful handover, %d replicas", found.of, replicas)
	}
	var err error
	if r.crash, err = l.crashes(ctx); err != nil {
		return err
	}
	for _, found := range r.crash {
		l.say("crash takeover, %d replicas", found.of, found.replicas)
	}
	if r.start, r.demotion, err = l.firstClaims(ctx); err != nil {
		return err
	}
	l.say("start to first claim", r.start)
	l.say("demotion", r.demotion)
	return nil
}

func (l *lab) say(what string, found [2]measure.Sample, args ...any) {
	fmt.Fprintf(l.progress, "%s: p95 %s, client-go %s (n = %d and %d)\n",
		fmt.Sprintf(what, args...), measure.Duration(found[ours].P95()), measure.Duration(found[peer].P95()), len(found[ours]), len(found[peer]))
}

// waitUntil waits for a time.
func (l *lab) waitUntil(ctx context.Context, at time.Time) error {
	left := time.Until(at)
	if left > time.Second {
		fmt.Fprintf(l.progress, "watching what rests for another %s\n", left.Round(time.Second))
	}
	return measure.Sleep(ctx, left)
}
