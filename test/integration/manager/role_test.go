//go:build integration

package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/embedded"
)

const (
	handovers = 100
	// every so many handovers the leader is deleted, deleted by force or evicted, in turn.
	incident = 10
)

// During many handovers no watch sees two leaders, and a Service that selects the leader has one endpoint at most.
func TestRoles(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		const replicas = 3
		s := newScene(t, mode)
		_, err := cluster.Client().CoreV1().Services(s.ns).Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "leader"},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": lockName, roleLabel: "leader"}, Ports: []corev1.ServicePort{{Port: 8080}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.deploy(replicas, s.spec(sleeper))
		var lags []time.Duration
		for i := range handovers {
			leader := s.awaitLabels("", replicas)
			switch {
			case i%incident > 0:
				s.resign(leader)
			case i/incident%3 == 0:
				s.deletePod(leader, metav1.DeleteOptions{})
			case i/incident%3 == 1 && mode == elector.ModeLeaderForLife:
				s.control(embedded.Crash, leader)
				s.deletePod(leader, byForce)
			default:
				s.control(embedded.Evict, leader)
			}
			held := s.awaitSuccessor(leader)
			next := s.awaitLabels(leader.UID, replicas)
			s.mu.Lock()
			if labelled := last(s.labels); labelled.what == string(next.UID) {
				lags = append(lags, labelled.at.Sub(held))
			}
			s.mu.Unlock()
		}
		slices.Sort(lags)
		t.Logf("label after acquisition, as two watches saw it: median %s, 95th percentile %s, worst %s",
			lags[len(lags)/2], lags[len(lags)*95/100], lags[len(lags)-1])
		s.await("an endpoint", func() error {
			if s.most != 1 {
				return fmt.Errorf("the Service never had one, but %d", s.most)
			}
			return nil
		})
	})
}

// resign makes the leader hand over. The lock, and with it the label, says that a pod leads before the pod has read it.
func (s *scene) resign(leader *corev1.Pod) {
	s.t.Helper()
	ask := func(ctx context.Context, method, path string, want int) error {
		request, err := http.NewRequestWithContext(ctx, method, "http://"+wire(leader.Status.PodIP)+":4040"+path, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != want {
			return fmt.Errorf("%s %s: %s", method, path, response.Status)
		}
		return nil
	}
	s.poll("the leader to know", func(ctx context.Context) error { return ask(ctx, http.MethodGet, "/leader", http.StatusOK) })
	if err := ask(s.t.Context(), http.MethodPost, "/resign", http.StatusNoContent); err != nil {
		s.t.Fatal(err)
	}
}

// Who labels changes, too: the next manager knows what the one before wrote.
func TestRolesManagerChanges(t *testing.T) {
	s := newScene(t, elector.ModeLease)
	s.deploy(2, s.spec(sleeper))
	for range 3 {
		s.deleteManager()
		for range 10 {
			leader := s.awaitLabels("", 2)
			s.resign(leader)
			s.awaitLabels(leader.UID, 2)
		}
		s.awaitManagers()
	}
}

// deleteManager deletes the replica of the manager that labels.
func (s *scene) deleteManager() {
	s.t.Helper()
	lease, err := cluster.Client().CoordinationV1().Leases("elector-system").Get(s.t.Context(), "elector-webhook", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cluster.Client().CoreV1().Pods("elector-system").Delete(s.t.Context(), elector.NameOf(*lease.Spec.HolderIdentity), metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) awaitManagers() {
	s.t.Helper()
	s.poll("the managers to be ready", func(ctx context.Context) error {
		d, err := cluster.Client().AppsV1().Deployments("elector-system").Get(ctx, "elector-webhook", metav1.GetOptions{})
		if err == nil && (d.Status.AvailableReplicas != *d.Spec.Replicas || d.Status.Replicas != *d.Spec.Replicas) {
			err = fmt.Errorf("%d are", d.Status.AvailableReplicas)
		}
		return err
	})
}

// A leader whose Pod object is gone, label and all, does not keep the next one from its label.
func TestRolesVanished(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	s.deploy(2, s.spec(sleeper), elector.FieldLeaseDuration, "4s", elector.FieldRenewDeadline, "2s", elector.FieldRetryPeriod, "500ms")
	old := s.awaitLabels("", 2)
	s.control(embedded.Crash, old)
	s.deletePod(old, byForce)
	held := s.awaitSuccessor(old)
	s.awaitLabels(old.UID, 2)
	t.Logf("labelled %s after it led", last(s.labels).at.Sub(held))
}

// Nor does one whose name another pod has got meanwhile, as in a StatefulSet.
func TestRolesRecreated(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	quick := []string{elector.FieldLeaseDuration, "4s", elector.FieldRenewDeadline, "2s", elector.FieldRetryPeriod, "500ms"}
	s.pod("web-0", sleeper, quick...)
	old := s.awaitLabels("", 1)
	s.pod("web-1", sleeper, quick...)
	s.awaitLabels("", 2)
	s.control(embedded.Crash, old)
	s.deletePod(old, byForce)
	s.await("the object to be gone", func() error {
		if s.pods[old.UID] != nil {
			return errors.New("it is there")
		}
		return nil
	})
	s.pod("web-0", sleeper, quick...)
	held := s.awaitSuccessor(old)
	s.awaitLabels(old.UID, 2)
	t.Logf("labelled %s after it led", last(s.labels).at.Sub(held))
}

// A label that somebody else wrote is put right.
func TestRolesRepaired(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	s.deploy(2, s.spec(sleeper))
	leader := s.awaitLabels("", 2)
	for _, patch := range []string{`{"metadata":{"labels":{"elector.io/role":null}}}`, `{"metadata":{"labels":{"elector.io/role":"standby"}}}`} {
		before, err := cluster.Client().CoreV1().Pods(s.ns).Patch(t.Context(), leader.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.await("the label", func() error {
			if pod := s.pods[leader.UID]; pod.ResourceVersion <= before.ResourceVersion || pod.Labels[roleLabel] != "leader" {
				return errors.New(pod.Labels[roleLabel])
			}
			return nil
		})
	}
}

// A lock that somebody else made has no label of elector's; its pods get theirs all the same.
func TestRolesAdopted(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	_, err := cluster.Client().CoordinationV1().Leases(s.ns).Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: lockName, Annotations: map[string]string{"elector.io/adopt": "true"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.deploy(2, s.spec(sleeper))
	leader := s.awaitLabels("", 2)
	s.resign(leader)
	held := s.awaitSuccessor(leader)
	s.awaitLabels(leader.UID, 2)
	t.Logf("labelled %s after it led", last(s.labels).at.Sub(held))
}
