package reap

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/inject"
)

// The reasons of the condition Ready that the kubelet gives with a terminal
// phase, and nobody else does.
const (
	reasonFailed    = "PodFailed"
	reasonCompleted = "PodCompleted"
)

// dead reports whether the kubelet says that no container of the pod runs or ever
// will. See the package comment.
func dead(pod *corev1.Pod) bool {
	if !locks.Ended(pod) || !saidByKubelet(pod.Status.Conditions) {
		return false
	}
	elector := false
	for _, c := range pod.Status.InitContainerStatuses {
		if !down(c) {
			return false
		}
		elector = elector || c.Name == inject.ContainerName && c.State.Terminated != nil
	}
	for _, c := range pod.Status.ContainerStatuses {
		if !down(c) {
			return false
		}
	}
	return elector && len(pod.Status.ContainerStatuses) > 0
}

func saidByKubelet(conditions []corev1.PodCondition) bool {
	for _, c := range conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionFalse && (c.Reason == reasonFailed || c.Reason == reasonCompleted)
		}
	}
	return false
}

// down reports whether a container is terminated or was never started.
func down(c corev1.ContainerStatus) bool {
	if c.State.Terminated != nil {
		return true
	}
	return c.State.Running == nil && c.ContainerID == "" && c.LastTerminationState.Terminated == nil
}

// Evidence keeps of a pod's status what is looked at here: the phase, and of the
// few pods that ended what tells whether they are dead.
func Evidence(status corev1.PodStatus) corev1.PodStatus {
	kept := corev1.PodStatus{Phase: status.Phase}
	if !locks.Ended(&corev1.Pod{Status: kept}) {
		return kept
	}
	for _, c := range status.Conditions {
		if c.Type == corev1.PodReady {
			kept.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status, Reason: c.Reason}}
		}
	}
	kept.InitContainerStatuses = states(status.InitContainerStatuses)
	kept.ContainerStatuses = states(status.ContainerStatuses)
	return kept
}

func states(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	var kept []corev1.ContainerStatus
	for _, c := range statuses {
		k := corev1.ContainerStatus{Name: c.Name, ContainerID: c.ContainerID}
		if c.State.Running != nil {
			k.State.Running = &corev1.ContainerStateRunning{}
		}
		if c.State.Terminated != nil {
			k.State.Terminated = &corev1.ContainerStateTerminated{}
		}
		if c.LastTerminationState.Terminated != nil {
			k.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{}
		}
		kept = append(kept, k)
	}
	return kept
}

// freeable returns the pod whose lock is to be freed: the dead one that the
// lock names, if any.
func freeable(l locks.Lock, holder string, pods []corev1.Pod) *corev1.Pod {
	for i := range pods {
		pod := &pods[i]
		if of, ok := locks.OfPod(pod); ok && of == l && dead(pod) && locks.Identity(pod) == holder {
			return pod
		}
	}
	return nil
}
