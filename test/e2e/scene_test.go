//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/history"
	"github.com/elector-io/elector/test/witness"
)

// patience is how long a test waits for one thing. It is only ever used up by a failure.
const patience = 2 * time.Minute

// The timing of most elections here.
const (
	leaseDuration = 6 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = time.Second
)

// defaults are elector's own, for leaders that must get through what is done to them on a slow machine.
var defaults = []string{
	elector.FieldLeaseDuration, elector.DefaultLeaseDuration.String(), elector.FieldRenewDeadline, elector.DefaultRenewDeadline.String(),
	elector.FieldRetryPeriod, elector.DefaultRetryPeriod.String(),
}

const (
	modeLease = elector.ModeLease
	modeLife  = elector.ModeLeaderForLife
)

// lock is the name of most locks here.
const lock = "web"

// account is the ServiceAccount of the pods: the grant of the namespace's default would be everybody's.
const account = "app"

// scene is a test's own namespace.
type scene struct {
	t    *testing.T
	name string // of the scenario, for people
	ns   string
	mode elector.Mode // of the election, where there is one

	mu      sync.Mutex
	pods    map[types.UID]*corev1.Pod // that are there
	holders map[string][]holder       // of a lock, in order
}

// holder is who was seen to hold a lock, and since when; empty when nobody did.
type holder struct {
	identity string
	at       time.Duration
}

func newScene(t *testing.T, name string, mode elector.Mode, labels ...string) *scene {
	t.Helper()
	_, base, _ := strings.Cut(t.Name(), "/")
	ns := strings.ToLower(strings.NewReplacer("together/", "", "meanwhile/", "", "apart/", "", "alone/", "", "/", "-", "_", "-").Replace(base))
	if !strings.HasSuffix(ns, string(mode)) {
		ns += "-" + string(mode) // a test may have a scene in each
	}
	s := &scene{t: t, name: name, ns: ns, mode: mode, pods: map[types.UID]*corev1.Pod{}, holders: map[string][]holder{}}
	marks := map[string]string{markLabel: "true"}
	for pair := range slices.Chunk(labels, 2) {
		marks[pair[0]] = pair[1]
	}
	_, err := world.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.ns, Labels: marks}}, metav1.CreateOptions{})
	s.ok(err)
	_, err = world.client.CoreV1().ServiceAccounts(s.ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	s.ok(err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	factory := informers.NewSharedInformerFactoryWithOptions(world.client, 0, informers.WithNamespace(s.ns))
	s.follow(factory.Core().V1().Pods().Informer(), s.seePod)
	s.follow(factory.Coordination().V1().Leases().Informer(), s.seeLock)
	s.follow(factory.Core().V1().ConfigMaps().Informer(), s.seeLock)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() {
		if t.Failed() {
			s.keepLogs()
		}
		cancel()
		factory.Shutdown()
		// Nobody waits for it: its last claims end with the suite's check, which does.
		err := world.client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), s.ns, metav1.DeleteOptions{})
		if err != nil {
			t.Error(err)
		}
	})
	s.step("namespace %s", s.ns)
	return s
}

func (s *scene) follow(informer cache.SharedIndexInformer, see func(object metav1.Object, gone bool)) {
	s.t.Helper()
	handle := func(object any, gone bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		see(object.(metav1.Object), gone)
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { handle(object, false) },
		UpdateFunc: func(_, object any) { handle(object, false) },
		DeleteFunc: func(object any) { handle(object, true) },
	})
	s.ok(err)
}

func (s *scene) seePod(object metav1.Object, gone bool) {
	if s.pods[object.GetUID()] = object.(*corev1.Pod); gone {
		delete(s.pods, object.GetUID())
	}
}

func (s *scene) seeLock(object metav1.Object, gone bool) {
	now := holder{at: boot()}
	switch lock := object.(type) {
	case *coordinationv1.Lease:
		if lock.Spec.HolderIdentity != nil {
			now.identity = *lock.Spec.HolderIdentity
		}
	default:
		for _, owner := range object.GetOwnerReferences() {
			now.identity = elector.Identity(owner.Name, string(owner.UID))
		}
		if now.identity == "" {
			return // not a lock
		}
	}
	if gone {
		now.identity = ""
	}
	name := workloadOf(object.GetName())
	if all := s.holders[name]; len(all) == 0 || all[len(all)-1].identity != now.identity {
		s.holders[name] = append(all, now)
	}
}

