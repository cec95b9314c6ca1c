//go:build integration

package availability

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

// The reconcilers move, or come back, long before a lease would have run out. What counts is their work: the time from the accident until a
// pod that was created right after it is granted its lock. Other managers are there, but grant nothing in this namespace.
func TestReconcilersMove(t *testing.T) {
	t.Parallel()
	i := install(t, "extraArgs={--lease-duration=60s,--renew-deadline=40s}") // nobody takes a busy machine for a lease that ran out
	i.awaitReplicas(2)
	lease, leader := i.leader()
	whole := time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
	accidents := []struct {
		what   string
		happen func(*corev1.Pod)
		moves  bool
	}{
		{"the leader's pod is deleted", func(pod *corev1.Pod) { i.kubectl("delete", "pod", pod.Name, "--wait=false") }, true},
		// A restarted process of the same Pod is the same candidate: it goes on.
		{"the leader's process is killed", func(pod *corev1.Pod) { i.kill(pod) }, false},
	}
	for n, a := range accidents {
		i.granted(fmt.Sprintf("before-%d", n)) // the leader works
		begun := time.Now()
		a.happen(leader)
		i.granted(fmt.Sprintf("after-%d", n))
		took := time.Since(begun)
		_, now := i.leader()
		t.Logf("%s: a new pod was granted its lock %s after; the leader is another one: %v", a.what, took.Round(time.Millisecond), now.UID != leader.UID)
		if took > whole/2 {
			t.Errorf("%s: it took %s, and a lease is only %s", a.what, took, whole)
		}
		if moved := now.UID != leader.UID; moved != a.moves {
			t.Errorf("%s: moved %v, want %v", a.what, moved, a.moves)
		}
		leader = now
		i.awaitReplicas(2)
	}
}

// granted creates a pod with a lock of its own and waits for the grant.
func (i *installation) granted(lock string) {
	i.t.Helper()
	annotations := map[string]string{inject.Prefix + "enabled": "true", inject.Prefix + elector.FieldLock: lock}
	eventually(i.t, "a pod", func(ctx context.Context) error {
		_, err := cluster.Client().CoreV1().Pods(i.apps).Create(ctx, i.gated(annotations), metav1.CreateOptions{})
		return err
	})
	eventually(i.t, "the grant of "+lock, func(ctx context.Context) error {
		_, err := cluster.Client().RbacV1().RoleBindings(i.apps).Get(ctx, "elector:lease:"+lock+":default", metav1.GetOptions{})
		return err
	})
}

// leader waits until a replica that is there leads.
func (i *installation) leader() (lease *coordinationv1.Lease, pod *corev1.Pod) {
	i.t.Helper()
	eventually(i.t, "a leader", func(ctx context.Context) (err error) {
		lease, pod, err = i.holder(ctx)
		return err
	})
	return lease, pod
}

func (i *installation) holder(ctx context.Context) (*coordinationv1.Lease, *corev1.Pod, error) {
	lease, err := cluster.Client().CoordinationV1().Leases(i.name).Get(ctx, i.name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return nil, nil, errors.New("the lease has no holder")
	}
	name, uid, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	pod, err := cluster.Client().CoreV1().Pods(i.name).Get(ctx, name, metav1.GetOptions{})
	if err == nil && string(pod.UID) != uid {
		err = errors.New("the holder is gone")
	}
	return lease, pod, err
}

// A leader that is lost with its node, or frozen, is followed when its lease has run out, and not before.
func TestLeaderLost(t *testing.T) {
	t.Parallel()
	i := install(t, "extraArgs={--lease-duration=6s,--renew-deadline=3s,--retry-period=1s}")
	i.awaitReplicas(2)
	lease, old := i.leader()
	if err := cluster.Control(t.Context(), embedded.Crash, i.name, old.Name); err != nil {
		t.Fatal(err)
	}
	var next *coordinationv1.Lease
	eventually(t, "another leader", func(ctx context.Context) error {
		lease, now, err := i.holder(ctx)
		if err == nil && now.UID == old.UID {
			err = errors.New("it is still the old one")
		}
		next = lease
		return err
	})
	// Both times are this machine's. The old leader may have renewed once more after the first, which makes it longer.
	took, whole := next.Spec.AcquireTime.Sub(lease.Spec.RenewTime.Time), time.Duration(*lease.Spec.LeaseDurationSeconds)*time.Second
	t.Logf("another replica led %s after the renewal; the lease is %s", took.Round(time.Millisecond), whole)
	if took < whole {
		t.Errorf("it took %s, less than %s", took, whole)
	}
}
