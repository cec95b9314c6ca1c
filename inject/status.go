package inject

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/elector"
)

// Status is what an injected pod says about its injection, in AnnotationStatus.
type Status struct {
	// Version is the manager's that injected the pod.
	Version string `json:"version,omitempty"`
	// Lock is the name of the Lease or ConfigMap in the pod's namespace.
	Lock string `json:"lock"`
	// Mode says which of the two it is.
	Mode elector.Mode `json:"mode"`
	// LockBy is LockByAnnotation or LockByDefault. It is empty in pods that a
	// manager injected which did not note it.
	LockBy string `json:"lockBy,omitempty"`
}

// Who chose the lock's name: somebody by elector.io/lock, or nobody, so that it
// follows from the workload's name.
const (
	LockByAnnotation = "annotation"
	LockByDefault    = "default"
)

// StatusOf returns the status of a pod that carries the sidecar. The annotation
// alone does not make a pod injected: it may have been copied into a template.
// Whoever may create pods may also write an annotation and a container that look
// like elector's, so the answer is what the pod says, not a proof.
func StatusOf(pod *corev1.Pod) (Status, bool) {
	var s Status
	if err := json.Unmarshal([]byte(pod.Annotations[AnnotationStatus]), &s); err != nil {
		return Status{}, false
	}
	settings := elector.DefaultSettings()
	settings.Lock, settings.Mode = s.Lock, s.Mode
	if settings.Validate(Prefix) != nil {
		return Status{}, false
	}
	i := slices.IndexFunc(pod.Spec.InitContainers, isNamedElector)
	if i < 0 || !slices.Contains(pod.Spec.InitContainers[i].Args, "--"+elector.FieldLock+"="+s.Lock) {
		return Status{}, false
	}
	return s, true
}

// CandidateOf returns the status of a pod whose sidecar contends for a lock, until
// the pod has ended. Without the label the sidecar takes its pod for a copy, and
// stands back.
func CandidateOf(pod *corev1.Pod) (Status, bool) {
	if pod.Labels[LabelInjected] != "true" {
		return Status{}, false
	}
	return StatusOf(pod)
}

func isNamedElector(c corev1.Container) bool { return c.Name == ContainerName }
