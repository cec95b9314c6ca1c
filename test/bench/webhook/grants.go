package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/test/bench/internal/measure"
)

const (
	quietNamespace = "bench-quiet"
	// podsPerNamespace contend for the one lock of their namespace, each with a ServiceAccount of its own.
	podsPerNamespace = 10
	// creators is how many requests at a time create what the storm is made of.
	creators = 8
)

// grant is the RoleBinding that lets a ServiceAccount touch a Lease.
type grant struct{ namespace, lock, account string }

func (g grant) binding() string { return g.namespace + "/elector:lease:" + g.lock + ":" + g.account }

// bindings notes when RoleBindings were first seen.
type bindings struct {
	watch watch.Interface
	done  chan struct{} // closed when the watch has ended and seen does not change any more

	mu      sync.Mutex
	seen    map[string]time.Time // by namespace/name
	waiting map[string]chan struct{}
}

// watchBindings watches the RoleBindings that the manager makes. They must be closed.
func (l *lab) watchBindings(ctx context.Context) (*bindings, error) {
	options := metav1.ListOptions{LabelSelector: kube.ManagedByLabel + "=" + kube.ManagedBy}
	w, err := l.client.RbacV1().RoleBindings(metav1.NamespaceAll).Watch(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("watching role bindings: %w", err)
	}
	b := &bindings{watch: w, done: make(chan struct{}), seen: map[string]time.Time{}, waiting: map[string]chan struct{}{}}
	go b.run()
	return b, nil
}

func (b *bindings) run() {
	defer close(b.done)
	for event := range b.watch.ResultChan() {
		at := time.Now()
		if binding, ok := event.Object.(*rbacv1.RoleBinding); ok && event.Type == watch.Added {
			b.note(binding.Namespace+"/"+binding.Name, at)
		}
	}
}

func (b *bindings) note(name string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen[name] = at
	if c, ok := b.waiting[name]; ok {
		close(c)
		delete(b.waiting, name)
	}
}

// await returns when the RoleBinding of the grant was seen.
func (b *bindings) await(ctx context.Context, g grant) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b.mu.Lock()
	at, ok := b.seen[g.binding()]
	c := make(chan struct{})
	if !ok {
		b.waiting[g.binding()] = c
	}
	b.mu.Unlock()
	if ok {
		return at, nil
	}
	select {
	case <-c:
	case <-b.done:
		return at, errors.New("the watch of role bindings has ended")
	case <-ctx.Done():
		return at, fmt.Errorf("waiting for role binding %s: %w", g.binding(), context.Cause(ctx))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen[g.binding()], nil
}

func (b *bindings) close() {
	b.watch.Stop()
	<-b.done
}

// request creates an elected pod for the grant and returns when that was sent.
func (l *lab) request(ctx context.Context, g grant) (sent time.Time, err error) {
	sent = time.Now()
	_, err = l.timeCreate(ctx, elected(newPod(g.namespace, g.account, g.account), g.lock))
	return sent, err
}

// measureQuiet creates one pod at a time, each the first of its lock: a Role and a RoleBinding have to be made.
func (l *lab) measureQuiet(ctx context.Context) (took measure.Sample, err error) {
	if err := measure.CreateNamespace(ctx, l.client, quietNamespace); err != nil {
		return nil, err
	}
	b, err := l.watchBindings(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	for i := range l.plan.quiet {
		name := fmt.Sprintf("worker-%d", i)
		g := grant{quietNamespace, name, name}
		if err := errors.Join(measure.CreateAccount(ctx, l.client, g.namespace, g.account), pause(ctx)); err != nil {
			return nil, err
		}
		sent, err := l.request(ctx, g)
		if err != nil {
			return nil, err
		}
		seen, err := b.await(ctx, g)
		if err != nil {
			return nil, err
		}
		took = append(took, seen.Sub(sent))
	}
	return took, nil
}

// storm is what happens when many elected pods are created at once.
type storm struct {
	namespaces int
	latency    measure.Sample // of each pod, from sending its create to its RoleBinding
	created    time.Duration  // from the first create to the answer to the last one
	total      time.Duration  // from the first create to the last RoleBinding
	used       []usage
}

// leader is the replica that writes, standby the other one.
func (s storm) leader() usage  { return s.replica(true) }
func (s storm) standby() usage { return s.replica(false) }

func (s storm) replica(leads bool) usage {
	for _, u := range s.used {
		if u.leads == leads {
			return u
		}
	}
	return usage{leads: leads}
}

func (s storm) perSecond() float64 { return float64(len(s.latency)) / s.total.Seconds() }

func (l *lab) measureStorm(ctx context.Context) (s storm, err error) {
	grants, err := l.prepareStorm(ctx)
	if err != nil {
		return s, err
	}
	b, err := l.watchBindings(ctx)
	if err != nil {
		return s, err
	}
	defer b.close()
	end, err := l.watchReplicas()
	if err != nil {
		return s, err
	}
	sent := make([]time.Time, len(grants))
	began := time.Now()
	if err := parallel(ctx, len(grants), func(ctx context.Context, i int) (err error) {
		sent[i], err = l.request(ctx, grants[i])
		return err
	}); err != nil {
		return s, err
	}
	s.namespaces, s.created = l.plan.namespaces, time.Since(began)
	for i, g := range grants {
		seen, err := b.await(ctx, g)
		if err != nil {
			return s, err
		}
		s.latency = append(s.latency, seen.Sub(sent[i]))
		s.total = max(s.total, seen.Sub(began))
	}
	s.used, err = end()
	return s, err
}

// prepareStorm makes the namespaces and ServiceAccounts. Pods come in the order of namespaces, as from deployments that are made one
// after the other.
func (l *lab) prepareStorm(ctx context.Context) ([]grant, error) {
	namespace := func(i int) string { return fmt.Sprintf("bench-storm-%d", i) }
	if err := parallel(ctx, l.plan.namespaces, func(ctx context.Context, i int) error { return measure.CreateNamespace(ctx, l.client, namespace(i)) }); err != nil {
		return nil, err
	}
	var grants []grant
	for i := range l.plan.namespaces {
		for j := range podsPerNamespace {
			grants = append(grants, grant{namespace(i), "worker", fmt.Sprintf("worker-%d", j)})
		}
	}
	return grants, parallel(ctx, len(grants), func(ctx context.Context, i int) error {
		return measure.CreateAccount(ctx, l.client, grants[i].namespace, grants[i].account)
	})
}

// parallel does n things in order, creators at a time.
func parallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(creators)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}
