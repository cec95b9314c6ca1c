//go:build integration

package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/inject"
)

// faulty is an app that crashes while the file SICK-<its pod> is there, and is Ready unless UNREADY-<its pod> is. Files are below a directory of the
// test's.
func (s *scene) faulty(dir string) corev1.PodSpec {
	spec := s.spec(fmt.Sprintf(`trap 'exit 0' TERM; while [ ! -f %[1]s/SICK-$POD_NAME ]; do sleep 0.2 & wait $!; done; exit 3`, dir))
	spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", fmt.Sprintf(`[ ! -f %s/UNREADY-$POD_NAME ]`, dir)}}},
		PeriodSeconds: 1, FailureThreshold: 1,
	}
	return spec
}

// ail gives pods an ailment, or takes it away.
func ail(t *testing.T, dir, what string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(dir+"/"+what+"-"+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// sickbed is a directory that apps can read.
func sickbed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// annotation is one of the lock's.
func (s *scene) annotation(ctx context.Context, key string) (string, error) {
	if s.mode == elector.ModeLeaderForLife {
		object, err := cluster.Client().CoreV1().ConfigMaps(s.ns).Get(ctx, lockName, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return object.Annotations[key], nil
	}
	object, err := cluster.Client().CoordinationV1().Leases(s.ns).Get(ctx, lockName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return object.Annotations[key], nil
}

// awaitNext waits for the lock to name so many pods, without the given ones.
func (s *scene) awaitNext(n int, not ...string) {
	s.t.Helper()
	s.poll("who is next", func(ctx context.Context) error {
		value, err := s.annotation(ctx, elector.NextAnnotation)
		if err != nil {
			return err
		}
		names := elector.ParseNext(value)
		for _, name := range not {
			if strings.Contains(value, name) {
				return fmt.Errorf("%s is among %v", name, names)
			}
		}
		if len(names) != n {
			return fmt.Errorf("it is %v", names)
		}
		return nil
	})
}

// A leader whose app crashes again and again hands over to one whose app works.
func TestCrashLoop(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s, dir := newScene(t, mode), sickbed(t)
		s.deploy(3, s.faulty(dir), "unready-for", "5s")
		leader := s.awaitLabels("", 3)
		ail(t, dir, "SICK", leader.Name)
		s.awaitSuccessor(leader)
		s.awaitEvent(leader, "HandoverAsked")
		s.awaitNext(2, leader.Name)
	})
}

// A leader that is not Ready hands over if its pod asks for that.
func TestUnready(t *testing.T) {
	t.Parallel()
	s, dir := newScene(t, elector.ModeLease), sickbed(t)
	s.deploy(2, s.faulty(dir), "unready-for", "5s", "handover-when", "unready")
	leader := s.awaitLabels("", 2)
	ail(t, dir, "UNREADY", leader.Name)
	s.awaitSuccessor(leader)
	s.awaitEvent(leader, "HandoverAsked")
}

// When all are sick nothing moves, and that is said.
func TestAllSick(t *testing.T) {
	t.Parallel()
	s, dir := newScene(t, elector.ModeLease), sickbed(t)
	s.deploy(3, s.faulty(dir), "unready-for", "5s")
	leader := s.awaitLabels("", 3)
	s.mu.Lock()
	var names []string
	for _, pod := range s.pods {
		if pod.UID != leader.UID {
			names = append(names, pod.Name)
		}
	}
	s.mu.Unlock()
	ail(t, dir, "UNREADY", names...)
	s.awaitNext(0)
	ail(t, dir, "SICK", leader.Name)
	s.awaitEvent(leader, "NoFitCandidate")
	s.stillHeldBy(leader)
	if err := os.Remove(dir + "/UNREADY-" + names[0]); err != nil {
		t.Fatal(err)
	}
	s.awaitSuccessor(leader)
	s.stillHeldByName(names[0])
}

// stillHeldByName is stillHeldBy for a name.
func (s *scene) stillHeldByName(name string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := elector.NameOf(last(s.holders).what); now != name {
		s.t.Errorf("the lock is held by %q, not by %q", now, name)
	}
}

// A pod that asks to be left alone is, also if it asks when it runs already.
func TestHandoverNever(t *testing.T) {
	t.Parallel()
	s, dir := newScene(t, elector.ModeLease), sickbed(t)
	s.deploy(2, s.faulty(dir), "unready-for", "5s")
	leader := s.awaitLabels("", 2)
	if _, err := cluster.Client().CoreV1().Pods(s.ns).Patch(t.Context(), leader.Name, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"elector.io/handover-when":"never"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	ail(t, dir, "SICK", leader.Name)
	s.awaitNext(1, leader.Name) // the manager has seen it
	s.poll("a crash loop", func(ctx context.Context) error {
		pod, err := cluster.Client().CoreV1().Pods(s.ns).Get(ctx, leader.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.ContainerStatuses {
			if c.RestartCount >= 3 {
				return nil
			}
		}
		return errors.New("it has not crashed three times")
	})
	s.stillHeldBy(leader)
}

// A leader's sidecar that is killed goes on with its claim: the manager, which sees that its pod is not Ready, leaves the lock as it is.
func TestSidecarKilled(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, mode)
		s.deploy(3, s.spec(sleeper))
		leader := s.awaitLabels("", 3)
		s.awaitNext(3)
		var before elector.Status
		s.poll("the token to be noted, and the leader to know", func(ctx context.Context) (err error) {
			note, err := s.annotation(ctx, kube.ClaimAnnotation)
			if err != nil {
				return err
			}
			if before, err = statusOf(ctx, leader); err == nil && (before.Role != elector.RoleLeader || !strings.Contains(note, fmt.Sprintf(`"token":%d`, before.FencingToken))) {
				err = fmt.Errorf("it is %s with token %d, the lock's note is %s", before.Role, before.FencingToken, note)
			}
			return err
		})
		s.mu.Lock()
		id := sidecarOf(s.pods[leader.UID]).ContainerID
		s.mu.Unlock()
		if pid, err := strconv.Atoi(strings.TrimPrefix(id, "process://")); err != nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
			t.Fatalf("cannot kill the sidecar %q", id)
		}
		s.await("the sidecar to be started again", func() error {
			if pod := s.pods[leader.UID]; sidecarOf(pod).RestartCount == 0 || !ready(pod) {
				return errors.New("it has not been")
			}
			return nil
		})
		var after elector.Status
		s.poll("a leader", func(ctx context.Context) (err error) {
			s.mu.Lock()
			holder := last(s.holders).what
			s.mu.Unlock()
			if after, err = statusOf(ctx, leader); err == nil && after.Role != elector.RoleLeader && holder == before.Identity {
				err = fmt.Errorf("%s is a %s", leader.Name, after.Role)
			}
			return err
		})
		if after.Role != elector.RoleLeader || after.FencingToken != before.FencingToken {
			t.Errorf("it was the leader with token %d, and is a %s with token %d", before.FencingToken, after.Role, after.FencingToken)
		}
		s.stillHeldBy(leader)
		s.awaitNext(3)
	})
}

