package candidates

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/cmd/webhook/internal/workload"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Pod is what the manager knows of an injected pod. It is comparable, and takes
// less than 2 KiB whatever the pod says.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	// Version is the resourceVersion.
	Version string
	// Lock is what the pod contends for, or did until it ended; empty if the pod is
	// none of ours after all. It is what the pod says, not a proof.
	Lock locks.Lock
	// LockBy is who chose the lock's name: inject.LockByAnnotation, LockByDefault, or
	// empty if the pod does not say.
	LockBy string
	// Account is the name of its ServiceAccount.
	Account string
	// Role is the label inject.LabelRole: one of elector's roles, or empty, also for
	// any other word.
	Role elector.Role
	// Phase is Succeeded or Failed, which a pod never leaves, and else empty.
	Phase corev1.PodPhase
	// Dead tells that the kubelet says that no container of the pod runs or ever
	// will.
	Dead bool
	// Deleting tells that the pod is being deleted.
	Deleting bool
	// Owner is the workload that made it, if it says so of a kind that is known.
	Owner Owner
	// Fitness is whether its application works, as the kubelet says.
	Fitness fitness.Fitness
	// Failover is when leadership is to leave it.
	Failover inject.Failover
	// Refused tells that its annotations about that have what a new pod is refused for,
	// and that counts as the default.
	Refused bool
	// Revision tells its workload's versions apart; empty if the workload has none.
	Revision string
	// Created is the second in which it was made, by the API server's clock.
	Created int64
	// Cost tells whose the annotation pod-deletion-cost is.
	Cost Cost
}

// Cost tells who says what it costs to delete a pod, which decides whom a
// ReplicaSet removes first.
type Cost uint8

const (
	// CostNone is that nobody does.
	CostNone Cost = iota
	// CostOurs is LeaderCost.
	CostOurs
	// CostTheirs is any other value: the pod's own, which is not elector's to touch.
	CostTheirs
)

// LeaderCost is what elector says of a leader, and takes for its own wherever it
// finds it. It is next to the largest that there is, which people write themselves
// on what is to go last in any event.
const LeaderCost = "2147483646"

// Owner is a controller of Pods, in their namespace.
type Owner struct {
	APIVersion, Kind, Name string
	UID                    types.UID
}

// Of returns what matters in a pod, which may be forged: whoever may create pods
// writes there what they like.
func Of(pod *corev1.Pod) Pod {
	p := Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Version: pod.ResourceVersion,
		Deleting: pod.DeletionTimestamp != nil,
	}
	status, ok := inject.CandidateOf(pod)
	if !ok || len(pod.Spec.ServiceAccountName) > workload.MaxName {
		return p
	}
	p.Lock = locks.Lock{Namespace: pod.Namespace, Mode: status.Mode, Name: status.Lock}
	p.LockBy = lockBy(status)
	p.Account = accountOf(pod)
	p.Role = roleOf(pod)
	if ended(pod.Status.Phase) {
		p.Phase = pod.Status.Phase
	}
	p.Dead = Dead(pod)
	p.Owner = ownerOf(pod)
	p.Fitness = fitness.Of(pod)
	failover, err := inject.FailoverOf(pod.Annotations)
	p.Failover, p.Refused = failover, err != nil
	p.Revision = revisionOf(pod)
	if !pod.CreationTimestamp.IsZero() {
		p.Created = pod.CreationTimestamp.Unix()
	}
	p.Cost = CostOf(pod)
	return p
}

// Contends reports whether the pod contends for a lock: it names one, and has not
// ended.
func (p Pod) Contends() bool { return p.Lock != locks.Lock{} && !p.Ended() }

// Ended reports whether the pod's phase is one that it never leaves.
func (p Pod) Ended() bool { return p.Phase != "" }

// Identity is what the pod's candidate writes into the lock.
func (p Pod) Identity() string { return elector.Identity(p.Name, string(p.UID)) }

// Object names the pod, for requests and Events. It is not the whole of it, so it
// must never be written with an update.
func (p Pod) Object() *corev1.Pod {
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.Version},
	}
	if o := p.Owner; o != (Owner{}) {
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: o.UID, Controller: new(true)}}
	}
	return pod
}

func ended(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// accountOf is the pod's ServiceAccount; the API server sets the default's name.
func accountOf(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

func lockBy(status inject.Status) string {
	switch status.LockBy {
	case inject.LockByAnnotation:
		return inject.LockByAnnotation
	case inject.LockByDefault:
		return inject.LockByDefault
	}
	return ""
}

func roleOf(pod *corev1.Pod) elector.Role {
	switch pod.Labels[inject.LabelRole] {
	case string(elector.RoleLeader):
		return elector.RoleLeader
	case string(elector.RoleStandby):
		return elector.RoleStandby
	}
	return ""
}

// revisionOf is what the workload's controller labels its pods with: a Deployment
// through its ReplicaSets, a StatefulSet or a DaemonSet itself. A label's value is
// short.
func revisionOf(pod *corev1.Pod) string {
	for _, label := range []string{appsv1.ControllerRevisionHashLabelKey, appsv1.DefaultDeploymentUniqueLabelKey} {
		if revision := pod.Labels[label]; revision != "" && len(revision) <= validation.LabelValueMaxLength {
			return revision
		}
	}
	return ""
}

// CostOf reads the annotation. Only whose it is matters, not how much it says.
func CostOf(pod metav1.Object) Cost {
	switch value, ok := pod.GetAnnotations()[corev1.PodDeletionCost]; {
	case !ok:
		return CostNone
	case value == LeaderCost:
		return CostOurs
	}
	return CostTheirs
}

func ownerOf(pod *corev1.Pod) Owner {
	ref := workload.Controller(pod)
	if ref == nil {
		return Owner{}
	}
	kind, ok := workload.KindOf(ref.APIVersion, ref.Kind)
	if !ok {
		return Owner{}
	}
	return Owner{APIVersion: kind.APIVersion, Kind: ref.Kind, Name: ref.Name, UID: ref.UID}
}
