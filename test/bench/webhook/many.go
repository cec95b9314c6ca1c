package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

const (
	manyTemplates = "bench-many"
	// locksPerNamespace have podsPerLock pods each, which share a ServiceAccount, as replicas of a deployment do.
	locksPerNamespace, podsPerLock = 10, 10
)

// settled is how long replicas are left alone that started: in this time the leader looks at every lock.
const settled = 30 * time.Second

// many is what a manager takes that has very many pods to know.
type many struct {
	pods int
	used []usage // from before they were made until all were granted
	// The replicas that were started then.
	ready   time.Duration // from when the first one ran until both were ready and one led
	granted time.Duration // from sending a pod's create then to its grant
	started []usage
}

// peak is the most that a replica took at any time.
func (m many) peak() (most int64) {
	for _, u := range slices.Concat(m.used, m.started) {
		most = max(most, u.after.Peak)
	}
	return most
}

// measureMany makes pods that have the sidecar already, so that the webhook is not called for each, and starts the manager anew beside
// them.
func (l *lab) measureMany(ctx context.Context) (m many, err error) {
	templates, err := l.injectedPods(ctx)
	if err != nil {
		return m, err
	}
	b, err := l.watchBindings(ctx)
	if err != nil {
		return m, err
	}
	defer b.close()
	end, err := l.watchReplicas()
	if err != nil {
		return m, err
	}
	namespace := func(i int) string { return fmt.Sprintf("bench-many-%d", i) }
	err = parallel(ctx, l.plan.many, func(ctx context.Context, i int) error {
		return l.fill(ctx, namespace(i), templates)
	})
	if err != nil {
		return m, err
	}
	m.pods = l.plan.many * locksPerNamespace * podsPerLock
	for i := range l.plan.many {
		for _, t := range templates {
			if _, err := b.await(ctx, grant{namespace(i), t.Spec.ServiceAccountName, t.Spec.ServiceAccountName}); err != nil {
				return m, err
			}
		}
	}
	if m.used, err = end(); err != nil {
		return m, err
	}
	err = l.startAnew(ctx, b, &m)
	return m, err
}

// injectedPods returns a pod for each lock of a namespace, as the webhook leaves it.
func (l *lab) injectedPods(ctx context.Context) (pods []*corev1.Pod, err error) {
	if err := measure.CreateNamespace(ctx, l.client, manyTemplates); err != nil {
		return nil, err
	}
	for i := range locksPerNamespace {
		name := fmt.Sprintf("worker-%d", i)
		if err := measure.CreateAccount(ctx, l.client, manyTemplates, name); err != nil {
			return nil, err
		}
		pod := elected(newPod(manyTemplates, name, name), name)
		if pod, err = l.client.CoreV1().Pods(manyTemplates).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return nil, fmt.Errorf("creating pod %s/%s: %w", manyTemplates, name, err)
		}
		delete(pod.Annotations, enabledAnnotation)
		pod.ObjectMeta = metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}
		pods = append(pods, pod)
	}
	return pods, nil
}

// fill makes a namespace with copies of the pods.
func (l *lab) fill(ctx context.Context, namespace string, templates []*corev1.Pod) error {
	if err := measure.CreateNamespace(ctx, l.client, namespace); err != nil {
		return err
	}
	for _, t := range templates {
		if err := measure.CreateAccount(ctx, l.client, namespace, t.Spec.ServiceAccountName); err != nil {
			return err
		}
		for i := range podsPerLock {
			pod := t.DeepCopy()
			pod.Namespace, pod.Name = namespace, fmt.Sprintf("%s-%d", t.Spec.ServiceAccountName, i)
			if _, err := l.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("creating pod %s/%s: %w", namespace, pod.Name, err)
			}
		}
	}
	return nil
}

// startAnew replaces both replicas at the same time.
func (l *lab) startAnew(ctx context.Context, b *bindings, m *many) error {
	old := map[int]bool{}
	for _, r := range l.replicas {
		old[r.pid] = true
		if err := l.client.CoreV1().Pods(l.endpoint.namespace).Delete(ctx, r.pod, metav1.DeleteOptions{}); err != nil {
			return fmt.Errorf("deleting a pod of the manager: %w", err)
		}
	}
	if err := l.awaitReplicas(ctx, old, m); err != nil {
		return err
	}
	g := grant{manyTemplates, "first", "first"}
	if err := measure.CreateAccount(ctx, l.client, g.namespace, g.account); err != nil {
		return err
	}
	sent, err := l.request(ctx, g)
	if err != nil {
		return err
	}
	seen, err := b.await(ctx, g)
	if err != nil {
		return err
	}
	m.granted = seen.Sub(sent)
	if err := measure.Sleep(ctx, settled); err != nil {
		return err
	}
	m.started, err = l.usedReplicas()
	return err
}

// startPatience is longer than patience: the controller manager has very many pods to know, too, before it makes new ones.
const startPatience = 2 * patience

// awaitReplicas waits for as many other replicas as there are old ones.
func (l *lab) awaitReplicas(ctx context.Context, old map[int]bool, m *many) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("the manager did not start within %s", startPatience))
	defer cancel()
	var began time.Time
	for {
		if err := measure.Sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		found, err := l.listReplicas(ctx)
		if err != nil {
			return err
		}
		found = slices.DeleteFunc(found, func(r replica) bool { return old[r.pid] })
		if len(found) > 0 && began.IsZero() {
			began = time.Now()
		}
		idle := func(r replica) bool { return !r.ready }
		leads := func(r replica) bool { return r.leads }
		if len(found) == len(old) && !slices.ContainsFunc(found, idle) && slices.ContainsFunc(found, leads) {
			l.replicas, m.ready = found, time.Since(began)
			return nil
		}
	}
}
