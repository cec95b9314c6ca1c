//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
	"github.com/elector-io/elector/test/witness"
)

func TestElection(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newSpace(t)
		e := s.elect(s.deployment("web", annotations(mode)))
		leader, seen := e.awaitLeader("")

		if seen.Name != leader {
			t.Errorf("the leader file says %q in %s", seen.Name, leader)
		}
		for _, name := range e.names() {
			checkStatus(t, e, name, leader, mode)
			checkFirstSight(t, e, name)
			checkHTTP(t, e, name, leader)
		}
		if holder := s.holder(mode, inject.DefaultLock("web", mode)); holder != elector.Identity(leader, string(e.pods[leader].UID)) {
			t.Errorf("the lock's holder is %q, the leader is %s", holder, leader)
		}
	})
}

// holder is the identity in a lock.
func (s *space) holder(mode elector.Mode, lock string) string {
	s.t.Helper()
	object, err := s.lock(s.t.Context(), mode, lock)
	if err != nil {
		s.t.Fatal(err)
	}
	if lease, ok := object.(*coordinationv1.Lease); ok {
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	owners := object.GetOwnerReferences()
	if len(owners) != 1 || owners[0].Kind != "Pod" {
		s.t.Fatalf("the lock's owners are %v", owners)
	}
	return elector.Identity(owners[0].Name, string(owners[0].UID))
}

func (s *space) lock(ctx context.Context, mode elector.Mode, name string) (metav1.Object, error) {
	if mode == elector.ModeLeaderForLife {
		return cluster.Client().CoreV1().ConfigMaps(s.name).Get(ctx, name, metav1.GetOptions{})
	}
	return cluster.Client().CoordinationV1().Leases(s.name).Get(ctx, name, metav1.GetOptions{})
}

// awaitQuiet waits until the manager has noted on a lock that all replicas may go first, which is the last that is written on the lock of a
// workload that has just begun, but for renewals; and until the leader has seen that.
func (e *election) awaitQuiet(mode elector.Mode, lock, leader string) {
	e.t.Helper()
	eventually(e.t, "the manager to note who goes first", func(ctx context.Context) error {
		object, err := e.lock(ctx, mode, lock)
		if err != nil {
			return err
		}
		if names := elector.ParseNext(object.GetAnnotations()[elector.NextAnnotation]); len(names) != replicas {
			return fmt.Errorf("it names %v", names)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if seen := e.last(leader).Status.LockVersion; strconv.FormatUint(seen, 10) != object.GetResourceVersion() {
			return fmt.Errorf("the lock is at %s, the leader at %d", object.GetResourceVersion(), seen)
		}
		return nil
	})
}

func checkStatus(t *testing.T, e *election, name, leader string, mode elector.Mode) {
	t.Helper()
	e.mu.Lock()
	pod, seen := e.pods[name], e.last(name)
	e.mu.Unlock()
	got := seen.Status
	want := elector.Status{
		Role: elector.RoleStandby, Identity: elector.Identity(name, string(pod.UID)), Leader: leader, Lock: inject.DefaultLock("web", mode), Namespace: e.space.name, Mode: mode,
		Since: got.Since,
	}
	if name == leader {
		want.Role, want.FencingToken, want.LockVersion = elector.RoleLeader, got.FencingToken, got.LockVersion
		if got.FencingToken == 0 || got.LockVersion < got.FencingToken {
			t.Errorf("a leader with fencing token %d, of a lock at version %d", got.FencingToken, got.LockVersion)
		}
		if mode == elector.ModeLease && got.Renewed != nil {
			until := got.Renewed.Add(elector.DefaultRenewDeadline)
			want.Renewed, want.ValidUntil, want.ValidUntilBoottime = got.Renewed, &until, got.ValidUntilBoottime
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status.json of %s (-want +got):\n%s", name, diff)
	}
	at := time.Now().Add(seen.At - witness.Now())
	if age := at.Sub(got.Since); age < 0 || age > embedded.Patience {
		t.Errorf("%s is what it is since %s, seen at %s", name, got.Since, at)
	}
}

// checkFirstSight proves what the app was given, and that it cannot forge a leader file.
func checkFirstSight(t *testing.T, e *election, name string) {
	t.Helper()
	e.mu.Lock()
	found, wrote := e.started(name)
	ip := e.pods[name].Status.PodIP
	e.mu.Unlock()
	if wrote != "refused: read-only file system" {
		t.Errorf("writing a leader file in %s: %s", name, wrote)
	}
	if found.Token {
		t.Errorf("the app in %s has the sidecar's token", name)
	}
	want := map[string]string{"ELECTOR_STATUS_DIR": "/var/run/elector", "ELECTOR_URL": "http://" + wire(ip) + ":4040", "POD_NAME": name}
	if diff := cmp.Diff(want, found.Env); diff != "" {
		t.Errorf("environment of the app in %s (-want +got):\n%s", name, diff)
	}
}

// wire is the address at which a pod of the embedded cluster really listens, its loopback included.
func wire(podIP string) string {
	_, rest, _ := strings.Cut(podIP, ".")
	return "127." + rest
}

func checkHTTP(t *testing.T, e *election, name, leader string) {
	t.Helper()
	e.mu.Lock()
	ip, seen := wire(e.pods[name].Status.PodIP), e.last(name)
	e.mu.Unlock()
	role, code := elector.RoleStandby, http.StatusServiceUnavailable
	if name == leader {
		role, code = elector.RoleLeader, http.StatusOK
	}
	for url, want := range map[string]int{":4040/leader": code, ":4041/leader": code, ":4041/healthz": http.StatusOK, ":4041/metrics": http.StatusOK} {
		if got, body := get(t, "http://"+ip+url); got != want {
			t.Errorf("GET %s of %s, a %s: %d, want %d: %s", url, name, role, got, want, body)
		}
	}
	if _, body := get(t, "http://"+ip+":4040/"); strings.TrimSpace(body) != fmt.Sprintf(`{"name":%q}`, leader) {
		t.Errorf("GET / of %s: %s, the leader is %s", name, body, leader)
	}
	var status elector.Status
	if _, body := get(t, "http://"+ip+":4040/status"); json.Unmarshal([]byte(body), &status) != nil || status.Role != role || status.FencingToken != seen.Status.FencingToken {
		t.Errorf("GET /status of %s: %s, the file says %v", name, body, seen.Status)
	}
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func (e *election) deletePod(name string, options metav1.DeleteOptions) {
	e.t.Helper()
	if err := cluster.Client().CoreV1().Pods(e.space.name).Delete(e.t.Context(), name, options); err != nil {
		e.t.Fatal("deleting the leader:", err)
	}
}

// A deleted leader hands over: nobody waits for the lease to run out.
func TestHandover(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newSpace(t)
		// A lease that is not released runs out long after the test's patience has.
		e := s.elect(s.deployment("web", annotations(mode, elector.FieldLeaseDuration, "10m", elector.FieldRenewDeadline, "5m")))
		for range 2 {
			old, before := e.awaitLeader("")
			start := time.Now()
			e.deletePod(old, metav1.DeleteOptions{})
			next, after := e.awaitLeader(old)
			t.Logf("%s led %s after the deletion of %s", next, after.Status.Since.Sub(start), old)
			if after.Status.FencingToken <= before.Status.FencingToken {
				t.Errorf("fencing token %d after %d", after.Status.FencingToken, before.Status.FencingToken)
			}
			e.awaitReady()
		}
	})
}

// A leader that dies without a word is replaced when its claim must have ended, and not before.
func TestTakeoverLease(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	const leaseDuration, renewDeadline = 6 * time.Second, 4 * time.Second
	e := s.elect(s.deployment("web", annotations(elector.ModeLease, elector.FieldLeaseDuration, leaseDuration.String(),
		elector.FieldRenewDeadline, renewDeadline.String(), elector.FieldRetryPeriod, "1s")))
	old, _ := e.awaitLeader("")
	e.crash(old)
	e.mu.Lock()
	crashed, validUntil := e.crashed[old], *e.last(old).Status.ValidUntil
	e.mu.Unlock()

	next, after := e.awaitLeader(old)
	t.Logf("%s led %s after the crash of %s", next, after.Status.Since.Sub(crashed), old)
	if after.Status.Since.Before(validUntil) {
		t.Errorf("%s leads since %s, but the claim of %s was valid until %s", next, after.Status.Since.Format(time.StampMilli), old, validUntil.Format(time.StampMilli))
	}
	if late := after.Status.Since.Sub(crashed) - leaseDuration; late > leaseDuration {
		t.Errorf("the takeover came %s after the lease had run out", late)
	}
}

// Who leads for life is succeeded when its Pod is gone. Until then its process may be running, on a node that nobody can ask.
func TestTakeoverLeaderForLife(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	e := s.elect(s.deployment("web", annotations(elector.ModeLeaderForLife)))
	old, _ := e.awaitLeader("")
	e.crash(old)
	// It is not to happen, so there is nothing to wait for but time.
	if err := e.awaitFor(3*time.Second, func() error {
		for _, c := range e.claims(witness.ByFile) {
			if c.UID != old {
				return nil
			}
		}
		return errNobody
	}); !errors.Is(err, errNobody) {
		t.Fatalf("%v; somebody leads while the Pod of %s is there: %v", err, old, e.claimsSince(0, old))
	}
	start := time.Now()
	e.deletePod(old, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	next, after := e.awaitLeader(old)
	t.Logf("%s led %s after the Pod of %s was removed", next, after.Status.Since.Sub(start), old)
}

var errNobody = errors.New("nobody else leads")

// crash kills every process of the pod, as the loss of its node would.
func (e *election) crash(pod string) {
	e.t.Helper()
	if err := cluster.Control(e.t.Context(), embedded.Crash, e.space.name, pod); err != nil {
		e.t.Fatal(err)
	}
	e.change(func() { e.crashed[pod] = time.Now() })
}

// A sidecar that is killed comes back as the same candidate: it resumes its claim with the same fencing token, and meanwhile nobody
// else leads.
func TestSidecarRestart(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newSpace(t)
		e := s.elect(s.deployment("web", annotations(mode)))
		leader, _ := e.awaitLeader("")
		var before sight
		e.await("a renewal", func() error { // which writes the fencing token down
			if before = e.last(leader); mode == elector.ModeLease && !before.Status.Renewed.After(before.Status.Since) {
				return errors.New("the claim has not been renewed yet")
			}
			return nil
		})
		e.awaitQuiet(mode, inject.DefaultLock("web", mode), leader) // an edit while the sidecar is down costs the claim

		killed, clock := time.Now(), witness.Now()
		if err := syscall.Kill(e.pidOf(leader), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		e.await("the sidecar to withdraw what its former self claimed, and to lead again", func() error {
			if restarts := sidecarOf(e.pods[leader]).RestartCount; restarts != 1 {
				return fmt.Errorf("it has restarted %d times", restarts)
			}
			withdrawn := false
			for _, seen := range e.sights[leader] {
				if seen.At > clock && !seen.Leads {
					withdrawn = true
				}
			}
			if !withdrawn {
				return errors.New("the leader file has not been removed")
			}
			if now := e.last(leader); !now.Leads {
				return fmt.Errorf("it is a %s", now.Status.Role)
			}
			return nil
		})
		e.mu.Lock()
		after := e.last(leader)
		e.mu.Unlock()
		t.Logf("%s led again %s after the kill", leader, after.Status.Since.Sub(killed))
		if after.Status.FencingToken != before.Status.FencingToken {
			t.Errorf("the fencing token was %d and is %d", before.Status.FencingToken, after.Status.FencingToken)
		}
		if others := e.claimsSince(0, leader); len(others) > 0 {
			t.Errorf("others led: %v", others)
		}
		if holder := s.holder(mode, inject.DefaultLock("web", mode)); !strings.HasPrefix(holder, leader+"_") {
			t.Errorf("the lock's holder is %q", holder)
		}
	})
}

// Two locks in one namespace do not disturb each other.
func TestTwoLocks(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a := s.elect(s.deployment("a", annotations(elector.ModeLease)))
	b := s.elect(s.deployment("b", annotations(elector.ModeLease, elector.FieldLock, "other")))
	leader, before := b.awaitLeader("")
	start := witness.Now()

	old, _ := a.awaitLeader("")
	a.deletePod(old, metav1.DeleteOptions{})
	a.awaitLeader(old)
	a.awaitReady()

	if again, after := b.awaitLeader(""); again != leader || after.Status.FencingToken != before.Status.FencingToken || !after.Status.Since.Equal(before.Status.Since) {
		t.Errorf("the other lock's leader was %s with token %d, is %s with %d", leader, before.Status.FencingToken, again, after.Status.FencingToken)
	}
	if claims := b.claimsSince(start, ""); len(claims) > 0 {
		t.Errorf("the other lock changed hands: %v", claims)
	}
	if holder := s.holder(elector.ModeLease, "other"); !strings.HasPrefix(holder, leader+"_") {
		t.Errorf("the other lock's holder is %q", holder)
	}
}

// An annotation on a running Deployment elects, and its removal takes the workload back to what it was.
func TestAnnotateAndBack(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	e := s.follow("web")
	if _, err := cluster.Client().AppsV1().Deployments(s.name).Create(t.Context(), s.deployment("web", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e.awaitReady()
	plain := s.template()
	awaitInjected := func(want bool) {
		t.Helper()
		e.await("the rollout", func() error {
			for name, pod := range e.pods {
				if injected(pod) != want {
					return fmt.Errorf("%s: injected %t, want %t", name, injected(pod), want)
				}
			}
			return nil
		})
		e.awaitReady()
	}

	s.kubectl("annotate", "deployment", "web", "elector.io/enabled=true")
	awaitInjected(true)
	e.awaitLeader("")

	s.kubectl("annotate", "deployment", "web", "elector.io/enabled-")
	awaitInjected(false)
	if diff := cmp.Diff(plain, s.template()); diff != "" {
		t.Errorf("the pod template before annotating and after (-before +after):\n%s", diff)
	}
	sets, err := cluster.Client().AppsV1().ReplicaSets(s.name).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(sets.Items) != 2 {
		t.Errorf("there are %d ReplicaSets, the roll back should have found the first of 2", len(sets.Items))
	}
	s.awaitNoGrants()
}

// template is the pod template of the Deployment.
func (s *space) template() corev1.PodTemplateSpec {
	s.t.Helper()
	d, err := cluster.Client().AppsV1().Deployments(s.name).Get(context.WithoutCancel(s.t.Context()), "web", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return d.Spec.Template
}