// workloadOf is the workload that a lock has its name from. Scenarios call a lock by it in both modes.
func workloadOf(lock string) string { return strings.TrimSuffix(lock, "-lock") }

func (s *scene) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) step(format string, args ...any) {
	tell(s.ns, fmt.Sprintf(format, args...))
}

func (s *scene) figure(measured, value string) { figure(s.name, string(s.mode), measured, value) }

// await waits until check, which may look at what is watched, returns no error.
func (s *scene) await(what string, check func() error) {
	s.t.Helper()
	err := poll(s.t.Context(), patience, 20*time.Millisecond, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return check()
	})
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// poll waits for what is not watched.
func (s *scene) poll(what string, check func() error) {
	s.t.Helper()
	if err := poll(s.t.Context(), patience, 400*time.Millisecond, check); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// stays fails unless check returns no error for a while.
func (s *scene) stays(what string, d time.Duration, check func() error) {
	s.t.Helper()
	over := time.NewTimer(d)
	defer over.Stop()
	tick := time.NewTicker(400 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := check(); err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-tick.C:
		case <-over.C:
			return
		}
	}
}

// annotations ask for the sidecar; more are name, value pairs.
func annotations(mode elector.Mode, more ...string) map[string]string {
	a := map[string]string{
		inject.Prefix + "enabled": "true", inject.Prefix + elector.FieldMode: string(mode),
		inject.Prefix + elector.FieldLeaseDuration: leaseDuration.String(), inject.Prefix + elector.FieldRenewDeadline: renewDeadline.String(),
		inject.Prefix + elector.FieldRetryPeriod: retryPeriod.String(),
	}
	for pair := range slices.Chunk(more, 2) {
		a[inject.Prefix+pair[0]] = pair[1]
	}
	return a
}

// podTemplate is one of the application, without annotations.
func podTemplate(name string, args ...string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			ServiceAccountName:            account,
			TerminationGracePeriodSeconds: new(int64(10)),
			Containers: []corev1.Container{{
				Name: "app", Image: appImage, Args: args, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			}},
		},
	}
}

// deploy makes a Deployment whose pods ask for the sidecar.
func (s *scene) deploy(name string, replicas int, change func(*corev1.PodTemplateSpec), more ...string) {
	s.t.Helper()
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(replicas)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: podTemplate(name),
		},
	}
	d.Spec.Template.Annotations = annotations(s.mode, more...)
	if change != nil {
		change(&d.Spec.Template)
	}
	_, err := world.client.AppsV1().Deployments(s.ns).Create(s.t.Context(), d, metav1.CreateOptions{})
	s.ok(err)
}

// on pins pods to a node, be it the control plane's, and lets them stay on one that is lost.
func on(n *node) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		t.Spec.NodeSelector = map[string]string{corev1.LabelHostname: n.name}
		t.Spec.Tolerations = append(t.Spec.Tolerations, corev1.Toleration{Key: "node-role.kubernetes.io/control-plane", Operator: corev1.TolerationOpExists})
		for _, taint := range []string{corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady} {
			t.Spec.Tolerations = append(t.Spec.Tolerations, corev1.Toleration{Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
		}
	}
}

// lead is the pod that holds the lock, if so many are ready in all. The scene is locked.
func (s *scene) lead(lock string, ready int) (*corev1.Pod, error) {
	n := 0
	var leader *corev1.Pod
	holders := s.holders[lock]
	for _, pod := range s.pods {
		if isReady(pod) && pod.DeletionTimestamp == nil {
			n++
			if len(holders) > 0 && holders[len(holders)-1].identity == identity(pod) {
				leader = pod
			}
		}
	}
	if leader == nil || n < ready {
		return nil, fmt.Errorf("%s was held by %v, %d pods are ready", lock, holders, n)
	}
	return leader, nil
}

