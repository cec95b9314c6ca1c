//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
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
	"github.com/elector-io/elector/test/history"
	"github.com/elector-io/elector/test/witness"
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
	return corev1.PodSpec{
		// Its absence in the app shows that the sidecar has a token of its own.
		AutomountServiceAccountToken: new(false),
		Containers: []corev1.Container{{
			Name: app, Image: "witness", Command: []string{cluster.Program("witness"), "-address="},
			Env: []corev1.EnvVar{{Name: "GOMAXPROCS", Value: "1"}},
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

// election follows the pods of one Deployment and what their apps tell. At the end of the test it checks that claims did not overlap
// and that fencing tokens grew.
type election struct {
	*space
	name string // of the Deployment

	mu      sync.Mutex
	pods    map[string]*corev1.Pod    // that are there
	told    map[string][]witness.Line // by pod, also of those that are gone
	sights  map[string][]sight        // likewise
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
		pods: map[string]*corev1.Pod{}, told: map[string][]witness.Line{}, sights: map[string][]sight{}, crashed: map[string]time.Time{},
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
		var l witness.Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			e.change(func() { e.failed = fmt.Errorf("the witness in %s wrote %q: %w", pod, lines.Text(), err) })
			return
		}
		var seen sight
		if l.Event == witness.EventSees {
			seen = sight{Leads: l.Leads, Name: l.Name, At: l.Clock}
			if err := json.Unmarshal(l.Status, &seen.Status); err != nil {
				e.change(func() { e.failed = fmt.Errorf("status.json in %s is %q: %w", pod, l.Status, err) })
				return
			}
		}
		e.change(func() {
			if e.told[pod] = append(e.told[pod], l); l.Event == witness.EventSees {
				e.sights[pod] = append(e.sights[pod], seen)
			}
		})
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

// sight is what an app saw in its status directory at one moment.
type sight struct {
	// Leads tells whether the leader file was there, Name what was in it.
	Leads bool
	Name  string
	// Status is status.json.
	Status elector.Status
	// At is when, on the clock of witnesses.
	At time.Duration
}

// last is what an app sees now.
func (e *election) last(pod string) sight {
	if all := e.sights[pod]; len(all) > 0 {
		return all[len(all)-1]
	}
	return sight{}
}

// started is what the app found when it started.
func (e *election) started(pod string) (found witness.Found, wrote string) {
	for _, l := range e.told[pod] {
		switch l.Event {
		case witness.EventStarted:
			found = *l.Found
		case witness.EventWrite:
			wrote = l.Note
		}
	}
	return found, wrote
}

// claims are what all apps have seen in one way of looking.
func (e *election) claims(by witness.By) (all []history.Claim) {
	for pod, lines := range e.told {
		all = append(all, history.SeenIn(lines, by, pod)...)
	}
	return all
}

// check asks the judge in each way of looking, also of the bare leader file: no sidecar is frozen here beside an app that is not.
func (e *election) check() {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		e.t.Error(e.failed)
	}
	for _, by := range []witness.By{witness.ByFile, witness.ByStatus, witness.ByHTTP} {
		for _, fault := range history.Check(e.claims(by)).Faults {
			e.t.Errorf("by %s: %s", by, fault)
		}
	}
}

// names of the pods, sorted.
func (e *election) names() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.pods))
}

// claimsSince returns the claims that apps have seen since a time, as careful apps do, those of one pod apart.
func (e *election) claimsSince(start time.Duration, not string) []history.Claim {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(e.claims(witness.ByStatus), func(c history.Claim) bool { return c.UID == not || c.Begin < start })
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
