//go:build integration

package manager

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

// An evicted leader that cannot release its lock, because nothing in it moves any more, is followed as soon as its kubelet says that
// it is dead, and not before.
func TestReapEvicted(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, mode)
		before := reapedLocks(s, mode)
		s.deploy(2, s.spec(sleeper), long...)
		old := s.awaitLabels("", 2)
		s.control(embedded.Freeze, old)
		s.control(embedded.Evict, old)
		led := s.awaitSuccessor(old)
		s.mu.Lock()
		ended, holders := s.ended[old.UID], s.holders
		s.mu.Unlock()
		if ended.IsZero() {
			t.Fatal("the lock was freed before the pod's phase was terminal")
		}
		t.Logf("led %s after the phase", led.Sub(ended))
		for _, h := range holders {
			if h.what == "" && h.at.Before(ended.Add(-10*time.Millisecond)) { // two watches
				t.Errorf("free %s before the phase was terminal", ended.Sub(h.at))
			}
		}
		s.awaitEvent(old, "LockReaped")
		s.awaitLabels(old.UID, 2)
		s.await("the dead leader's label", func() error {
			if pod := s.pods[old.UID]; pod != nil && pod.Labels[roleLabel] != "standby" {
				return errors.New(pod.Labels[roleLabel])
			}
			return nil
		})
		s.poll("it to be counted", func(context.Context) error {
			if n := reapedLocks(s, mode); n <= before { //nolint:contextcheck // the scene has its own
				return fmt.Errorf("%v before, now %v", before, n)
			}
			return nil
		})
	})
}

// An evicted leader whose pod was not injected is followed, too: one that uses operator-lib, where its lock was adopted, and one that
// uses elector's library. Its lock is there before any candidate.
func TestReapStranger(t *testing.T) {
	t.Parallel()
	for name, lock := range map[string]metav1.ObjectMeta{
		"operator-lib":    {Annotations: map[string]string{inject.Prefix + "adopt": "true"}},
		"elector-library": {Labels: map[string]string{kube.ManagedByLabel: kube.ManagedBy}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reapStranger(t, lock)
		})
	}
}

func reapStranger(t *testing.T, meta metav1.ObjectMeta) {
	s := newScene(t, elector.ModeLeaderForLife)
	spec := s.spec(sleeper)
	spec.RestartPolicy = corev1.RestartPolicyNever
	pods := cluster.Client().CoreV1().Pods(s.ns)
	program, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "program"}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	meta.Name = lockName
	meta.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: program.Name, UID: program.UID}}
	if _, err := cluster.Client().CoreV1().ConfigMaps(s.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.poll("the program to run", func(ctx context.Context) error {
		pod, err := pods.Get(ctx, program.Name, metav1.GetOptions{})
		if err == nil && !ready(pod) {
			err = errors.New(string(pod.Status.Phase))
		}
		return err
	})
	s.pod("web-0", sleeper)
	s.await("a standby", func() error {
		for _, pod := range s.pods {
			if ready(pod) && pod.Labels[roleLabel] == "standby" {
				return nil
			}
		}
		return errors.New("not yet")
	})
	s.barrier()
	s.stillHeldBy(program)
	s.control(embedded.Evict, program)
	evicted := time.Now()
	led := s.awaitSuccessor(program)
	t.Logf("led %s after the eviction was asked for", led.Sub(evicted))
	s.awaitEvent(program, "LockReaped")
	s.awaitLabels(program.UID, 1)
}

// A Job's leader that is done is followed at once, also where its sidecar leaves the lock to its pod.
func TestReapJob(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, mode)
		spec := s.spec(`until [ -f /var/run/elector/leader ]; do sleep 0.05; done; sleep 0.5`)
		spec.RestartPolicy = corev1.RestartPolicyNever
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: lockName},
			Spec:       batchv1.JobSpec{Completions: new(int32(3)), Parallelism: new(int32(3)), Template: s.template(spec, long...)},
		}
		if _, err := cluster.Client().BatchV1().Jobs(s.ns).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.await("all leaders to be done", func() error {
			if len(s.ended) < 3 {
				return fmt.Errorf("%d pods ended", len(s.ended))
			}
			return nil
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, h := range s.holders {
			if h.what == "" || i == 0 {
				continue
			}
			for uid, ended := range s.ended {
				if i >= 2 && strings.HasSuffix(s.holders[i-2].what, string(uid)) {
					t.Logf("led %s after the phase of the leader before", h.at.Sub(ended))
				}
			}
		}
	})
}

