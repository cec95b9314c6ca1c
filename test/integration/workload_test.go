//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

const (
	replicas = 3
	app      = "app" // the name of the app's container
)

// deployment is a plain one, whose app is the witness.
func (s *space) deployment(name string, annotations map[string]string) *appsv1.Deployment {
	s.t.Helper()
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(replicas)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations},
				Spec:       s.podSpec(),
			},
		},
	}
}

func (s *space) podSpec() corev1.PodSpec {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	return corev1.PodSpec{
		// Its absence in the app shows that the sidecar has a token of its own.
		AutomountServiceAccountToken: new(false),
		Containers: []corev1.Container{{
			Name: app, Image: "witness", Command: []string{self},
			Env: []corev1.EnvVar{{Name: witnessVariable, Value: "1"}, {Name: "GOMAXPROCS", Value: "1"}},
		}},
	}
}

// annotations asks for the sidecar; more are name, value pairs.
func annotations(mode elector.Mode, more ...string) map[string]string {
	a := map[string]string{inject.Prefix + "enabled": "true", inject.Prefix + elector.FieldMode: string(mode)}
	for pair := range slices.Chunk(more, 2) {
		a[inject.Prefix+pair[0]] = pair[1]
	}
	return a
}

// election follows the pods of one Deployment and what their apps see. At the end of the test it checks that claims did not overlap
// and that fencing tokens grew.
type election struct {
	*space
	name string // of Deployment and lock

	mu      sync.Mutex
	pods    map[string]*corev1.Pod // that are there
	sights  map[string][]sight     // by pod, also of those that are gone
	crashed map[string]time.Time
	changed chan struct{} // closed and replaced with every change
	failed  error
}

// elect creates the Deployment and waits until all its replicas are ready and one of them leads.
func (s *space) elect(d *appsv1.Deployment) *election {
	s.t.Helper()
	e := s.follow(d.Name)
	if _, err := cluster.Client().AppsV1().Deployments(s.name).Create(s.t.Context(), d, metav1.CreateOptions{}); err != nil {
		s.t.Fatal("making the Deployment:", err)
	}
	e.awaitReady()
	e.awaitLeader("")
	return e
}

// follow begins to watch the pods of a Deployment.
func (s *space) follow(name string) *election {
	s.t.Helper()
	e := &election{
		space: s, name: name, changed: make(chan struct{}),
		pods: map[string]*corev1.Pod{}, sights: map[string][]sight{}, crashed: map[string]time.Time{},
	}
	// Not the test's context, which ends before the cleanup that checks.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	pods, err := cluster.Client().CoreV1().Pods(s.name).Watch(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		cancel()
		s.t.Fatal("watching pods:", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		followed := map[string]bool{}
		for event := range pods.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				if ctx.Err() != nil {
					return
				}
				e.change(func() { e.failed = fmt.Errorf("watching pods: %v", event.Object) })
				return
			}
			e.change(func() {
				if e.pods[pod.Name] = pod; event.Type == watch.Deleted {
					delete(e.pods, pod.Name)
				}
			})
			if injected(pod) && running(pod) && !followed[pod.Name] {
				followed[pod.Name] = true
				wg.Go(func() { e.followLog(ctx, pod.Name) })
			}
		}
	})
	s.t.Cleanup(func() {
		cancel()
		wg.Wait()
		e.check()
	})
	return e
}

func injected(pod *corev1.Pod) bool { return pod.Labels[inject.LabelInjected] == "true" }

func running(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == app && c.State.Running != nil })
}

func ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// sidecarOf returns the state of the pod's sidecar.
func sidecarOf(pod *corev1.Pod) corev1.ContainerStatus {
	for _, c := range pod.Status.InitContainerStatuses {
		if c.Name == inject.ContainerName {
			return c
		}
	}
	return corev1.ContainerStatus{}
}

// pidOf is the process of the pod's sidecar on this machine.
func (e *election) pidOf(pod string) int {
	e.t.Helper()
	e.mu.Lock()
	id := sidecarOf(e.pods[pod]).ContainerID
	e.mu.Unlock()
	pid, err := strconv.Atoi(strings.TrimPrefix(id, "process://"))
	if err != nil {
		e.t.Fatalf("the sidecar of %s is %q, no process", pod, id)
	}
	return pid
}

func (e *election) followLog(ctx context.Context, pod string) {
	log, err := cluster.Client().CoreV1().Pods(e.space.name).GetLogs(pod, &corev1.PodLogOptions{Container: app, Follow: true}).Stream(ctx)
	if err != nil {
		if ctx.Err() == nil {
			e.change(func() { e.failed = fmt.Errorf("reading the log of %s: %w", pod, err) })
		}
		return
	}
	defer log.Close()
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var s sight
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			e.change(func() { e.failed = fmt.Errorf("the witness in %s wrote %q: %w", pod, lines.Text(), err) })
			return
		}
		e.change(func() { e.sights[pod] = append(e.sights[pod], s) })
	}
}

