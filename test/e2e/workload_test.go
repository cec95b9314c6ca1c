//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/witness"
)

const (
	roleLabel = inject.Prefix + "role"
	// appPath is where the image has the application.
	appPath = "/e2e-app"
)

// A plain Deployment is annotated with kubectl: one of its pods leads, its app knows, and a Service finds it.
func testAnnotate(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Annotate a Deployment", mode)
		d := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: "web"},
			Spec: appsv1.DeploymentSpec{
				Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: podTemplate("web"),
			},
		}
		_, err := world.client.AppsV1().Deployments(s.ns).Create(t.Context(), d, metav1.CreateOptions{})
		s.ok(err)
		_, err = world.client.CoreV1().Services(s.ns).Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "web"},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "web", roleLabel: "leader"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}},
			},
		}, metav1.CreateOptions{})
		s.ok(err)
		s.kubectl("rollout", "status", "deployment", "web", "--timeout", "2m")
		s.step("the plain Deployment is rolled out")

		args := []string{"annotate", "deployment", "web"}
		for name, value := range annotations(mode) {
			args = append(args, name+"="+value)
		}
		begun := boot()
		s.kubectl(args...)
		s.kubectl("rollout", "status", "deployment", "web", "--timeout", "2m")
		s.figure("`kubectl annotate` until the rollout of 2 replicas is complete", seconds(boot()-begun))
		s.await("the old pods to be gone", func() error {
			if len(s.pods) != 2 {
				return fmt.Errorf("%d pods", len(s.pods))
			}
			return nil
		})
		leader := s.leader("web", 2)
		if files := s.leaderFiles(); len(files) != 1 || files[leader.UID] != leader.Name {
			t.Errorf("%s leads, the leader files are %v", leader.Name, files)
		}
		s.checkApps(leader)

		other := s.other(leader)
		s.asks(other, leader)
		s.step("the Service answers with the leader only")
		s.remove(leader)
		deleted := boot()
		s.successor("web", leader)
		next := s.leader("web", 1)
		asker := s.other(next)
		s.poll("the Service to answer with the next leader", func() error {
			name, err := s.get(asker, "http://web/")
			if err == nil && name != next.Name {
				err = fmt.Errorf("%s answered", name)
			}
			return err
		})
		s.figure("leader deleted until the Service answers with the next", seconds(boot()-deleted))
		s.asks(asker, next)
	})
}

// checkApps checks that the leader's app alone has seen that it leads, and that none could write in the status directory.
func (s *scene) checkApps(leader *corev1.Pod) {
	s.t.Helper()
	s.poll("the leader's app to know", func() error {
		_, err := s.past().event(leader.UID, witness.EventLeads)
		return err
	})
	p := s.past()
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, pod := range s.pods {
		if line, err := p.event(uid, witness.EventWrite); err != nil || line.Note != "refused: read-only file system" {
			s.t.Errorf("%s tried to write in the status directory: %q, %v", pod.Name, line.Note, err)
		}
		if _, err := p.event(uid, witness.EventLeads); (err == nil) != (uid == leader.UID) {
			s.t.Errorf("%s leads, of %s's app: %v", leader.Name, pod.Name, err)
		}
	}
}

// other is a ready pod beside the given one.
func (s *scene) other(pod *corev1.Pod) (other *corev1.Pod) {
	s.t.Helper()
	s.await("another pod", func() error {
		for _, p := range s.pods {
			if p.UID != pod.UID && isReady(p) && p.DeletionTimestamp == nil {
				other = p
				return nil
			}
		}
		return errors.New("none is ready")
	})
	return other
}

// asks checks that the Service answers a pod with the leader's name, every time.
func (s *scene) asks(asker, leader *corev1.Pod) {
	s.t.Helper()
	for range 10 {
		if name, err := s.get(asker, "http://web/"); err != nil || name != leader.Name {
			s.t.Errorf("the Service answered %q, %v; %s leads", name, err, leader.Name)
		}
	}
}