// A crashed leader whose Pod object is deleted by force may still run as far as anybody knows: its lease has to run out.
func TestVanishedLease(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	const leaseDuration, renewDeadline = 6 * time.Second, 3 * time.Second
	s.deploy(2, s.spec(sleeper), elector.FieldLeaseDuration, leaseDuration.String(), elector.FieldRenewDeadline, renewDeadline.String(), elector.FieldRetryPeriod, "1s")
	old := s.awaitLabels("", 2)
	crashed := time.Now()
	s.control(embedded.Crash, old)
	s.deletePod(old, byForce)
	led := s.awaitSuccessor(old)
	// The last renewal was a third of the renew-deadline before the crash at the earliest.
	if least := leaseDuration - renewDeadline/3; led.Sub(crashed) < least {
		t.Errorf("the next leader came %s after the crash, before %s", led.Sub(crashed), least)
	}
	s.mu.Lock()
	for _, h := range s.holders[1:] {
		if h.what == "" {
			t.Error("the lease was freed")
		}
	}
	s.mu.Unlock()
	s.awaitLabels(old.UID, 2)
}

// A pod that only looks dead keeps its lock.
func TestNotDead(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, mode)
		s.deploy(2, s.spec(sleeper), long...)
		old := s.awaitLabels("", 2)
		s.control(embedded.Crash, old)

		// What the pod garbage collector writes about a pod of a node that is gone, before it deletes it by force.
		patch := `{"status":{"phase":"Failed","conditions":[{"type":"DisruptionTarget","status":"True","reason":"DeletionByPodGC"}]}}`
		_, err := cluster.Client().CoreV1().Pods(s.ns).Patch(t.Context(), old.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
		if err != nil {
			t.Fatal(err)
		}
		s.await("a leader that ended to lose its label", func() error {
			if pod := s.pods[old.UID]; pod.Labels[roleLabel] != "standby" {
				return errors.New(pod.Labels[roleLabel])
			}
			return nil
		})
		s.barrier()
		s.stillHeldBy(old)

		// The same, where the kubelet was lost between two runs of the containers, and has started them again unheard.
		s.reportTerminated(old)
		s.barrier()
		s.stillHeldBy(old)

		s.deletePod(old, byForce)
		if mode == elector.ModeLeaderForLife {
			s.awaitSuccessor(old) // the garbage collector's doing
			s.awaitLabels(old.UID, 2)
			return
		}
		s.await("the object to be gone", func() error {
			if s.pods[old.UID] != nil {
				return errors.New("it is there")
			}
			return nil
		})
		s.barrier()
		s.stillHeldBy(old)
	})
}

