//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/history"
)

// A sidecar that is killed with SIGKILL resumes its claim: nobody else leads, and the token stays.
func testKillSidecar(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "`kill -9` of the leader's sidecar", mode)
		s.deploy("web", 2, nil, defaults...)
		leader := s.leader("web", 2)
		s.awaitApp(leader)
		s.noted(inject.DefaultLock("web", s.mode), 2)
		pid := sidecarPID(s, leader)
		killed := boot()
		_, err := nodeOf(leader).sh("kill -9 " + pid)
		s.ok(err)
		s.step("the sidecar of %s is killed", leader.Name)
		s.resumes(leader)
		before, after := s.resumption(leader)
		s.figure("killed until the same leader claims again, with the same token", seconds(after.Begin-killed))
		if before.Begin > killed || after.Begin < killed {
			t.Errorf("killed at %s between %s and %s", killed, &before, &after)
		}
	})
}

// kind is that of the scene's locks, as kubectl and the names of grants have it.
func (s *scene) kind() string {
	return map[elector.Mode]string{modeLease: "lease", modeLife: "configmap"}[s.mode]
}

// noted waits until the manager has noted on a lock so many that go first, and the leader in lease mode has renewed after that. An edit
// of the lock while the leader's sidecar is down, or cannot see it, costs the claim; so does a renewal that the sidecar does not outlive.
func (s *scene) noted(lock string, n int) {
	s.t.Helper()
	look := func(field string) (string, error) {
		return kubectl(s.t.Context(), "-n", s.ns, "get", s.kind(), lock, "-o", "jsonpath={"+field+"}")
	}
	s.poll("the manager to note who goes first", func() error {
		value, err := look(`.metadata.annotations.elector\.io/next`)
		if err == nil && len(elector.ParseNext(value)) != n {
			err = fmt.Errorf("it names %q", value)
		}
		return err
	})
	if s.mode == modeLife {
		return
	}
	before, err := look(".spec.renewTime")
	s.ok(err)
	s.poll("a renewal", func() error {
		after, err := look(".spec.renewTime")
		if err == nil && after == before {
			err = errors.New("there is none")
		}
		return err
	})
}

// sidecarPID is the process ID of a pod's sidecar on its node.
func sidecarPID(s *scene, pod *corev1.Pod) string {
	s.t.Helper()
	return s.pidOf(pod, &pod.Status.InitContainerStatuses[0])
}

// pidOf is the first process of one of the pod's containers, on its node.
func (s *scene) pidOf(pod *corev1.Pod, container *corev1.ContainerStatus) string {
	s.t.Helper()
	_, id, _ := strings.Cut(container.ContainerID, "://")
	out, err := nodeOf(pod).sh("crictl inspect --output go-template --template '{{.info.pid}}' " + id)
	s.ok(err)
	return strings.TrimSpace(out)
}

// weight is what a process and its container's cgroup are charged for: page tables, anonymous memory and the kernel's, in bytes.
const weight = `
awk '/^VmPTE:/ {print $2 * 1024}' /proc/%[1]s/status
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	dir=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/%[1]s/cgroup)
	awk '/^anon / {print $2}' $dir/memory.stat
	awk '/^kernel / {print $2}' $dir/memory.stat
else
	dir=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/%[1]s/cgroup)
	awk '/^rss / {print $2}' $dir/memory.stat
	cat $dir/memory.kmem.usage_in_bytes
fi`

// weigh says what the pod's sidecar costs its node, but for the pages of its program, which all sidecars of a node share.
func (s *scene) weigh(pod *corev1.Pod, role string) {
	s.t.Helper()
	out, err := nodeOf(pod).sh(fmt.Sprintf(weight, sidecarPID(s, pod)))
	s.ok(err)
	var tables, anonymous, kernel float64
	if _, err := fmt.Sscan(out, &tables, &anonymous, &kernel); err != nil {
		s.ok(fmt.Errorf("%q: %w", out, err))
	}
	s.figure("memory charged to the sidecar of a "+role+", without the pages of its program",
		fmt.Sprintf("%.1f MB anonymous, %.1f MB the kernel's, %.2f MB of it page tables", anonymous/1e6, kernel/1e6, tables/1e6))
}