// get asks a URL from inside a pod.
func (s *scene) get(from *corev1.Pod, url string) (string, error) {
	out, err := kubectl(s.t.Context(), "-n", s.ns, "exec", from.Name, "-c", "app", "--", appPath, "-get", url)
	return strings.TrimSpace(out), err
}

func (s *scene) kubectl(args ...string) string {
	s.t.Helper()
	out, err := kubectl(s.t.Context(), append([]string{"-n", s.ns}, args...)...)
	s.ok(err)
	return out
}

// deletions is how often the leader is deleted, in each mode.
const deletions = 5

// The leader's pod is deleted: its app is dead before the lock is free.
func testDeleteLeader(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Delete the leader's pod", mode)
		s.deploy("web", 2, func(t *corev1.PodTemplateSpec) { t.Spec.Containers[0].Args = []string{"-stop-delay", "300ms"} }, defaults...)
		var dead, free, knows []time.Duration
		for range deletions {
			old := s.leader("web", 2)
			s.awaitApp(old)
			s.remove(old)
			before, after, seen := s.succession("web", old)
			stops := s.stopped(old, "app")
			if stops > before.End {
				t.Errorf("the claim ended %s before the app had stopped", stops-before.End)
			}
			freed := s.freed("web", old)
			if freed < stops {
				t.Errorf("the lock was free %s before the app had stopped", stops-freed)
			}
			dead = append(dead, freed-stops)
			free = append(free, after.Begin-before.End)
			knows = append(knows, seen.Begin-stops)
		}
		s.figure("the app is dead before the lock is seen free, by", spread(dead))
		s.figure("claim ends until the next begins", spread(free))
		s.figure("app dead until the next leader's app knows", spread(knows))
	})
}

// awaitApp waits until the leader's app knows that it leads.
func (s *scene) awaitApp(leader *corev1.Pod) {
	s.t.Helper()
	s.poll("the leader's app to know", func() error {
		_, err := s.past().event(leader.UID, witness.EventLeads)
		return err
	})
}

// freed is when the pod was seen not to hold the lock any more.
func (s *scene) freed(lock string, pod *corev1.Pod) (at time.Duration) {
	s.t.Helper()
	s.await(lock+" to be seen freed by "+pod.Name, func() error {
		all := s.holders[lock]
		for i := range len(all) - 1 {
			if all[i].identity == identity(pod) && all[i+1].identity != identity(pod) {
				at = all[i+1].at
				return nil
			}
		}
		return fmt.Errorf("it was held by %v", all)
	})
	return at
}

// A rollout of a workload hands leadership on, and never to two.
func testRollingUpdate(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Rolling update", mode)
		s.deploy("web", 3, nil, defaults...)
		old := s.leader("web", 3)
		s.awaitApp(old)
		begun := boot()
		s.kubectl("rollout", "restart", "deployment", "web")
		s.kubectl("rollout", "status", "deployment", "web", "--timeout", "2m")
		s.await("the old pods to be gone", func() error {
			if len(s.pods) != 3 {
				return fmt.Errorf("%d pods", len(s.pods))
			}
			return nil
		})
		s.succession("web", old)
		var handovers int
		var idle, longest time.Duration
		made := s.past().made
		for i := 1; i < len(made); i++ {
			if gap := made[i].Begin - made[i-1].End; made[i].Begin > begun && made[i].Identity != made[i-1].Identity {
				handovers++
				idle += gap
				longest = max(longest, gap)
			}
		}
		if handovers == 0 {
			t.Error("the leader is an old pod")
		}
		s.figure("3 replicas", fmt.Sprintf("%s, without leader %s in all, %s at most", count(handovers, "handover"), seconds(idle), seconds(longest)))
	})
}

// A Job's pods complete with the sidecar in them, and each of them leads in its turn.
func testJob(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Job", mode)
		template := podTemplate("work", "-lead-for", "2s")
		template.Annotations = annotations(mode)
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
		_, err := world.client.BatchV1().Jobs(s.ns).Create(t.Context(), &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: "work"},
			Spec:       batchv1.JobSpec{Completions: new(int32(2)), Parallelism: new(int32(2)), BackoffLimit: new(int32(0)), Template: template},
		}, metav1.CreateOptions{})
		s.ok(err)
		s.completes("work", 2)
	})
}

