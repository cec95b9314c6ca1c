package candidates

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/inject"
)

// The reasons of the condition Ready that the kubelet gives with a terminal
// phase, and nobody else does.
const (
	reasonFailed    = "PodFailed"
	reasonCompleted = "PodCompleted"
)

// Dead reports whether the kubelet says that no container of the pod runs or ever
// will, and that one ran which may have held a lock: the sidecar, in a pod that has
// it. See package reap.
func Dead(pod *corev1.Pod) bool {
	if !ended(pod.Status.Phase) || !saidByKubelet(pod.Status.Conditions) || len(pod.Status.ContainerStatuses) == 0 {
		return false
	}
	ran := map[string]bool{}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if !down(c) {
			return false
		}
		if c.State.Terminated != nil {
			ran[c.Name] = true
		}
	}
	if slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerName }) {
		return ran[inject.ContainerName]
	}
	return len(ran) > 0
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
