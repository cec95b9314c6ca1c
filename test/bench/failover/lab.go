package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// plan is how much is measured.
type plan struct {
	// breaks is how many leaders are broken in each way.
	breaks int
	// groups of three are switched over so many rounds each.
	groups, rounds int
	// rollouts is how often each workload is rolled out, and sizes are the replicas of the Deployments among them.
	rollouts int
	sizes    []int
	// electorates of two pods each rest while the manager is watched, for as long with them as before without.
	electorates int
	rest        time.Duration
}

// results is what one run has found.
type results struct {
	began, ended time.Time
	machine      measure.Machine

	rest          rest
	breaks        []breaks
	switchovers   []switchovers
	managed, bare []rollouts // of the same workloads, with the manager and without
}

// namespace holds everything the benchmark makes.
const namespace = "bench"

// lab is a cluster to measure on.
type lab struct {
	plan     plan
	programs measure.Programs // what pods are told lies beside them
	witness  string           // path of the application
	dir      string           // the cluster's
	client   kubernetes.Interface
	managed  bool // the manager is installed
	// renewals is how often Leases of pods that do not run were renewed.
	renewals atomic.Int64
	// progress receives a line for people after every measurement.
	progress io.Writer
}

// measure carries out the plan on a cluster with the manager. What rests comes first, when nothing else has been.
func (l *lab) measure(ctx context.Context, r *results) (err error) {
	if r.rest, err = l.measureRest(ctx); err != nil {
		return err
	}
	l.say("%d elected pods at rest: %d writes by the manager in %s, %s of CPU time", r.rest.pods, r.rest.writes, r.rest.window.Round(time.Second), measure.Duration(r.rest.cpu))
	if r.breaks, err = l.measureBreaks(ctx); err != nil {
		return err
	}
	for _, b := range r.breaks {
		l.say("%s: p50 %s (n = %d)", b.figure, measure.Duration(b.knows.P50()), len(b.knows))
	}
	if r.switchovers, err = l.measureSwitchovers(ctx); err != nil {
		return err
	}
	for _, s := range r.switchovers {
		l.say("%s: p50 %s, p95 %s (n = %d)", s.figure, measure.Duration(s.knows.P50()), measure.Duration(s.knows.P95()), len(s.knows))
	}
	r.managed, err = l.measureRollouts(ctx)
	return err
}

func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }

func (l *lab) prepare(ctx context.Context) error {
	if err := measure.CreateNamespace(ctx, l.client, namespace); err != nil {
		return err
	}
	return measure.GrantLeases(ctx, l.client, namespace, account)
}

// patience is more than anything here takes, unless the machine is overloaded.
const patience = 3 * time.Minute

// eventually asks until the answer is yes. An API server that is too busy to answer is asked again.
func eventually(ctx context.Context, what string, ask wait.ConditionWithContextFunc) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		done, err := ask(ctx)
		last = err
		return done && err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, errors.Join(err, last))
	}
	return nil
}

// pause lets a time pass that is drawn at random, so that what is measured is in no step with renewals and polls. The spread is about client-go's
// longest time between two polls, and more than elector's between two renewals.
func pause(ctx context.Context) error { return measure.Sleep(ctx, time.Second+rand.N(5*time.Second)) }
