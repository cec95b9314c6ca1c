//go:build integration

// Package manager tests what the manager does to locks and labels when leaders come and go: the real manager, installed with Helm, on
// a real control plane. Pods are processes of the embedded cluster, whose kubelet is played; what a kubelet and the pod garbage
// collector write into a status is what Kubernetes 1.36 writes.
package manager

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
	"github.com/elector-io/elector/test/judge"
)

// cluster is the one that all tests share. The manager runs on its first node, workloads on the second; the others may be lost.
var cluster *embedded.Cluster

const (
	managerNode = "node-1"
	workNode    = "node-2"
)

// lostNodes may be lost in tests of the mode.
var lostNodes = map[elector.Mode]string{elector.ModeLease: "node-3", elector.ModeLeaderForLife: "node-4"}

// What the chart's admission policies have refused the manager counts as a failure: in all the tests there is nothing that it may not do.
func TestMain(m *testing.M) {
	tests := func() int {
		code := m.Run()
		refused, err := refusals(context.Background())
		if err != nil || len(refused) > 0 {
			fmt.Fprintf(os.Stderr, "admission policies have refused the manager something: %v %v\n", refused, err)
			code = 1
		}
		return code
	}
	os.Exit(embedded.Main(tests, embedded.Config{
		Progress: os.Stdout, Install: true, Nodes: 4, Set: []string{`nodeSelector.kubernetes\.io/hostname=` + managerNode},
	}, &cluster))
}

// refusals are the lines of the API server's metrics that tell what policies have refused.
func refusals(ctx context.Context) (lines []string, err error) {
	const evaluated, denied = "apiserver_validating_admission_policy_check_total{", `enforcement_action="deny"`
	text, err := cluster.Client().Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, evaluated) && strings.Contains(line, denied) {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// patience is how long a test waits for one thing. It is only ever used up by a failure.
const patience = 3 * time.Minute

const (
	roleLabel = "elector.io/role"
	lockName  = "web"
)

// scene is a test's own namespace, in which the pods of one lock, the lock and a Service's EndpointSlices are watched.
type scene struct {
	t    *testing.T
	ns   string
	mode elector.Mode

	begun time.Time

	mu      sync.Mutex
	changed chan struct{}
	pods    map[types.UID]*corev1.Pod
	slices  map[string]*discoveryv1.EndpointSlice
	ended   map[types.UID]time.Time // when a pod's phase was seen to be terminal
	writes  int                     // of the lock
	holders []seen                  // of the lock, empty when it is free
	labels  []seen                  // UIDs of pods labelled leader, one after the other
	byLabel judge.Lock              // by their label
	most    int                     // endpoints in a Service's slices at one moment
	faults  []string
}

type seen struct {
	what string
	at   time.Time
}

// newScene makes the namespace and begins to watch. The invariants are checked at the end of the test, unless one expects faults.
func newScene(t *testing.T, mode elector.Mode) *scene {
	t.Helper()
	s := &scene{
		t: t, mode: mode, ns: strings.ToLower(strings.NewReplacer("Test", "", "/", "-", "_", "-").Replace(t.Name())),
		begun: time.Now(), byLabel: judge.Lock{Tokenless: true},
		changed: make(chan struct{}), pods: map[types.UID]*corev1.Pod{}, slices: map[string]*discoveryv1.EndpointSlice{}, ended: map[types.UID]time.Time{},
	}
	client := cluster.Client()
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ServiceAccounts(s.ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: lockName}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var watching sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		watching.Wait()
		for _, fault := range s.faults {
			t.Error(fault)
		}
		for _, violation := range s.byLabel.Violations() {
			t.Error("by the label of pods:", violation)
		}
		if t.Failed() {
			s.describe()
		}
		if err := client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), s.ns, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	follow := func(w watch.Interface, err error, see func(watch.Event)) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		watching.Go(func() {
			defer w.Stop()
			for event := range w.ResultChan() {
				s.mu.Lock()
				if _, failed := event.Object.(*metav1.Status); failed && ctx.Err() == nil {
					s.faults = append(s.faults, fmt.Sprintf("a watch failed: %v", event.Object))
				} else if !failed {
					see(event)
				}
				close(s.changed)
				s.changed = make(chan struct{})
				s.mu.Unlock()
			}
		})
	}
	pods, err := client.CoreV1().Pods(s.ns).Watch(ctx, metav1.ListOptions{LabelSelector: "app=" + lockName})
	follow(pods, err, s.seePod)
	endpoints, err := client.DiscoveryV1().EndpointSlices(s.ns).Watch(ctx, metav1.ListOptions{})
	follow(endpoints, err, s.seeSlice)
	named := metav1.ListOptions{FieldSelector: "metadata.name=" + lockName}
	if mode == elector.ModeLeaderForLife {
		w, err := client.CoreV1().ConfigMaps(s.ns).Watch(ctx, named)
		follow(w, err, s.seeLock)
	} else {
		w, err := client.CoordinationV1().Leases(s.ns).Watch(ctx, named)
		follow(w, err, s.seeLock)
	}
	return s
}

