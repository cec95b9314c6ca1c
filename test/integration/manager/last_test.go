//go:build integration

package manager

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
)

// rollouts is how many there are of each Deployment; make bench has ten.
var rollouts = flag.Int("rollouts", 2, "rollouts of each workload whose leader changes are counted")

// leaderCost is the deletion cost that the manager gives a leader.
const leaderCost = "2147483646"

// A rollout deletes the leader last, so that it changes once, into a pod that stays.
func TestRollout(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		for _, replicas := range []int{2, 3, 5} {
			t.Run(strconv.Itoa(replicas), func(t *testing.T) {
				t.Parallel()
				s := newScene(t, mode)
				s.deploy(replicas, s.spec(sleeper))
				begun := len(s.leaders())
				for i := range *rollouts {
					before := s.leaders()
					s.patch(`{"spec":{"template":{"metadata":{"annotations":{"rollout":"` + strconv.Itoa(i) + `"}}}}}`)
					s.awaitRollout(replicas)
					s.awaitLabels("", replicas)
					if changes := s.leaders()[len(before):]; len(changes) != 1 {
						t.Errorf("rollout %d made %d changes of leader: %v", i, len(changes), changes)
					}
				}
				t.Logf("%d rollouts of %d replicas made %d changes of leader", *rollouts, replicas, len(s.leaders())-begun)
			})
		}
	})
}

// A StatefulSet knows no deletion cost: it replaces its pods from the last to the first. Who follows a leader that is replaced is of the new
// revision or the first pod, so that the lead is passed on at most once more, however fast pods come.
func TestRolloutStatefulSet(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		const replicas, most = 3, 2
		s := newScene(t, mode)
		s.deploySet(replicas)
		for i := range *rollouts {
			s.lead(lockName+"-2", replicas) // which is replaced first
			before := s.leaders()
			s.patchWorkload("statefulsets", `{"spec":{"template":{"metadata":{"annotations":{"rollout":"`+strconv.Itoa(i)+`"}}}}}`)
			s.poll("the rollout", func(ctx context.Context) error {
				set, err := cluster.Client().AppsV1().StatefulSets(s.ns).Get(ctx, lockName, metav1.GetOptions{})
				if now := set.Status; err == nil && (now.ObservedGeneration < set.Generation || now.UpdatedReplicas != replicas || now.AvailableReplicas != replicas || now.CurrentRevision != now.UpdateRevision) {
					err = fmt.Errorf("%+v", now)
				}
				return err
			})
			s.awaitLabels("", replicas)
			if changes := s.leaders()[len(before):]; len(changes) > most {
				t.Errorf("rollout %d made %d changes of leader: %v", i, len(changes), changes)
			} else {
				t.Logf("rollout %d made %d changes of leader", i, len(changes))
			}
		}
	})
}

// The first pod of a StatefulSet is the one that stays, so it is who follows.
func TestScaleDownStatefulSet(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, mode)
		s.deploySet(4)
		s.lead(lockName+"-3", 4)
		before := s.leaders()
		s.patchWorkload("statefulsets", `{"spec":{"replicas":1}}`)
		now := s.awaitLabels("", 1)
		if changes := s.leaders()[len(before):]; now.Name != lockName+"-0" || len(changes) != 1 {
			t.Errorf("%s leads after %v", now.Name, changes)
		}
	})
}

