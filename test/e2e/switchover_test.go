//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/witness"
)

// switchovers is how often leadership is moved by hand, in each mode.
const switchovers = 5

// Leadership is moved with kubectl while applications write into a storage with their fencing tokens: one leader writes after the other.
func testSwitchover(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "`kubectl elector switchover` under load", mode)
		s.storage()
		s.deploy(lock, 3, func(t *corev1.PodTemplateSpec) {
			t.Spec.Containers[0].Args = []string{"-write", "http://storage/storage"}
		}, defaults...)
		leader := s.leader(lock, 4)
		s.awaitApp(leader)
		s.writes(1)
		var took []time.Duration
		for n := range switchovers {
			args := []string{"elector", "switchover", inject.DefaultLock(lock, mode), "-n", s.ns}
			to := s.follower(leader)
			if mode == modeLease {
				args = append(args, "--to", to.Name)
			}
			asked := boot()
			out, err := kubectl(t.Context(), args...)
			s.ok(err)
			took = append(took, boot()-asked)
			s.step("%s", out)
			s.writes(n + 2)
			s.handedOver(leader)
			if next := s.leader(lock, 4); mode == modeLease && next.UID != to.UID {
				t.Errorf("%s leads after a switchover to %s", next.Name, to.Name)
			} else {
				leader = next
			}
		}
		s.figure("kubectl started until it says that it is done", spread(took))
		s.checkWrites(s.writes(switchovers + 1))
	})
}

// storage makes one that refuses writes with older tokens, as a Service of this name.
func (s *scene) storage() {
	s.t.Helper()
	template := podTemplate("storage", "-storage")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "storage", Labels: template.Labels}, Spec: template.Spec}
	_, err := world.client.CoreV1().Pods(s.ns).Create(s.t.Context(), pod, metav1.CreateOptions{})
	s.ok(err)
	_, err = world.client.CoreV1().Services(s.ns).Create(s.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "storage"},
		Spec:       corev1.ServiceSpec{Selector: template.Labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}},
	}, metav1.CreateOptions{})
	s.ok(err)
}

// follower is a candidate that is ready and is not the leader.
func (s *scene) follower(leader *corev1.Pod) (follower *corev1.Pod) {
	s.t.Helper()
	s.await("a follower", func() error {
		for _, pod := range s.pods {
			if pod.Labels["app"] == lock && pod.UID != leader.UID && isReady(pod) && pod.DeletionTimestamp == nil {
				follower = pod
				return nil
			}
		}
		return fmt.Errorf("there is none beside %s", leader.Name)
	})
	return follower
}

// writes waits until so many leaders have written into the storage, and returns what they have.
func (s *scene) writes(leaders int) (epochs []witness.Epoch) {
	s.t.Helper()
	s.poll("leaders to write", func() error {
		out, err := s.get(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "storage"}}, "http://127.0.0.1:8080/storage")
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(out), &epochs); err != nil {
			return fmt.Errorf("what the storage says: %w", err)
		}
		if len(epochs) < leaders {
			return fmt.Errorf("%d have", len(epochs))
		}
		return nil
	})
	return epochs
}

// checkWrites checks that one leader wrote after the other. A write that was under way when its leader was told to stop may come late on a
// busy machine; the storage refuses it, which is what tokens are for.
func (s *scene) checkWrites(epochs []witness.Epoch) {
	s.t.Helper()
	if len(epochs) != switchovers+1 {
		s.t.Errorf("there were %d leaders after %d switchovers: %+v", len(epochs), switchovers, epochs)
	}
	var gaps []time.Duration
	writes, refused := 0, 0
	for i, e := range epochs {
		writes, refused = writes+e.Writes, refused+e.Refused
		if i > 0 {
			gaps = append(gaps, e.First-epochs[i-1].Last)
		}
	}
	s.figure("last write of a leader until the first of the next", spread(gaps))
	s.figure("writes with fencing tokens", fmt.Sprintf("%d, of which %d came too late", writes+refused, refused))
}