// completes waits for the Job and checks that its pods have run their sidecars to the end.
func (s *scene) completes(job string, pods int) {
	s.t.Helper()
	var done *batchv1.Job
	s.poll("the Job to complete", func() error {
		j, err := world.client.BatchV1().Jobs(s.ns).Get(s.t.Context(), job, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range j.Status.Conditions {
			if c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue {
				done = j
				return nil
			}
			if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
				s.t.Fatal("the Job failed:", c.Message)
			}
		}
		return fmt.Errorf("its status is %+v", j.Status)
	})
	took := done.Status.CompletionTime.Sub(done.Status.StartTime.Time)
	list, err := world.client.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	s.ok(err)
	for i := range list.Items {
		pod := &list.Items[i]
		pods--
		sidecar := pod.Status.InitContainerStatuses[0].State.Terminated
		if sidecar == nil || sidecar.ExitCode != 0 {
			s.t.Errorf("the sidecar of %s ended with %+v", pod.Name, pod.Status.InitContainerStatuses[0].State)
		}
	}
	if pods != 0 {
		s.t.Errorf("%d pods are missing", pods)
	}
	s.figure("complete, of apps that end when they have led for 2 s", fmt.Sprintf("%s after it started, %s", seconds(took), count(len(list.Items), "pod")))
}

// The Jobs of an annotated CronJob elect, too.
func testCronJob(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "CronJob", mode)
		template := podTemplate("work", "-lead-for", "2s")
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
		_, err := world.client.BatchV1().CronJobs(s.ns).Create(t.Context(), &batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Name: "work", Annotations: annotations(mode)},
			Spec: batchv1.CronJobSpec{
				Schedule: "* * * * *", ConcurrencyPolicy: batchv1.ForbidConcurrent,
				JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{BackoffLimit: new(int32(0)), Template: template}},
			},
		}, metav1.CreateOptions{})
		s.ok(err)
		job := ""
		s.poll("the first Job", func() error {
			list, err := world.client.BatchV1().Jobs(s.ns).List(t.Context(), metav1.ListOptions{})
			if err == nil && len(list.Items) == 0 {
				err = errors.New("none yet")
			}
			if err == nil {
				job = list.Items[0].Name
			}
			return err
		})
		s.step("the Job %s", job)
		s.completes(job, 1)
	})
}

// The pod of a StatefulSet that comes again under its name is another candidate.
func testStatefulSet(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "StatefulSet pod recreated under its name", mode)
		template := podTemplate("db")
		template.Annotations = annotations(mode)
		_, err := world.client.AppsV1().StatefulSets(s.ns).Create(t.Context(), &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Name: "db"},
			Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Template: template},
		}, metav1.CreateOptions{})
		s.ok(err)
		old := s.leader("db", 1)
		s.awaitApp(old)
		s.remove(old)
		before, after, _ := s.succession("db", old)
		if elector.NameOf(before.Identity) != elector.NameOf(after.Identity) || before.Identity == after.Identity {
			t.Errorf("%s was followed by %s", before.Identity, after.Identity)
		}
		s.figure("the same name leads again, with another identity and a higher token, after", seconds(after.Begin-before.End))
	})
}

// A namespace that enforces Pod Security's level restricted takes injected pods.
func testRestricted(t *testing.T) {
	s := newScene(t, "Pod Security restricted", modeLease, "pod-security.kubernetes.io/enforce", "restricted")
	s.deploy("web", 2, func(t *corev1.PodTemplateSpec) {
		t.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		t.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}
	})
	s.checkApps(s.leader("web", 2))
	plain := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Spec: podTemplate("plain").Spec}
	if _, err := world.client.CoreV1().Pods(s.ns).Create(t.Context(), plain, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err == nil {
		t.Error("the namespace enforces nothing: it takes a pod that is not restricted")
	}
	s.figure("injected pods of a restricted Deployment", "admitted and ready; a pod that is not restricted is refused")
}
