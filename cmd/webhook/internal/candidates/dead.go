package candidates

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/inject"
)

// The reasons of the condition Ready that the kubelet gives with a terminal
// phase, and nobody else does.
const (
	reasonFailed    = "PodFailed"
	reasonCompleted = "PodCompleted"
)

// dead reports whether the kubelet says that no container of the pod runs or ever
// will. See package reap.
func dead(pod *corev1.Pod) bool {
	if !ended(pod.Status.Phase) || !saidByKubelet(pod.Status.Conditions) {
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