// statusOf is what the pod's sidecar says.
func statusOf(ctx context.Context, pod *corev1.Pod) (status elector.Status, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+wire(pod.Status.PodIP)+":4040/status", nil)
	if err != nil {
		return status, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return status, err
	}
	defer response.Body.Close()
	return status, json.NewDecoder(response.Body).Decode(&status)
}

// sidecarOf is what its kubelet says of the pod's sidecar.
func sidecarOf(pod *corev1.Pod) corev1.ContainerStatus {
	for _, c := range pod.Status.InitContainerStatuses {
		if c.Name == inject.ContainerName {
			return c
		}
	}
	return corev1.ContainerStatus{}
}

// A lock that becomes free goes to a pod whose app works, however many others there are, and those are sooner.
func TestFitFirst(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s, dir := newScene(t, mode), sickbed(t)
		s.deploy(4, s.faulty(dir))
		leader := s.awaitLabels("", 4)
		fit := ""
		s.mu.Lock()
		for _, pod := range s.pods {
			switch {
			case pod.UID == leader.UID:
			case fit == "":
				fit = pod.Name
			default:
				ail(t, dir, "UNREADY", pod.Name)
			}
		}
		s.mu.Unlock()
		s.awaitNext(2)
		s.resign(leader)
		s.awaitSuccessor(leader)
		s.stillHeldByName(fit)
	})
}

// At rest nothing is written but renewals.
func TestFitAtRest(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLeaderForLife) // whose holder writes nothing at rest
	s.deploy(3, s.spec(sleeper))
	s.awaitNext(3)
	version := func() string {
		object, err := cluster.Client().CoreV1().ConfigMaps(s.ns).Get(t.Context(), lockName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return object.ResourceVersion
	}
	s.poll("the leader's note", func(ctx context.Context) error {
		if note, err := s.annotation(ctx, "elector.io/claim"); err != nil || !strings.Contains(note, `"token"`) {
			return fmt.Errorf("the note is %s: %w", note, err)
		}
		return nil
	})
	before := version()
	s.barrier()
	if after := version(); after != before {
		t.Errorf("the lock was written to: %s, %s", before, after)
	}
}

// A leader of a revision that is about to go does not get the lock again while there is one of the next.
func TestNewRevisionNext(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	s.deploy(2, s.spec(sleeper))
	s.awaitNext(2)
	old := s.names()
	s.patch(`{"spec":{"strategy":{"rollingUpdate":{"maxSurge":2,"maxUnavailable":0}},"template":{"metadata":{"annotations":{"revision":"2"}}}}}`)
	s.awaitNext(2, old...)
}

// names are the pods'.
func (s *scene) names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pod := range s.pods {
		if pod.Labels[inject.LabelInjected] == "true" {
			names = append(names, pod.Name)
		}
	}
	return names
}
