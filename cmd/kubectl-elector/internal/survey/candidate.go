package survey

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/terminal"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Candidate is a pod that contends for a lock.
type Candidate struct {
	// Name is the pod's.
	Name string `json:"name"`
	// Role is what the lock says, not the pod's label, which comes later.
	Role elector.Role `json:"role"`
	Node string       `json:"node,omitempty"`
	// State is how the application is, and Why what it lacks.
	State fitness.State `json:"state"`
	Why   string        `json:"why,omitempty"`
	// Sidecar is the version of the manager that injected the pod.
	Sidecar string `json:"sidecar,omitempty"`
	// Created is when the pod was made.
	Created time.Time `json:"created"`

	identity string
	leads    bool
	owner    string // the controller, as "ReplicaSet/web-5d"
	above    string // the workload behind it
	fault    string // of its annotations about failover
}

// Fit reports whether the candidate's application works.
func (c *Candidate) Fit() bool { return c.State == fitness.Fit }

// candidateOf returns the lock that an injected pod contends for, and the pod. A pod
// that has ended contends no more; a copy without the label never does.
func candidateOf(pod *corev1.Pod) (Key, Candidate, bool) {
	status, ok := inject.CandidateOf(pod)
	if !ok || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return Key{}, Candidate{}, false
	}
	f := fitness.Of(pod)
	c := Candidate{
		Name: pod.Name, Node: pod.Spec.NodeName, State: f.State, Why: terminal.Text(f.Reason), Sidecar: terminal.Text(status.Version),
		Created: pod.CreationTimestamp.Time, identity: elector.Identity(pod.Name, string(pod.UID)),
	}
	if _, err := inject.FailoverOf(pod.Annotations); err != nil {
		c.fault = err.Error()
	}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		c.owner, c.above = owner.Kind+"/"+owner.Name, above(pod, owner)
	}
	return Key{pod.Namespace, status.Mode, status.Lock}, c, true
}

// sortCandidates puts them in the order of their names.
func sortCandidates(candidates []Candidate) {
	slices.SortFunc(candidates, func(a, b Candidate) int { return cmp.Compare(a.Name, b.Name) })
}