func (s *scene) seePod(event watch.Event) {
	pod := event.Object.(*corev1.Pod)
	before, now := labelledLeader(s.pods[pod.UID]), event.Type != watch.Deleted && labelledLeader(pod)
	switch at := time.Since(s.begun); {
	case now && !before:
		s.byLabel.Began(string(pod.UID), 0, at)
	case before && !now:
		s.byLabel.Ended(string(pod.UID), at)
	}
	if s.pods[pod.UID] = pod; event.Type == watch.Deleted {
		delete(s.pods, pod.UID)
	}
	if _, known := s.ended[pod.UID]; !known && (pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded) {
		s.ended[pod.UID] = time.Now()
	}
	var leaders []string
	for uid, pod := range s.pods {
		if labelledLeader(pod) {
			leaders = append(leaders, string(uid))
		}
	}
	note(&s.labels, strings.Join(leaders, " "))
}

func labelledLeader(pod *corev1.Pod) bool { return pod != nil && pod.Labels[roleLabel] == "leader" }

func (s *scene) seeSlice(event watch.Event) {
	slice := event.Object.(*discoveryv1.EndpointSlice)
	if s.slices[slice.Name] = slice; event.Type == watch.Deleted {
		delete(s.slices, slice.Name)
	}
	n := 0
	for _, slice := range s.slices {
		n += len(slice.Endpoints)
	}
	if s.most = max(s.most, n); n > 1 {
		s.faults = append(s.faults, fmt.Sprintf("the Service has %d endpoints at %s", n, time.Now().Format(time.StampMilli)))
	}
}

func (s *scene) seeLock(event watch.Event) {
	s.writes++
	note(&s.holders, holderOf(event))
}

func holderOf(event watch.Event) string {
	if event.Type == watch.Deleted {
		return ""
	}
	if lease, ok := event.Object.(*coordinationv1.Lease); ok {
		if lease.Spec.HolderIdentity == nil {
			return ""
		}
		return *lease.Spec.HolderIdentity
	}
	for _, owner := range event.Object.(metav1.Object).GetOwnerReferences() {
		return elector.Identity(owner.Name, string(owner.UID))
	}
	return ""
}

// note adds what differs from the last.
func note(list *[]seen, what string) {
	if last(*list).what != what {
		*list = append(*list, seen{what, time.Now()})
	}
}

func last(list []seen) seen {
	if len(list) == 0 {
		return seen{}
	}
	return list[len(list)-1]
}

// await waits until check, which may look at everything in the scene, returns no error.
func (s *scene) await(what string, check func() error) {
	s.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		changed, missing := s.changed, check()
		s.mu.Unlock()
		if missing == nil {
			return
		}
		select {
		case <-changed:
		case <-cluster.Ended():
			s.t.Fatalf("%s: the cluster is gone, %v", what, missing)
		case <-timeout.C:
			s.t.Fatalf("%s: not within %s: %v", what, patience, missing)
		}
	}
}