func (e *election) change(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do()
	close(e.changed)
	e.changed = make(chan struct{})
}

// await waits until check, which may look at everything in e, finds nothing missing.
func (e *election) await(what string, check func() error) {
	e.t.Helper()
	if err := e.awaitFor(embedded.Patience, check); err != nil {
		e.t.Fatalf("%s: %v", what, err)
	}
}

func (e *election) awaitFor(d time.Duration, check func() error) error {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	for {
		e.mu.Lock()
		changed, failed, missing := e.changed, e.failed, check()
		e.mu.Unlock()
		if failed != nil || missing == nil {
			return failed
		}
		select {
		case <-changed:
		case <-cluster.Ended():
			return fmt.Errorf("the cluster is gone, %w", missing)
		case <-timeout.C:
			return fmt.Errorf("not within %s: %w", d, missing)
		}
	}
}

// awaitReady waits until as many pods as should are ready, and no others are there.
func (e *election) awaitReady() {
	e.t.Helper()
	e.await("pods to be ready", func() error {
		n := 0
		for _, pod := range e.pods {
			if ready(pod) {
				n++
			}
		}
		if n != replicas || len(e.pods) != replicas {
			return fmt.Errorf("%d of %d pods are ready", n, len(e.pods))
		}
		return nil
	})
}

// awaitLeader waits until exactly one app sees itself lead, it is not the one named, and all the others know it. It returns the
// leader's name and what its app sees.
func (e *election) awaitLeader(not string) (leader string, seen sight) {
	e.t.Helper()
	e.await("a leader", func() error {
		leader = ""
		for name := range e.pods {
			if last := e.last(name); last.Leads && name != not {
				if leader != "" {
					return fmt.Errorf("%s and %s lead", leader, name)
				}
				leader, seen = name, last
			}
		}
		if leader == "" {
			return fmt.Errorf("nobody else than %q leads", not)
		}
		for name := range e.pods {
			if e.crashed[name].IsZero() && name != not && e.last(name).Status.Leader != leader {
				return fmt.Errorf("%s leads, but %s knows %q", leader, name, e.last(name).Status.Leader)
			}
		}
		return nil
	})
	return leader, seen
}

// last is what an app sees now.
func (e *election) last(pod string) sight {
	if s := e.sights[pod]; len(s) > 0 {
		return s[len(s)-1]
	}
	return sight{}
}

// claim is a period in which an app saw the leader file.
type claim struct {
	pod      string
	from, to time.Time // to is zero while it lasts
	token    uint64
}

// claims returns all claims in the order of their beginnings.
func (e *election) claims() []claim {
	var all []claim
	for pod, sights := range e.sights {
		var open *claim
		for _, s := range sights {
			if open != nil && !s.Leads {
				open.to = s.At
				all, open = append(all, *open), nil
			}
			if open == nil && s.Leads {
				open = &claim{pod: pod, from: s.At, token: s.Status.FencingToken}
			}
		}
		if open != nil {
			open.to = e.crashed[pod]
			all = append(all, *open)
		}
	}
	slices.SortFunc(all, func(a, b claim) int { return a.from.Compare(b.from) })
	return all
}

// lateness is how much later than it happens a witness may see something on a busy machine. Two leaders for a shorter time than
// this go unnoticed here; the simulation in test/sim has a clock that does not know lateness.
const lateness = 500 * time.Millisecond

// check finds claims that overlap and fencing tokens that do not grow.
func (e *election) check() {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		e.t.Error(e.failed)
	}
	all := e.claims()
	for i, old := range all {
		for _, next := range all[i+1:] {
			if next.pod == old.pod {
				if next.token < old.token {
					e.t.Errorf("the fencing token of %s shrank from %d to %d", next.pod, old.token, next.token)
				}
				continue
			}
			if old.to.IsZero() || old.to.After(next.from.Add(lateness)) {
				e.t.Errorf("two leaders: %s from %s to %s, %s from %s", old.pod, clock(old.from), clock(old.to), next.pod, clock(next.from))
			}
			if next.token <= old.token {
				e.t.Errorf("the fencing token did not grow: %d of %s, then %d of %s", old.token, old.pod, next.token, next.pod)
			}
		}
	}
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "now"
	}
	return t.Format("15:04:05.000")
}

// names of the pods, sorted.
func (e *election) names() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.pods))
}

// claimsSince returns the claims that began after a time, those of one pod apart.
func (e *election) claimsSince(start time.Time, not string) []claim {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(e.claims(), func(c claim) bool { return c.pod == not || c.from.Before(start) })
}

// modes runs a test in both.
func modes(t *testing.T, test func(t *testing.T, mode elector.Mode)) {
	t.Helper()
	t.Parallel()
	for _, mode := range []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			test(t, mode)
		})
	}
}
