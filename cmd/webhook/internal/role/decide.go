package role

import (
	"slices"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/workload"
	"github.com/elector-io/elector/elector"
)

// The values of inject.LabelRole.
const (
	Leader  = string(elector.RoleLeader)
	Standby = string(elector.RoleStandby)
)

// plan is what has to be written, in this order.
type plan struct {
	// former are labelled leader and are not. They come first.
	former []candidates.Pod
	// leader is to be labelled so, unless it is none.
	leader candidates.Pod
	// standbys lack their label, or have the leader's deletion cost.
	standbys []candidates.Pod
	// cheap is the labelled leader, if it lacks its deletion cost.
	cheap candidates.Pod
}

// decide returns what makes the labels right for the lock's pods when holder
// holds it.
func decide(holder string, pods []candidates.Pod) (p plan) {
	for _, pod := range pods {
		leads := leads(pod, holder)
		switch {
		case leads && pod.Role != elector.RoleLeader:
			p.leader = pod
		case leads:
			if lacksCost(pod) {
				p.cheap = pod
			}
		case pod.Role == elector.RoleLeader:
			p.former = append(p.former, pod)
		case (pod.Role != elector.RoleStandby || pod.Cost == candidates.CostOurs) && !pod.Ended() && !pod.Deleting:
			// A pod that is over needs no label; it must only not have the wrong one.
			p.standbys = append(p.standbys, pod)
		}
	}
	return p
}

// leads reports whether the pod is the leader: one that ended is none, whatever
// the lock says.
func leads(pod candidates.Pod, holder string) bool {
	return pod.Identity() == holder && !pod.Ended()
}

// lacksCost reports whether a leader is to have a deletion cost and has none: if
// what made it looks at it. One that the pod has of its own stays.
func lacksCost(leader candidates.Pod) bool {
	kind, _ := workload.KindOf(leader.Owner.APIVersion, leader.Owner.Kind)
	return kind.ByCost && leader.Cost == candidates.CostNone && !leader.Deleting
}

// needed reports whether somebody still contends for the lock.
func needed(pods []candidates.Pod) bool { return slices.ContainsFunc(pods, candidates.Pod.Contends) }

// anyPod of a lock matters, also one that ended: it may have the leader's label.
func anyPod(candidates.Pod) bool { return true }

// view is what matters here in a pod, besides its lock.
func view(pod candidates.Pod) any {
	return [3]any{pod.Role, pod.Ended(), pod.Cost}
}