// poll waits for what is not watched.
func (s *scene) poll(what string, check func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-cluster.Ended():
			s.t.Fatalf("%s: the cluster is gone, %v", what, err)
		case <-ctx.Done():
			s.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

func (s *scene) describe() {
	s.t.Helper()
	cluster.Show(s.t, s.ns,
		[]string{"get", "pods,leases,configmaps", "-o", "wide", "--show-labels"},
		[]string{"get", "events"},
		[]string{"logs", "-l", inject.LabelInjected + "=true", "-c", inject.ContainerName, "--prefix", "--tail", "30"},
	)
	cluster.Show(s.t, "elector-system", []string{"logs", "-l", "app.kubernetes.io/name=elector", "--prefix", "--tail", "60"})
}

// annotations asks for the sidecar; more are name, value pairs.
func (s *scene) annotations(more ...string) map[string]string {
	a := map[string]string{
		inject.Prefix + "enabled": "true", inject.Prefix + elector.FieldMode: string(s.mode), inject.Prefix + elector.FieldLock: lockName,
	}
	for i := 0; i < len(more); i += 2 {
		a[inject.Prefix+more[i]] = more[i+1]
	}
	return a
}

// A lease that does not run out during a test: who gets it was given it.
var long = []string{elector.FieldLeaseDuration, "10m", elector.FieldRenewDeadline, "9m", elector.FieldRetryPeriod, "5s"}

// sleeper is an app that works until it is asked to stop.
const sleeper = `trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done`

func (s *scene) spec(script string) corev1.PodSpec {
	return corev1.PodSpec{
		ServiceAccountName:            lockName,
		NodeSelector:                  map[string]string{corev1.LabelHostname: workNode},
		TerminationGracePeriodSeconds: new(int64(1)),
		Containers:                    []corev1.Container{{Name: "app", Image: "shell", Command: []string{"sh", "-c", script}}},
	}
}

func (s *scene) template(spec corev1.PodSpec, more ...string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": lockName}, Annotations: s.annotations(more...)},
		Spec:       spec,
	}
}

// deploy makes a Deployment and waits for its leader to be labelled.
func (s *scene) deploy(replicas int, spec corev1.PodSpec, more ...string) {
	s.t.Helper()
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: lockName},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(replicas)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": lockName}},
			Template: s.template(spec, more...),
		},
	}
	if _, err := cluster.Client().AppsV1().Deployments(s.ns).Create(s.t.Context(), d, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.awaitLabels("", replicas)
}

// pod makes a pod that is not restarted.
func (s *scene) pod(name, script string, more ...string) {
	s.t.Helper()
	spec := s.spec(script)
	spec.RestartPolicy = corev1.RestartPolicyNever
	template := s.template(spec, more...)
	template.Name = name
	_, err := cluster.Client().CoreV1().Pods(s.ns).Create(s.t.Context(), &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

// awaitLabels waits until the lock has another holder than the named one, whose pod is labelled leader, and so many pods in all are
// ready, the others of which are labelled standby. It returns the leader.
func (s *scene) awaitLabels(not types.UID, replicas int) (leader *corev1.Pod) {
	s.t.Helper()
	s.await("roles", func() error {
		leader = nil
		standbys, now := 0, last(s.holders).what
		for _, pod := range s.pods {
			identity, role := elector.Identity(pod.Name, string(pod.UID)), pod.Labels[roleLabel]
			switch {
			case identity == now && pod.UID != not && role == "leader":
				leader = pod
			case identity != now && role == "standby" && ready(pod):
				standbys++
			}
		}
		if leader == nil || !ready(leader) || standbys != replicas-1 {
			return fmt.Errorf("%q holds the lock, the leader is %v, %d standbys are ready", now, leader != nil, standbys)
		}
		return nil
	})
	return leader
}

// awaitSuccessor waits for another holder than the pod and returns when it was seen to be one.
func (s *scene) awaitSuccessor(pod *corev1.Pod) (at time.Time) {
	s.t.Helper()
	s.await("another holder", func() error {
		h := last(s.holders)
		if at = h.at; h.what == "" || h.what == elector.Identity(pod.Name, string(pod.UID)) {
			return fmt.Errorf("the holder is %q", h.what)
		}
		return nil
	})
	return at
}

func (s *scene) control(action embedded.Action, pod *corev1.Pod) {
	s.t.Helper()
	if err := cluster.Control(s.t.Context(), action, s.ns, pod.Name); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) deletePod(pod *corev1.Pod, options metav1.DeleteOptions) {
	s.t.Helper()
	err := cluster.Client().CoreV1().Pods(s.ns).Delete(s.t.Context(), pod.Name, options)
	if err != nil && !apierrors.IsNotFound(err) {
		s.t.Fatal(err)
	}
}

var byForce = metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
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

// wire is the address at which a pod of the embedded cluster really listens.
func wire(podIP string) string {
	_, rest, _ := strings.Cut(podIP, ".")
	return "127." + rest
}
