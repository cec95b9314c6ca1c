//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/witness"
)

// life is one process of an app behind the gate.
type life struct {
	uid            types.UID
	restart        int
	started, ended time.Duration // ended is 0 if it has not said so
}

// lives are all processes of the apps in the scene, in their order.
func (s *scene) lives() (all []life) {
	s.t.Helper()
	logs := s.past().logs
	for i := range logs {
		l := life{uid: types.UID(logs[i].UID), restart: logs[i].Restart}
		for _, line := range logs[i].Lines() {
			switch line.Event {
			case witness.EventStarted:
				l.started = line.Clock
			case witness.EventStops:
				l.ended = line.Clock
			}
		}
		if logs[i].Container == "app" && l.started != 0 {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b life) int { return cmp.Compare(a.started, b.started) })
	return all
}

// nextLife waits for the n-th process of all.
func (s *scene) nextLife(n int) (of life) {
	s.t.Helper()
	s.poll(fmt.Sprintf("process %d of the app", n), func() error {
		all := s.lives()
		if len(all) > n {
			return nil // too many: the end of the test tells
		}
		if len(all) < n {
			return fmt.Errorf("there were %d", len(all))
		}
		of = all[n-1]
		return nil
	})
	return of
}

// appPID is the process with which the pod's app container began, on its node.
func (s *scene) appPID(pod *corev1.Pod) string {
	s.t.Helper()
	pod, err := world.client.CoreV1().Pods(s.ns).Get(s.t.Context(), pod.Name, metav1.GetOptions{})
	s.ok(err)
	return s.pidOf(pod, &pod.Status.ContainerStatuses[0])
}

// ending is something that ends the leader's app.
type ending struct {
	how string
	end func(leader *corev1.Pod)
}

// Behind the gate the app runs on the leader alone, though it knows of no election; and of all its processes no two live at the same
// time, whatever ended the one before.
func testGate(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "An app behind the gate", mode)
		d := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: lock},
			Spec: appsv1.DeploymentSpec{
				Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": lock}}, Template: podTemplate(lock, "-stop-delay", "300ms"),
				Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			},
		}
		d.Spec.Template.Annotations = annotations(mode, append([]string{"gate", "true"}, defaults...)...)
		d.Spec.Template.Spec.Containers[0].Command = []string{appPath}
		ready := 2 // closed gates are
		if mode == modeLife {
			d.Spec.Template.Spec.Containers[0].Command = nil // nothing stands before it
			ready = 1
		}
		_, err := world.client.AppsV1().Deployments(s.ns).Create(t.Context(), d, metav1.CreateOptions{})
		s.ok(err)

		ends := []ending{{"the pod is deleted", s.remove}}
		if mode == modeLease { // else there is no wrapper, and a leader's container starts anew where it was
			ends = append(ends, []ending{
				{"somebody asks for a handover", func(leader *corev1.Pod) {
					said, err := kubectl(t.Context(), "elector", "switchover", lock, "-n", s.ns)
					s.ok(err)
					s.step("%s: %s", leader.Name, strings.TrimSpace(said))
				}},
				{"`kill -9` of the app", func(leader *corev1.Pod) {
					_, err := nodeOf(leader).sh(fmt.Sprintf("kill -9 $(cat /proc/%s/task/*/children)", s.appPID(leader)))
					s.ok(err)
				}},
				{"`kill -9` of the wrapper", func(leader *corev1.Pod) {
					_, err := nodeOf(leader).sh("kill -9 " + s.appPID(leader))
					s.ok(err)
				}},
			}...)
		}
		for i, e := range ends {
			leader := s.leader(lock, ready)
			now := s.nextLife(i + 1)
			if now.uid != leader.UID {
				t.Fatalf("%s leads, and the app runs in %s", leader.Name, now.uid)
			}
			if mode == modeLease {
				s.noted(inject.DefaultLock(lock, mode), 2)
			}
			killed := boot()
			e.end(leader)
			next := s.nextLife(i + 2)
			// One that was killed says nothing: it was alive when that was begun.
			last := s.lives()[i]
			if last.ended == 0 {
				last.ended = killed
			}
			if next.started < last.ended {
				t.Errorf("%s: an app was started %s before the last one was dead", e.how, last.ended-next.started)
			}
			if next.uid == leader.UID {
				t.Errorf("%s: the app runs in the same pod again, though another one waits", e.how)
			}
			s.figure(e.how+": app dead until the next is started", seconds(next.started-last.ended))
		}
		if n := len(s.lives()); n != len(ends)+1 {
			t.Errorf("the app was started %d times, not %d", n, len(ends)+1)
		}
	})
}