// leader waits for a living pod to hold the lock and for so many to be ready in the namespace.
func (s *scene) leader(lock string, ready int) (leader *corev1.Pod) {
	s.t.Helper()
	s.await("a leader among "+strconv.Itoa(ready), func() (err error) {
		leader, err = s.lead(lock, ready)
		return err
	})
	s.step("%s leads on %s, %d pods are ready", leader.Name, leader.Spec.NodeName, ready)
	return leader
}

func identity(pod *corev1.Pod) string { return elector.Identity(pod.Name, string(pod.UID)) }

// successor waits for another than the pod to hold the lock.
func (s *scene) successor(lock string, pod *corev1.Pod) {
	s.t.Helper()
	var h holder
	s.await("a successor of "+pod.Name, func() error {
		if all := s.holders[lock]; len(all) > 0 {
			h = all[len(all)-1]
		}
		if h.identity == "" || h.identity == identity(pod) {
			return fmt.Errorf("the holder is %q", h.identity)
		}
		return nil
	})
	s.step("%s holds %s", elector.NameOf(h.identity), lock)
}

// heldBy returns an error unless the pod holds the scene's lock now, by the API server's word.
func (s *scene) heldBy(pod *corev1.Pod) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.holders[lock]
	if len(all) == 0 || all[len(all)-1].identity != identity(pod) {
		return fmt.Errorf("%s was held by %v, not by %s", lock, all, pod.Name)
	}
	return nil
}

// past is what the logs of a namespace tell.
type past struct {
	logs []history.Log
	// made is the sidecars' view, seen the applications', and heard what they were told by HTTP.
	made, seen, heard []history.Claim
}

func (s *scene) past() past {
	s.t.Helper()
	p, err := readPast(s.ns)
	s.ok(err)
	return p
}

func readPast(namespace string) (past, error) {
	logs, err := allLogs(namespace)
	if err != nil {
		return past{}, err
	}
	deaths.Lock()
	defer deaths.Unlock()
	return past{
		logs: logs, made: history.Made(logs, deaths.list), seen: history.Seen(logs, witness.ByStatus), heard: history.Seen(logs, witness.ByHTTP),
	}, nil
}

// last is the last claim on the lock by the pod, or by anybody else if not is set, in one of the two views.
func last(claims []history.Claim, lock string, uid types.UID, not bool) (c history.Claim, err error) {
	err = fmt.Errorf("no claim of %s in %d", uid, len(claims))
	for i := range claims {
		if _, name, _ := strings.Cut(claims[i].Lock, "/"); workloadOf(name) == lock && (claims[i].UID == string(uid)) != not {
			c, err = claims[i], nil
		}
	}
	return c, err
}

// event is when the pod's app logged it last, of leadership in a careful app's view.
func (p past) event(uid types.UID, event string) (line witness.Line, err error) {
	err = fmt.Errorf("the app of %s did not log %q", uid, event)
	for i := range p.logs {
		if p.logs[i].UID != string(uid) {
			continue
		}
		for _, l := range p.logs[i].Lines() {
			if l.Event == event && (l.By == "" || l.By == witness.ByStatus) {
				line, err = l, nil
			}
		}
	}
	return line, err
}

// stopped waits for the last word of one of the pod's witnesses, which may be read later than what came after it, and returns when it was.
func (s *scene) stopped(pod *corev1.Pod, container string) (clock time.Duration) {
	s.t.Helper()
	s.poll("the last word of "+container+" in "+pod.Name, func() error {
		logs := s.past().logs
		for i := range logs {
			if logs[i].UID != string(pod.UID) || logs[i].Container != container {
				continue
			}
			for _, line := range logs[i].Lines() {
				if line.Event == witness.EventStops {
					clock = line.Clock
					return nil
				}
			}
		}
		return errors.New("it has not been said")
	})
	return clock
}

