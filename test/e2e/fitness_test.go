//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/history"
)

// unreadyFor is how long a leader's application has to be down, and another's to work, here: the least there is.
const unreadyFor = 5 * time.Second

var (
	// soon has leaders that are broken hand over soon, and impatient those that are not Ready, too. No lease runs out meanwhile.
	soon      = append([]string{"unready-for", unreadyFor.String()}, defaults...)
	impatient = append([]string{"handover-when", "unready"}, soon...)
)

// What ails an application, see the flag -health of test/witness/app.
const (
	crashes = "crash"
	unready = "unready"
)

const healthVolume = "health"

// The Events that tell of it.
const (
	reasonAsked   = "HandoverAsked"
	reasonLeads   = "BecameLeader"
	reasonAllSick = "NoFitCandidate"
)

// mayAil lets a test say how the application is. What it says outlives the container.
func mayAil(t *corev1.PodTemplateSpec) {
	t.Spec.Volumes = append(t.Spec.Volumes, corev1.Volume{Name: healthVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	app := &t.Spec.Containers[0]
	app.Args = append(app.Args, "-health", "/"+healthVolume)
	app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: healthVolume, MountPath: "/" + healthVolume})
	app.ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromString("http")}},
		PeriodSeconds: 1, FailureThreshold: 1,
	}
}

// ails makes the pod's application unwell, and returns when.
func (s *scene) ails(pod *corev1.Pod, how string) time.Duration {
	s.t.Helper()
	at := boot()
	_, err := nodeOf(pod).sh("touch " + healthFile(pod, how))
	s.ok(err)
	s.step("%s: %s", pod.Name, how)
	return at
}

func (s *scene) heals(pod *corev1.Pod, how string) {
	s.t.Helper()
	_, err := nodeOf(pod).sh("rm " + healthFile(pod, how))
	s.ok(err)
	s.step("%s is well", pod.Name)
}

func healthFile(pod *corev1.Pod, how string) string {
	return "/var/lib/kubelet/pods/" + string(pod.UID) + "/volumes/kubernetes.io~empty-dir/" + healthVolume + "/" + how
}

// handedOver waits until the pod has handed the scene's lock over as somebody asked it to, and another one's app knows.
func (s *scene) handedOver(old *corev1.Pod) (before, seen history.Claim) {
	s.t.Helper()
	before, after, seen := s.succession(lock, old)
	if before.Reason != "handover" {
		s.t.Errorf("the claim of %s ended with %q, not by a handover", old.Name, before.Reason)
	}
	s.step("%s leads instead of %s", elector.NameOf(after.Identity), old.Name)
	return before, seen
}

// leadsOn checks that who holds the lock does so for a while.
func (s *scene) leadsOn(lock string, d time.Duration) {
	s.t.Helper()
	s.mu.Lock()
	changes := len(s.holders[lock])
	s.mu.Unlock()
	s.stays("the holder of "+lock, d, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if all := s.holders[lock]; len(all) != changes {
			return fmt.Errorf("it was held by %v", all[changes-1:])
		}
		return nil
	})
}

// told waits for an Event of this reason on the Deployment that the lock is named after, and for so many in all.
func (s *scene) told(reason string, times int) {
	s.t.Helper()
	s.poll("the Event "+reason, func() error {
		n, err := s.tellings(reason)
		if err == nil && n < times {
			err = fmt.Errorf("there are %d", n)
		}
		return err
	})
}

// tellings is how often it was told.
func (s *scene) tellings(reason string) (times int, err error) {
	list, err := world.client.EventsV1().Events(s.ns).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		return 0, fmt.Errorf("listing Events: %w", err)
	}
	for i := range list.Items {
		e := &list.Items[i]
		if e.Reason != reason || e.Regarding.Kind != "Deployment" || e.Regarding.Name != lock {
			continue
		}
		if times++; e.Series != nil {
			times += int(e.Series.Count) - 1
		}
	}
	return times, nil
}

