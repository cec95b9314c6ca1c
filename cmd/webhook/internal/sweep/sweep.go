// Package sweep removes Leases that nobody needs any more: every Job with a name
// of its own leaves one.
//
// # What is removed
//
// A Lease that elector made (by its label) and nobody gave it (no annotation
// elector.io/adopt), which nobody holds, and for which injected pods contended and
// none has any more, for ten minutes without a break. It is removed in the very
// version that was judged. A ConfigMap goes with its leader's pod anyway.
//
// The pause keeps a rollout that recreates pods, or a CronJob, from making its
// Lease anew each time. Nothing would be lost by that: fencing tokens are numbers
// of writes of the whole datastore, so those of a new Lease are above those of the
// old one, and a candidate that finds no Lease makes one.
//
// # What is not
//
// A Lease that only programs use which have the library built in is left alone: no
// pod of theirs is known here. So is one whose last holder died without having
// released it. What pods contended for is known from the pods that are there, ended
// ones included: if the manager changes between the end of the last pod's object
// and the removal, the Lease stays.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// Config configures a Sweeper.
type Config struct {
	// Locks reads Leases from the API server and deletes them. Required.
	Locks client.Client
	// Candidates are the injected pods. Required.
	Candidates candidates.Source
	// Namespaces are those in which Leases are removed. Default: all.
	Namespaces *locks.Namespaces
}

// Sweeper removes Leases.
type Sweeper struct {
	Config

	mu sync.Mutex
	// used are the locks that pods contended for, with the time since when none does;
	// zero while one does.
	used map[locks.Lock]time.Time
}

const (
	// pause is how long a Lease has to be unused.
	pause = 10 * time.Minute
	// maxRetry bounds the pause after a failed request. There is no hurry.
	maxRetry = time.Minute
	// requestTimeout is for a read and a deletion, below what is left of the
	// manager's lease when its claim ends.
	requestTimeout = 2 * time.Second
	// workers bounds the requests in flight.
	workers = 2
)

// New validates the configuration.
func New(c Config) (*Sweeper, error) {
	if c.Locks == nil || c.Candidates == nil {
		return nil, errors.New("sweep needs a client for locks, and candidates")
	}
	return &Sweeper{Config: c, used: map[locks.Lock]time.Time{}}, nil
}

// Run removes Leases until ctx ends; then no request is in flight any more. It may
// be called again, but not twice at a time.
func (s *Sweeper) Run(ctx context.Context) error {
	s.used = map[locks.Lock]time.Time{}
	return locks.Loop{
		Name: "sweep", Namespaces: s.Namespaces, Reconcile: s.reconcile, Workers: workers, MaxRetry: maxRetry,
		Sources: []source.TypedSource[locks.Lock]{
			locks.Changes(s.Candidates, candidates.Watched(usesLease, func(pod candidates.Pod) any { return pod.Contends() })),
		},
	}.Run(ctx)
}

func usesLease(pod candidates.Pod) bool { return pod.Lock.Mode == elector.ModeLease }

// reconcile removes the lock's Lease if it has not been used for long enough.
func (s *Sweeper) reconcile(ctx context.Context, l locks.Lock) (reconcile.Result, error) {
	if rest, due := s.due(l, s.Candidates.OfLock(l), time.Now()); !due {
		return reconcile.Result{RequeueAfter: rest}, nil
	}
	// What is sent is waited for, also when the claim ends meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	var lease coordinationv1.Lease
	err := s.Locks.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: l.Name}, &lease)
	if apierrors.IsNotFound(err) {
		s.forget(l)
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("getting the lease: %w", err)
	}
	if !locks.Ours(&lease) || locks.Adopted(&lease) || kube.HolderOf(&lease) != "" {
		s.forget(l) // others use it
		return reconcile.Result{}, nil
	}
	err = s.Locks.Delete(ctx, &lease, client.Preconditions{UID: &lease.UID, ResourceVersion: &lease.ResourceVersion})
	if apierrors.IsConflict(err) {
		// Somebody wrote it meanwhile: uses it, or only edits it. No news of that come.
		s.unusedSince(l, time.Now())
		return reconcile.Result{RequeueAfter: pause}, nil
	}
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("deleting the lease: %w", err)
	}
	s.forget(l)
	if err != nil {
		return reconcile.Result{}, nil // somebody else removed it
	}
	klog.FromContext(ctx).Info("removed a Lease that nobody contends for", "unusedFor", pause)
	return reconcile.Result{}, nil
}

// due reports whether the lock has not been used for long enough, and if it may
// be some time, when that is.
func (s *Sweeper) due(l locks.Lock, pods []candidates.Pod, now time.Time) (rest time.Duration, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, known := s.used[l]
	switch {
	case slices.ContainsFunc(pods, candidates.Pod.Contends):
		s.used[l] = time.Time{}
		return 0, false
	case !known && len(pods) == 0:
		return 0, false // no pod of ours, as far as is known
	case since.IsZero():
		s.used[l] = now
		return pause, false
	}
	rest = pause - now.Sub(since)
	return rest, rest <= 0
}

func (s *Sweeper) unusedSince(l locks.Lock, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[l] = since
}

func (s *Sweeper) forget(l locks.Lock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.used, l)
}
