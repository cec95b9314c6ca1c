package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// plan is how much is measured.
type plan struct {
	// rounds of roundPairs pairs of creates, one with and one without the webhook.
	rounds int
	// paced and full are for how long reviews are sent at a pace, and as fast as they are answered.
	paced, full time.Duration
	// quiet is how many locks are granted one after the other.
	quiet int
	// writes is how many Roles and RoleBindings each user makes.
	writes int
	// namespaces is how many have podsPerNamespace pods each that are created at once.
	namespaces int
	// many is how many namespaces have locksPerNamespace times podsPerLock pods beside those.
	many int
}

// results is what one run has found.
type results struct {
	began, ended time.Time
	machine      measure.Machine
	loadAfter    float64 // like machine.Load, with what this program does itself

	creates   creates
	paced     paced
	full      full
	handler   handler
	large     handler // with a large review
	injection injection
	quiet     measure.Sample
	writes    []writes
	storm     storm
	many      many
}

// lab is a cluster with the manager, to measure on.
type lab struct {
	plan plan
	root string // of the repository
	base *rest.Config
	// progress receives a line for people after every measurement.
	progress io.Writer

	client   kubernetes.Interface
	endpoint endpoint
	replicas []replica
}

// measure carries out the plan. Grants come before the load, so that the manager's memory is what they take.
func (l *lab) measure(ctx context.Context) (r results, err error) {
	r.began = time.Now()
	if l.client, err = kubernetes.NewForConfig(l.base); err != nil {
		return r, fmt.Errorf("making a client: %w", err)
	}
	if l.endpoint, err = l.findEndpoint(ctx); err != nil {
		return r, err
	}
	if l.replicas, err = l.findReplicas(ctx); err != nil {
		return r, err
	}
	if r.creates, err = l.measureCreates(ctx); err != nil {
		return r, err
	}
	l.say("pod creates: %s more with the webhook (p50, n = %d)", measure.Duration(r.creates.added.P50()), len(r.creates.added))
	if r.writes, err = l.measureWrites(ctx); err != nil {
		return r, err
	}
	for _, w := range r.writes {
		l.say("RoleBinding by %s: p50 %s", w.who, measure.Duration(w.binding.P50()))
	}
	if r.quiet, err = l.measureQuiet(ctx); err != nil {
		return r, err
	}
	l.say("first grant of a lock: p50 %s (n = %d)", measure.Duration(r.quiet.P50()), len(r.quiet))
	if r.storm, err = l.measureStorm(ctx); err != nil {
		return r, err
	}
	l.say("%d pods at once: the last was granted its lock after %s", len(r.storm.latency), measure.Duration(r.storm.total))
	review, pod, err := l.review(ctx, newPod(createNamespaceName, "reviewed", createAccountName))
	if err != nil {
		return r, err
	}
	if r.paced, err = l.measurePaced(ctx, review); err != nil {
		return r, err
	}
	l.say("%d reviews/s: p99 %s", pace, measure.Duration(r.paced.due.P99()))
	if r.full, err = l.measureFull(ctx, review); err != nil {
		return r, err
	}
	l.say("%d connections: %.0f reviews/s", fullConnections, r.full.rate())
	if r.injection, err = measureInjection(pod); err != nil {
		return r, err
	}
	if r.handler, err = l.measureHandler(ctx, review); err != nil {
		return r, err
	}
	if review, _, err = l.review(ctx, newLargePod(createNamespaceName, "reviewed", createAccountName)); err != nil {
		return r, err
	}
	if r.large, err = l.measureHandler(ctx, review); err != nil {
		return r, err
	}
	l.say("handler alone: %s of CPU time a review, %s a large one (p50)", measure.Duration(r.handler.cpu50), measure.Duration(r.large.cpu50))
	if r.many, err = l.measureMany(ctx); err != nil {
		return r, err
	}
	l.say("%d pods: replicas started anew were ready after %s, and no replica ever took more than %s",
		r.many.pods, measure.Duration(r.many.ready), measure.Megabytes(float64(r.many.peak())))
	r.ended, r.loadAfter = time.Now(), measure.Inspect().Load
	return r, nil
}

func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }

// patience is how long anything is waited for. Nothing takes nearly as long, unless the machine is overloaded.
const patience = 90 * time.Second

// maxPause is longer than any period of the API server that matters here.
const maxPause = 250 * time.Millisecond

// pause lets a random time pass, so that what is measured is in step with nothing.
func pause(ctx context.Context) error { return measure.Sleep(ctx, rand.N(maxPause)) }