// deploySet makes the scene's pods with a StatefulSet.
func (s *scene) deploySet(replicas int) {
	s.t.Helper()
	_, err := cluster.Client().AppsV1().StatefulSets(s.ns).Create(s.t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: lockName},
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(replicas)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": lockName}},
			Template: s.template(s.spec(sleeper)),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

// lead has the pod lead, and the manager note who comes first after it.
func (s *scene) lead(name string, replicas int) {
	s.t.Helper()
	for leader := s.awaitLabels("", replicas); leader.Name != name; leader = s.awaitLabels(leader.UID, replicas) {
		s.request(elector.Handover{To: name})
	}
	var all []string
	for i := range replicas {
		all = append(all, fmt.Sprintf("%s-%d", lockName, i))
	}
	want := elector.FormatNext(all)
	s.poll("the list of "+name, func(ctx context.Context) error {
		next, err := s.annotation(ctx, elector.NextAnnotation)
		if err == nil && next != want {
			err = fmt.Errorf("it is %q", next)
		}
		return err
	})
}

// Whom a scale-down removes is decided by who leads, not by age.
func TestScaleDown(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	s.deploy(1, s.spec(sleeper))
	for range 3 {
		s.patch(`{"spec":{"replicas":5}}`)
		oldest := s.awaitLabels("", 5) // which else would stay
		s.resign(oldest)
		leader := s.awaitLabels(oldest.UID, 5)
		s.awaitCosts(map[types.UID]string{leader.UID: leaderCost})
		before := s.leaders()
		s.patch(`{"spec":{"replicas":1}}`)
		if now := s.awaitLabels("", 1); now.UID != leader.UID || len(s.leaders()) != len(before) {
			t.Errorf("the leader was %s, and is %s: %v", leader.Name, now.Name, s.leaders()[len(before):])
		}
	}
}

// What a pod says itself that its deletion costs is nobody else's to change.
func TestOwnCost(t *testing.T) {
	t.Parallel()
	s := newScene(t, elector.ModeLease)
	s.deploy(2, s.spec(sleeper))
	a := s.awaitLabels("", 2)
	s.awaitCosts(map[types.UID]string{a.UID: leaderCost})
	s.resign(a)
	b := s.awaitLabels(a.UID, 2)
	s.awaitCosts(map[types.UID]string{b.UID: leaderCost})

	s.cost(a, `"5"`)
	s.cost(b, `"2147483647"`)
	s.resign(b)
	s.awaitLabels(b.UID, 2)
	s.barrier()
	s.awaitCosts(map[types.UID]string{a.UID: "5", b.UID: "2147483647"})
	s.cost(a, "null")
	s.awaitCosts(map[types.UID]string{a.UID: leaderCost, b.UID: "2147483647"})
}

// leaders are the holders of the lock so far, one after the other, in the order of their claims.
func (s *scene) leaders() (leaders []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := ""
	for _, h := range s.holders {
		if h.what != "" && h.what != before {
			leaders = append(leaders, h.what)
			before = h.what
		}
	}
	return leaders
}

// patch changes the Deployment.
func (s *scene) patch(patch string) {
	s.t.Helper()
	s.patchWorkload("deployments", patch)
}

func (s *scene) patchWorkload(resource, patch string) {
	s.t.Helper()
	workload := cluster.Client().AppsV1().RESTClient().Patch(types.StrategicMergePatchType).Namespace(s.ns).Resource(resource).Name(lockName)
	if err := workload.Body([]byte(patch)).Do(s.t.Context()).Error(); err != nil {
		s.t.Fatal(err)
	}
}

// cost writes a pod's deletion cost as a person does.
func (s *scene) cost(pod *corev1.Pod, value string) {
	s.t.Helper()
	patch := `{"metadata":{"annotations":{"` + corev1.PodDeletionCost + `":` + value + `}}}`
	if _, err := cluster.Client().CoreV1().Pods(s.ns).Patch(s.t.Context(), pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// awaitCosts waits until pods have these deletion costs, and the others none.
func (s *scene) awaitCosts(want map[types.UID]string) {
	s.t.Helper()
	s.await("deletion costs", func() error {
		var wrong []string
		for uid, pod := range s.pods {
			if got := pod.Annotations[corev1.PodDeletionCost]; got != want[uid] {
				wrong = append(wrong, fmt.Sprintf("%s has %q, want %q", pod.Name, got, want[uid]))
			}
		}
		if len(wrong) > 0 {
			return fmt.Errorf("%s", strings.Join(wrong, ", "))
		}
		return nil
	})
}

// awaitRollout waits until all pods are of the newest template, and no others are left.
func (s *scene) awaitRollout(replicas int) {
	s.t.Helper()
	s.poll("the rollout", func(ctx context.Context) error {
		d, err := cluster.Client().AppsV1().Deployments(s.ns).Get(ctx, lockName, metav1.GetOptions{})
		if err == nil && !rolledOut(d, replicas) {
			err = fmt.Errorf("%+v", d.Status)
		}
		return err
	})
	s.await("the old pods to be gone", func() error {
		if len(s.pods) != replicas {
			return fmt.Errorf("there are %d pods", len(s.pods))
		}
		return nil
	})
}

func rolledOut(d *appsv1.Deployment, replicas int) bool {
	now, want := d.Status, int32(replicas)
	return now.ObservedGeneration >= d.Generation && now.UpdatedReplicas == want && now.AvailableReplicas == want && now.Replicas == want
}