// The leader's application crashes as often as it is started: another pod leads, though the leader's sidecar is fine.
func testCrashLoop(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Crash loop of the leader's app", mode)
		s.deploy(lock, 2, mayAil, soon...)
		leader := s.leader(lock, 2)
		s.awaitApp(leader)
		crashed := s.ails(leader, crashes)
		before, seen := s.handedOver(leader)
		s.figure(fmt.Sprintf("crashes until the next leader's app knows (unready-for %s)", seconds(unreadyFor)), seconds(seen.Begin-crashed))
		s.figure("of that without leader", seconds(seen.Begin-before.End))
		s.told(reasonAsked, 1)
		s.told(reasonLeads, 2)
		s.leadsOn(lock, 2*unreadyFor)
	})
}

// The leader's application says that it is not ready: another pod leads if the workload asked for that, and else not.
func testReadinessLost(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Readiness of the leader's app lost", mode)
		s.deploy(lock, 2, mayAil, impatient...)
		s.deploy("stays", 2, mayAil, soon...)
		leader, stays := s.leader(lock, 4), s.leader("stays", 4)
		s.awaitApp(leader)
		lost := s.ails(leader, unready)
		s.ails(stays, unready)
		_, seen := s.handedOver(leader)
		s.figure(fmt.Sprintf("probe fails until the next leader's app knows (unready-for %s)", seconds(unreadyFor)), seconds(seen.Begin-lost))
		s.leadsOn("stays", 2*unreadyFor)
		s.figure("with `handover-when: broken`, the default", "the leader leads on")
	})
}

// A rollout to an image that nobody can pull: the old pods lead on, also when their leader goes, and the new pod never does.
func testImagePull(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Image that cannot be pulled in a rollout", mode)
		s.deploy(lock, 3, mayAil, soon...)
		leader := s.leader(lock, 3)
		s.awaitApp(leader)
		s.kubectl("set", "image", "deployment", lock, "app=localhost:1/none:none")
		stuck := s.stuck()
		s.leadsOn(lock, 2*unreadyFor)
		for range 2 {
			s.remove(leader)
			s.succession(lock, leader)
			leader = s.leader(lock, 3)
			if leader.UID == stuck {
				t.Fatal("the pod without an image leads")
			}
		}
		for _, c := range s.past().made {
			if c.UID == string(stuck) {
				t.Errorf("the pod without an image has led: %s", &c)
			}
		}
		s.figure("leader deleted twice meanwhile", "old pods lead, the new one never")
	})
}

// stuck waits for a pod whose sidecar contends while its application's image cannot be pulled.
func (s *scene) stuck() (uid types.UID) {
	s.t.Helper()
	s.await("a pod without an image", func() error {
		for _, pod := range s.pods {
			for i := range pod.Status.ContainerStatuses {
				waiting := pod.Status.ContainerStatuses[i].State.Waiting
				if waiting != nil && strings.Contains(waiting.Reason, "ImagePull") {
					uid = pod.UID
					s.step("%s: %s", pod.Name, waiting.Reason)
					return nil
				}
			}
		}
		return errors.New("there is none")
	})
	return uid
}

// A pod that leads while it hangs in an init container hands over when another one works, and never wins against those that do.
func testInitHangs(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Leader that hangs in its init containers", mode)
		more := append([]string{elector.FieldLock, lock}, impatient...)
		s.deploy("hangs", 1, func(t *corev1.PodTemplateSpec) {
			t.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: appImage, Args: []string{"-address", ""}}}
		}, append([]string{"containers", "app, migrate"}, more...)...)
		hanging := s.hanging("hangs", "migrate")
		s.await("the pod that hangs to lead", func() error {
			if all := s.holders[lock]; len(all) == 0 || all[len(all)-1].identity != identity(hanging) {
				return fmt.Errorf("%s was held by %v", lock, all)
			}
			return nil
		})
		s.deploy(lock, 2, mayAil, more...)
		s.await("another pod to be ready", func() error {
			for _, pod := range s.pods {
				if isReady(pod) {
					return nil
				}
			}
			return errors.New("none is")
		})
		ready := boot()
		_, seen := s.handedOver(hanging)
		s.figure(fmt.Sprintf("another pod ready until its app knows that it leads (unready-for %s)", seconds(unreadyFor)), seconds(seen.Begin-ready))
		leader := s.leader(lock, 2)
		s.remove(leader)
		s.succession(lock, leader)
		if next := s.leader(lock, 2); next.UID == hanging.UID {
			t.Errorf("%s won though another pod was ready", hanging.Name)
		}
		s.leadsOn(lock, 2*unreadyFor)
	})
}

