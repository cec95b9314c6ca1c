package role

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// The values of inject.LabelRole.
const (
	Leader  = string(elector.RoleLeader)
	Standby = string(elector.RoleStandby)
)

// plan is what has to be written, in this order.
type plan struct {
	// former are labelled leader and are not. They come first.
	former []*corev1.Pod
	// leader is to be labelled so, unless nil.
	leader *corev1.Pod
	// standbys lack their label.
	standbys []*corev1.Pod
}

// decide returns what makes the labels right for the lock's pods when holder
// holds it.
func decide(holder string, pods []corev1.Pod) (p plan) {
	for i := range pods {
		pod := &pods[i]
		label, leads := pod.Labels[inject.LabelRole], leads(pod, holder)
		switch {
		case leads && label != Leader:
			p.leader = pod
		case leads:
		case label == Leader:
			p.former = append(p.former, pod)
		case label != Standby && !locks.Ended(pod) && pod.DeletionTimestamp == nil:
			// A pod that is over needs no label; it must only not have the wrong one.
			p.standbys = append(p.standbys, pod)
		}
	}
	return p
}

// leads reports whether the pod is the leader: one that ended is none, whatever
// the lock says.
func leads(pod *corev1.Pod, holder string) bool {
	return locks.Identity(pod) == holder && !locks.Ended(pod)
}

// othersOf returns the pods of the lock among those that the API server says are
// labelled leader, without the one that is about to be.
func othersOf(l locks.Lock, leader *corev1.Pod, labelled []corev1.Pod) []*corev1.Pod {
	var found []*corev1.Pod
	for i := range labelled {
		if of, ok := locks.OfPod(&labelled[i]); ok && of == l && labelled[i].UID != leader.UID {
			found = append(found, &labelled[i])
		}
	}
	return found
}

// needed reports whether somebody still contends for the lock.
func needed(pods []corev1.Pod) bool {
	return slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return !locks.Ended(&pod) })
}

// view is what matters here in a pod, besides its lock.
func view(pod *corev1.Pod) any {
	return [2]any{pod.Labels[inject.LabelRole], locks.Ended(pod)}
}