// resumes waits until the kubelet has restarted the leader's sidecar and its app knows again that it leads.
func (s *scene) resumes(leader *corev1.Pod) {
	s.t.Helper()
	s.await("the sidecar to be restarted", func() error {
		pod := s.pods[leader.UID]
		if pod == nil || pod.Status.InitContainerStatuses[0].RestartCount == 0 || !isReady(pod) {
			return fmt.Errorf("%s is not", leader.Name)
		}
		return nil
	})
	s.poll("the claim to be resumed", func() error {
		p := s.past()
		c, err := last(p.made, "web", leader.UID, false)
		if err == nil && (!claimedAgain(p.made, leader) || c.Reason != "") {
			err = fmt.Errorf("the last claim is %s", &c)
		}
		return err
	})
}

func claimedAgain(made []history.Claim, leader *corev1.Pod) bool {
	n := 0
	for i := range made {
		if made[i].UID == string(leader.UID) {
			n++
		}
	}
	return n > 1
}

// resumption checks that the leader alone has ever led, and returns its first claim and its last.
func (s *scene) resumption(leader *corev1.Pod) (first, last history.Claim) {
	s.t.Helper()
	made := s.past().made
	for i := range made {
		if made[i].UID != string(leader.UID) || made[i].Token != made[0].Token {
			s.t.Errorf("the claim of %s was not resumed, but:\n%s\n%s", leader.Name, &made[0], &made[i])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if holders := s.holders["web"]; len(holders) != 1 {
		s.t.Errorf("the lock was held by %v", holders)
	}
	return made[0], made[len(made)-1]
}

// squeeze lowers the memory limit of a process to what it has, which takes the pages away that can be read again.
const squeeze = `
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	dir=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/%[1]s/cgroup)
	echo 1 >$dir/memory.max
else
	dir=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/%[1]s/cgroup)
	for limit in 1 2 3 4 5 6 7 8 9 10 11 12; do
		if echo $((limit * 1024 * 1024)) >$dir/memory.limit_in_bytes; then break; fi 2>/dev/null
	done
	cat $dir/memory.limit_in_bytes $dir/memory.usage_in_bytes
fi`

// flood opens connections to the sidecar's health port, each of which takes memory.
const flood = `for i in {1..200}; do exec {fd}<>/dev/tcp/%s/4041 && printf 'GET /metrics HTTP/1.1\r\nHost: x\r\n' >&$fd; done; sleep 1`

// A sidecar that the kernel kills for its memory resumes its claim as well.
func testSidecarOutOfMemory(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "OOM kill of the leader's sidecar", mode)
		s.deploy("web", 2, nil, defaults...)
		leader := s.leader("web", 2)
		s.awaitApp(leader)
		s.noted(inject.DefaultLock("web", s.mode), 2)
		n, pid := nodeOf(leader), sidecarPID(s, leader)
		out, err := n.sh(fmt.Sprintf(squeeze, pid))
		s.ok(err)
		s.step("the memory limit is lowered to the least: %s", strings.Join(strings.Fields(out), ", in use "))
		s.poll("the sidecar to be killed", func() error {
			_, err := n.sh(fmt.Sprintf("kill -0 %[1]s 2>/dev/null || exit 0; ("+flood+") 2>/dev/null; ! kill -0 %[1]s 2>/dev/null", pid, leader.Status.PodIP))
			return err
		})
		s.resumes(leader)
		s.mu.Lock()
		ended := s.pods[leader.UID].Status.InitContainerStatuses[0].LastTerminationState.Terminated
		s.mu.Unlock()
		if ended == nil || ended.Reason != "OOMKilled" {
			t.Errorf("the sidecar was not killed for its memory, but: %+v", ended)
		}
		s.resumption(leader)
		s.figure("the same leader claims again, with the same token; nobody else has", "reason OOMKilled")
	})
}

// A leader that is evicted through the API hands over like one that is deleted.
func testEvict(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Eviction by API", mode)
		s.deploy("web", 2, nil)
		leader := s.leader("web", 2)
		s.awaitApp(leader)
		evicted := boot()
		s.ok(world.client.PolicyV1().Evictions(s.ns).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: leader.Name, Namespace: s.ns}}))
		s.step("%s is evicted", leader.Name)
		before, after, seen := s.succession("web", leader)
		stops := s.stopped(leader, "app")
		if stops > before.End {
			t.Errorf("the claim ended %s before the app had stopped", stops-before.End)
		}
		s.figure("claim ends until the next begins", seconds(after.Begin-before.End))
		s.figure("evicted until the next leader's app knows", seconds(seen.Begin-evicted))
	})
}