// reportTerminated writes into a pod's status that none of its containers runs, and leaves its conditions as they are.
func (s *scene) reportTerminated(pod *corev1.Pod) {
	s.t.Helper()
	pods := cluster.Client().CoreV1().Pods(s.ns)
	now, err := pods.Get(s.t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, statuses := range [][]corev1.ContainerStatus{now.Status.InitContainerStatuses, now.Status.ContainerStatuses} {
		for i := range statuses {
			statuses[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 1, Reason: "Error", ContainerID: statuses[i].ContainerID, StartedAt: metav1.Now(), FinishedAt: metav1.Now(),
			}}
		}
	}
	if _, err := pods.UpdateStatus(s.t.Context(), now, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// A leader on a node that is not ready keeps its lock.
func TestNodeNotReady(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, mode)
		spec := s.spec(sleeper)
		node := lostNodes[mode]
		spec.NodeSelector[corev1.LabelHostname] = node
		s.deploy(2, spec, long...)
		old := s.awaitLabels("", 2)
		s.control(embedded.Crash, old)
		patch := `{"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown"}]}}`
		nodes := cluster.Client().CoreV1().Nodes()
		if _, err := nodes.Patch(t.Context(), node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		s.poll("the node to be taken for lost", func(ctx context.Context) error {
			n, err := nodes.Get(ctx, node, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, taint := range n.Spec.Taints {
				if taint.Key == corev1.TaintNodeUnreachable && taint.Effect == corev1.TaintEffectNoExecute {
					return nil
				}
			}
			return fmt.Errorf("its taints are %v", n.Spec.Taints)
		})
		// What the node controller writes when a node stops reporting by itself.
		patch = `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`
		if _, err := cluster.Client().CoreV1().Pods(s.ns).Patch(t.Context(), old.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		s.barrier()
		s.stillHeldBy(old)
	})
}

// The end of a recreated pod says nothing about the one before it that had its name.
func TestRecreated(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	s.pod("web-0", sleeper, long...)
	old := s.awaitLabels("", 1)
	s.control(embedded.Crash, old)
	s.deletePod(old, byForce)
	s.await("the object to be gone", func() error {
		if s.pods[old.UID] != nil {
			return errors.New("it is there")
		}
		return nil
	})
	s.pod("web-0", "exit 1", long...)
	s.await("the next pod of that name to end", func() error {
		for _, pod := range s.pods {
			if pod.Status.Phase == corev1.PodFailed {
				return nil
			}
		}
		return errors.New("it has not")
	})
	s.barrier()
	s.stillHeldBy(old)
}

// stillHeldBy fails the test if the pod's lock was freed.
func (s *scene) stillHeldBy(pod *corev1.Pod) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, want := last(s.holders).what, elector.Identity(pod.Name, string(pod.UID)); now != want {
		s.t.Errorf("the lock is held by %q, not by %q", now, want)
	}
}

// barrier returns when the manager has reaped another lock, whose holder ended after everything that happened until now.
func (s *scene) barrier() {
	s.t.Helper()
	pods, name := cluster.Client().CoreV1().Pods(s.ns), "barrier-"+strconv.FormatInt(time.Now().UnixNano(), 36)
	spec := s.spec(`until [ -f /var/run/elector/leader ]; do sleep 0.05; done`)
	spec.RestartPolicy = corev1.RestartPolicyNever
	_, err := pods.Create(s.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			inject.Prefix + "enabled": "true", inject.Prefix + elector.FieldMode: string(elector.ModeLeaderForLife),
		}},
		Spec: spec,
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.poll("the barrier's pod to end", func(ctx context.Context) error {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodSucceeded {
			err = errors.New(string(pod.Status.Phase))
		}
		return err
	})
	s.poll("the barrier's lock to be reaped", func(ctx context.Context) error {
		_, err := cluster.Client().CoreV1().ConfigMaps(s.ns).Get(ctx, inject.DefaultLock(name, elector.ModeLeaderForLife), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
}

func (s *scene) awaitEvent(pod *corev1.Pod, reason string) {
	s.t.Helper()
	s.poll("the Event "+reason, func(ctx context.Context) error {
		list, err := cluster.Client().EventsV1().Events(s.ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Regarding.UID == pod.UID && e.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("not among %d", len(list.Items))
	})
}

// reapedLocks is the managers' count.
func reapedLocks(s *scene, mode elector.Mode) float64 {
	return metric(s, fmt.Sprintf("elector_webhook_reaped_locks_total{mode=%q}", mode))
}

// metric is the sum of what the managers say.
//
// A manager reads its metrics for all who ask within a second, so they may be as old.
func metric(s *scene, name string) (sum float64) {
	s.t.Helper()
	managers, err := cluster.Client().CoreV1().Pods("elector-system").List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, pod := range managers.Items {
		request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+wire(pod.Status.PodIP)+":8080/metrics", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			s.t.Fatal(err)
		}
		defer response.Body.Close()
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
				n, err := strconv.ParseFloat(value, 64)
				if err != nil {
					s.t.Fatal(err)
				}
				sum += n
			}
		}
	}
	return sum
}