// succession waits until the app of another pod has seen that it leads, and returns the claim before, in the sidecar's view, and
// the one after, in the sidecar's and the app's.
func (s *scene) succession(lock string, old *corev1.Pod) (before, after, seen history.Claim) {
	s.t.Helper()
	s.poll("the next leader's app", func() (err error) {
		p := s.past()
		if before, err = last(p.made, lock, old.UID, false); err != nil {
			return err
		}
		if after, err = last(p.made, lock, old.UID, true); err != nil {
			return err
		}
		if seen, err = last(p.seen, lock, types.UID(after.UID), false); err != nil {
			return err
		}
		if after.Begin < before.Begin || seen.Token != after.Token {
			return fmt.Errorf("the last claims are %s, %s, %s", &before, &after, &seen)
		}
		// One log may be ahead of the other: until it is read that a claim has ended it seems to last as long as it was promised.
		if faults := history.Check([]history.Claim{before, after}).Faults; len(faults) > 0 {
			return fmt.Errorf("the claims are at fault: %v", faults)
		}
		return nil
	})
	return before, after, seen
}

func (s *scene) remove(pod *corev1.Pod) {
	s.t.Helper()
	s.ok(world.client.CoreV1().Pods(s.ns).Delete(s.t.Context(), pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}))
	s.step("%s is deleted", pod.Name)
}

func nodeOf(pod *corev1.Pod) *node {
	nodes := allNodes()
	return nodes[slices.IndexFunc(nodes, func(n *node) bool { return n.name == pod.Spec.NodeName })]
}

// leaderFiles are the leader files on the nodes: pods' UIDs to content.
func (s *scene) leaderFiles() map[types.UID]string {
	s.t.Helper()
	s.mu.Lock()
	pods := slices.Collect(maps.Values(s.pods))
	s.mu.Unlock()
	files := map[types.UID]string{}
	for _, pod := range pods {
		if pod.Spec.NodeName == "" {
			continue
		}
		out, err := nodeOf(pod).sh("cat " + statusDir(pod) + "/leader 2>/dev/null || :")
		s.ok(err)
		if out != "" {
			files[pod.UID] = strings.TrimSpace(out)
		}
	}
	return files
}

// statusDir is where the status volume of a pod is on its node.
func statusDir(pod *corev1.Pod) string {
	return "/var/lib/kubelet/pods/" + string(pod.UID) + "/volumes/kubernetes.io~empty-dir/" + inject.VolumeStatus
}

// keepLogs writes all that can be known of the scene into files.
func (s *scene) keepLogs() {
	dir := filepath.Join(world.logs, s.ns)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), time.Minute)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Error(err)
		return
	}
	keep := func(name, text string, err error) {
		if err != nil {
			text += "\n" + err.Error() + "\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			s.t.Error(err)
		}
	}
	for file, args := range map[string][]string{
		"pods.yaml":    {"-n", s.ns, "get", "pods", "-o", "yaml"},
		"objects.yaml": {"-n", s.ns, "get", "deployments,replicasets,statefulsets,jobs,leases,configmaps,roles,rolebindings,endpointslices", "-o", "yaml"},
		"events.txt":   {"get", "events", "-A", "-o", "wide", "--sort-by", ".metadata.creationTimestamp"},
		"nodes.yaml":   {"get", "nodes", "-o", "yaml"},
		"system.txt":   {"get", "pods", "-A", "-o", "wide"},
	} {
		out, err := kubectl(ctx, append(args, "--request-timeout", "10s")...)
		keep(file, out, err)
	}
	for _, ns := range []string{s.ns, system} {
		logs, err := allLogs(ns)
		for i := range logs {
			l := &logs[i]
			keep(fmt.Sprintf("%s_%s_%d.log", l.Pod, l.Container, l.Restart), l.Text, err)
		}
	}
	p, err := readPast(s.ns)
	var text strings.Builder
	for i := range p.made {
		fmt.Fprintln(&text, "made:", &p.made[i])
	}
	for i := range p.seen {
		fmt.Fprintln(&text, "seen:", &p.seen[i])
	}
	for i := range p.heard {
		fmt.Fprintln(&text, "heard:", &p.heard[i])
	}
	keep("claims.txt", text.String(), err)
	for _, n := range allNodes() {
		out, err := n.sh("journalctl --no-pager -u kubelet -u containerd --since '-10 min' | tail -n 3000")
		keep("journal-"+n.name+".log", out, err)
	}
	s.t.Logf("logs are in %s", dir)
}

// both runs a scenario in both modes.
func both(t *testing.T, test func(t *testing.T, mode elector.Mode)) {
	t.Helper()
	for _, mode := range []elector.Mode{modeLease, modeLife} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			test(t, mode)
		})
	}
}
