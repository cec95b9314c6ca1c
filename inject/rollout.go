package inject

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector"
)

// checkRollout refuses a rollout that waits for pods to be Ready which never are: in
// leader-for-life the gate keeps the standbys' containers from starting. The leader is
// the only Ready one, so nothing but a rollout that may stop all at once replaces it.
func (w workload) checkRollout(opts Options) error {
	value, gated := w.template.Annotations[Prefix+keyGate]
	if wanted, err := asks(w.template.Annotations); err != nil || !wanted || !gated || w.instead == "" {
		return err
	}
	mode := modeOf(w.template.Annotations, opts)
	if has, injected := StatusOf(w.pod()); injected {
		mode = has.Mode
	}
	if mode != elector.ModeLeaderForLife {
		return nil
	}
	return refuse(keyGate, value, "in %s standbys are not Ready, and this %s would wait for them for ever, use %s", mode, w.kind, w.instead)
}

// insteadOfRolling returns what a Deployment has to have instead of a rollout that waits
// for standbys, or nothing if it does not wait. The defaults are the API's.
func insteadOfRolling(d *appsv1.DeploymentSpec) string {
	if d.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return ""
	}
	unavailable, surge := intstr.FromString("25%"), intstr.FromString("25%")
	if r := d.Strategy.RollingUpdate; r != nil {
		unavailable, surge = *intstr.ValueOrDefault(r.MaxUnavailable, unavailable), *intstr.ValueOrDefault(r.MaxSurge, surge)
	}
	replicas := replicasOf(d.Replicas)
	may := scaled(unavailable, replicas, false)
	if may == 0 && scaled(surge, replicas, true) == 0 {
		may = 1 // the controller's way out
	}
	if may >= replicas {
		return ""
	}
	return "the strategy Recreate or maxUnavailable 100%"
}

// insteadOfOrder is insteadOfRolling for a StatefulSet. A single replica is Ready when
// it leads; of several the next begins when the one before is Ready, also in a rolling
// update of pods that began in parallel.
func insteadOfOrder(s *appsv1.StatefulSetSpec) string {
	parallel := s.PodManagementPolicy == appsv1.ParallelPodManagement && s.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType
	if parallel || replicasOf(s.Replicas) <= 1 {
		return ""
	}
	return "podManagementPolicy Parallel and the updateStrategy OnDelete, one replica, or a Deployment"
}

// insteadOfNodes is insteadOfRolling for a DaemonSet, whose number of pods is the nodes'.
func insteadOfNodes(d *appsv1.DaemonSetSpec) string {
	if d.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return ""
	}
	if r := d.UpdateStrategy.RollingUpdate; r != nil && r.MaxUnavailable != nil && scaled(*r.MaxUnavailable, 100, false) >= 100 && r.MaxUnavailable.Type == intstr.String {
		return ""
	}
	return "the updateStrategy OnDelete or maxUnavailable 100%"
}

func replicasOf(replicas *int32) int {
	if replicas == nil {
		return 1
	}
	return int(*replicas)
}

// scaled is 0 for what is no number, which the API server refuses.
func scaled(n intstr.IntOrString, of int, up bool) int {
	value, _ := intstr.GetScaledValueFromIntOrPercent(&n, of, up)
	return value
}