// Everybody's application is unwell: nothing moves, one Event says so, and who gets well first leads.
func testAllSick(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "All applications unwell", mode)
		s.deploy(lock, 3, mayAil, impatient...)
		leader := s.leader(lock, 3)
		s.awaitApp(leader)
		s.mu.Lock()
		var others []*corev1.Pod
		for _, pod := range s.pods {
			if pod.UID != leader.UID {
				others = append(others, pod)
			}
		}
		s.mu.Unlock()
		// Pods that take long to start are not fit either; and what was told once is not told again for long, in the same words.
		before, err := s.tellings(reasonAllSick)
		s.ok(err)
		for _, pod := range append(others, leader) {
			s.ails(pod, unready)
		}
		s.leadsOn(lock, 3*unreadyFor)
		s.told(reasonAllSick, 1)
		if times, err := s.tellings(reasonAllSick); err != nil || times > before+1 {
			t.Errorf("it was told %d times more, %v", times-before, err)
		}
		s.heals(others[0], unready)
		healed := boot()
		_, seen := s.handedOver(leader)
		if seen.UID != string(others[0].UID) {
			t.Errorf("%s leads, not %s, which alone is well", elector.NameOf(seen.Identity), others[0].Name)
		}
		s.figure("for "+seconds(3*unreadyFor), "the leader leads on, and one Event says why")
		s.figure(fmt.Sprintf("one gets well until its app knows that it leads (unready-for %s)", seconds(unreadyFor)), seconds(seen.Begin-healed))
	})
}

// The manager is away while the leaders' applications crash: nothing happens. When it is back, late, others lead.
func testManagerAway(t *testing.T) {
	var scenes []*scene
	var leaders []*corev1.Pod
	for _, mode := range []elector.Mode{modeLease, modeLife} {
		s := newScene(t, "Manager scaled to 0 meanwhile", mode)
		s.deploy(lock, 2, mayAil, soon...)
		scenes = append(scenes, s)
	}
	for _, s := range scenes {
		leader := s.leader(lock, 2)
		s.awaitApp(leader)
		leaders = append(leaders, leader)
	}
	s := scenes[0]
	scale := func(ctx context.Context, replicas int) error {
		_, err := kubectl(ctx, "-n", system, "scale", "deployment", manager, "--replicas", strconv.Itoa(replicas))
		return err
	}
	t.Cleanup(func() { s.ok(scale(context.WithoutCancel(t.Context()), 2)) })
	s.ok(scale(t.Context(), 0))
	s.poll("the manager to be gone", func() error { return managers(t.Context(), 0) })
	for i, s := range scenes {
		s.ails(leaders[i], crashes)
	}
	s.leadsOn(lock, 2*unreadyFor)
	for i, s := range scenes {
		s.ok(s.heldBy(leaders[i]))
		s.weigh(leaders[i], "leader")
		s.weigh(s.other(leaders[i]), "standby")
	}
	back := boot()
	s.ok(scale(t.Context(), 2))
	for i, s := range scenes {
		before, seen := s.handedOver(leaders[i])
		if before.End < back+unreadyFor {
			t.Errorf("%s was asked to hand over %s after the manager began to come back, too early by its unready-for of %s", leaders[i].Name, seconds(before.End-back), unreadyFor)
		}
		s.figure("the leader leads on; manager scaled to 2 until the next leader's app knows", seconds(seen.Begin-back))
	}
	s.poll("the manager to be ready", func() error {
		_, err := kubectl(t.Context(), "-n", system, "rollout", "status", "deployment", manager, "--timeout", "1s")
		return err
	})
}
