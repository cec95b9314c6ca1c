package inject

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// templateHashes are the labels that hold the suffix which a controller gave to
// its ReplicaSet: a Deployment's and an Argo Rollout's. Old and new pods of a
// rollout are candidates for the same lock only without it.
var templateHashes = []string{"pod-template-hash", "rollouts-pod-template-hash"}

// lockName is the name of the lock when the annotations choose none: the name of
// the workload, as far as the pod tells.
//
// A ReplicaSet stands for its Deployment. Any other controller stands for
// itself; in particular a Job, even if it ends in digits: a pod does not show
// whether a CronJob made its Job or a person who likes numbers. Workload knows,
// and sets elector.io/lock on the template of a CronJob. A pod without a
// controller has its own name, or the stem of its generated one.
func lockName(meta *metav1.ObjectMeta) string {
	owner := metav1.GetControllerOfNoCopy(meta)
	switch {
	case owner == nil && meta.Name != "":
		return meta.Name
	case owner == nil:
		return strings.TrimRight(meta.GenerateName, "-")
	case owner.Kind != "ReplicaSet":
		return owner.Name
	}
	for _, label := range templateHashes {
		if name, ok := strings.CutSuffix(owner.Name, "-"+meta.Labels[label]); ok {
			return name
		}
	}
	return owner.Name
}

// serviceAccount is the account that will be granted the lock.
func serviceAccount(spec *corev1.PodSpec) string {
	switch {
	case spec.ServiceAccountName != "":
		return spec.ServiceAccountName
	case spec.DeprecatedServiceAccount != "":
		return spec.DeprecatedServiceAccount
	}
	return "default"
}
