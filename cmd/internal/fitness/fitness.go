// Package fitness says whether a candidate's application works, from what its
// kubelet reports in the Pod's status.
//
// It is what the status says at one moment: how long that has lasted, and whether
// it matters, is for others to decide. Nothing is asked of the pod. Whoever may
// write pods/status may say what they like, so what is kept of it is short and
// plain: names from the spec, which the API server checks, and single words.
package fitness

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/inject"
)

// State is how a candidate's application is.
type State string

// The states.
const (
	// Fit is a pod that is Ready and whose app containers all run.
	Fit State = "fit"
	// Unready is a pod that is not Ready, or whose app is about to start or to start
	// again.
	Unready State = "unready"
	// Broken is a pod with an app container that crashes again and again, has ended
	// for good, or cannot be pulled or started. An init container that fails like that
	// keeps the app from starting, too.
	Broken State = "broken"
	// Over is a pod that is being deleted or has ended: it is no candidate any more.
	Over State = "over"
)

// Fitness is what a pod's status says. It is comparable, and has less than 300
// bytes whatever the pod says.
type Fitness struct {
	State State
	// Reason tells people why a pod is not fit: "container app is in
	// CrashLoopBackOff". It is empty for one that is.
	Reason string
	// Works tells that a container of the app runs, whatever becomes of the others, and
	// perhaps does what only a leader may.
	Works bool
	// Silent tells that elector's own sidecar is not up: it is being started, or started
	// again. Such a pod is not Ready, whatever its app does.
	Silent bool
	// Turn changes whenever the pod became Ready or stopped being it, also when
	// nobody looked in between. It is a time by another machine's clock, good for
	// nothing but to be compared with another Turn of the pod.
	Turn int64
}

// Of returns the fitness of a pod. App containers are those that
// elector.io/containers names, as far as the pod has them, and else all but init
// containers. A named init container counts as one that has to run to its end, or
// to go on running if it is a native sidecar.
func Of(pod *corev1.Pod) Fitness {
	f := Fitness{Turn: turnOf(pod)}
	containers := containersOf(pod)
	f.Works = slices.ContainsFunc(containers, func(c container) bool { return c.counts && c.State.Running != nil })
	f.Silent = slices.ContainsFunc(containers, func(c container) bool {
		return c.init && c.Name == inject.ContainerName && (down(c) != "" || notReady(c) != "")
	})
	f.State, f.Reason = judge(pod, containers)
	return f
}

func judge(pod *corev1.Pod, containers []container) (State, string) {
	switch {
	case pod.DeletionTimestamp != nil:
		return Over, "it is being deleted"
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return Over, "it has ended"
	}
	ready := isTrue(pod.Status.Conditions, corev1.PodReady)
	runs := ready
	for _, c := range containers {
		if why := broken(c); why != "" {
			return Broken, why
		}
		runs = runs && (!c.counts || down(c) == "")
	}
	if runs {
		return Fit, ""
	}
	for _, c := range containers {
		if why := brokenInit(c); why != "" {
			return Broken, why
		}
	}
	return Unready, whyUnready(pod, containers)
}

// whyUnready names what keeps the pod from being fit, the first in the order in
// which a pod starts.
func whyUnready(pod *corev1.Pod, containers []container) string {
	for _, look := range []func(container) string{down, notReady} {
		for _, c := range containers {
			if why := look(c); why != "" {
				return why
			}
		}
	}
	for _, gate := range pod.Spec.ReadinessGates {
		if !isTrue(pod.Status.Conditions, gate.ConditionType) {
			return "its readiness gate " + short(string(gate.ConditionType)) + " is not True"
		}
	}
	return "it is not Ready"
}

// container is one of a pod's, and what is reported of it.
type container struct {
	corev1.ContainerStatus
	called string // its name and kind, for people
	init   bool
	stays  bool // it is to go on running
	counts bool // it is the app's
	// again tells whether it is started again after it ended with the given code.
	again func(code int32) bool
}

// containersOf returns the pod's containers in the order in which they start.
func containersOf(pod *corev1.Pod) []container {
	reported := map[string]corev1.ContainerStatus{}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			reported[list[i].Name] = list[i]
		}
	}
	counts := countedIn(pod)
	all := make([]container, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers))
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		stays := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		called := "init container "
		if stays {
			called = "sidecar "
		}
		all = append(all, container{
			ContainerStatus: reported[c.Name], called: called + short(c.Name), init: true, stays: stays, counts: slices.Contains(counts, c.Name), again: again(pod, c),
		})
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		all = append(all, container{
			ContainerStatus: reported[c.Name], called: "container " + short(c.Name), stays: true,
			counts: counts == nil || slices.Contains(counts, c.Name), again: again(pod, c),
		})
	}
	return all
}

// countedIn returns the names in elector.io/containers that the pod has; nil if there
// are none.
func countedIn(pod *corev1.Pod) (names []string) {
	has := map[string]bool{}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			has[list[i].Name] = true
		}
	}
	for name := range strings.SplitSeq(pod.Annotations[inject.AnnotationContainers], ",") {
		if name = strings.TrimSpace(name); has[name] {
			names = append(names, name)
			delete(has, name)
		}
	}
	return names
}

// again returns whether the kubelet starts a container again that ended with a
// code. What its own rules say is not judged: they may.
func again(pod *corev1.Pod, c *corev1.Container) func(code int32) bool {
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	rules := len(c.RestartPolicyRules) > 0
	return func(code int32) bool {
		switch policy {
		case corev1.RestartPolicyNever:
			return rules
		case corev1.RestartPolicyOnFailure:
			return code != 0 || rules
		case corev1.RestartPolicyAlways:
		}
		return true
	}
}

// stuck are the reasons for which a container waits that does not start, or not
// for long, unless somebody does something about it.
var stuck = []string{
	"CrashLoopBackOff",
	"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed",
	"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError",
}

func isStuck(c container) bool {
	return c.State.Waiting != nil && slices.Contains(stuck, c.State.Waiting.Reason)
}

// broken says why a container of the app does not work.
func broken(c container) string {
	if !c.counts {
		return ""
	}
	if isStuck(c) {
		return c.called + " is in " + c.State.Waiting.Reason
	}
	if ended := c.State.Terminated; c.stays && ended != nil && !c.again(ended.ExitCode) {
		return fmt.Sprintf("%s has ended for good with exit code %d", c.called, ended.ExitCode)
	}
	return ""
}

// brokenInit says why an init container does not let the app start. What becomes of
// a native sidecar Ready tells.
func brokenInit(c container) string {
	if c.init && !c.stays && isStuck(c) {
		return c.called + " is in " + c.State.Waiting.Reason
	}
	return ""
}

// down says why a container does not run, or has not done what it ran for.
func down(c container) string {
	switch ended := c.State.Terminated; {
	case c.State.Running != nil && !c.stays:
		return c.called + " has not ended yet"
	case c.State.Running != nil, ended != nil && !c.stays && ended.ExitCode == 0:
		return ""
	case ended != nil:
		return fmt.Sprintf("%s has ended with exit code %d", c.called, ended.ExitCode)
	case c.State.Waiting != nil && isWord(c.State.Waiting.Reason):
		return c.called + " is in " + c.State.Waiting.Reason
	}
	return c.called + " has not started"
}

// notReady names a container that keeps the pod from being Ready.
func notReady(c container) string {
	switch {
	case !c.stays || c.Ready || c.State.Running == nil:
		return ""
	case !isTrueOf(c.Started):
		return c.called + " has not passed its startup probe"
	}
	return c.called + " is not Ready"
}

func isTrue(conditions []corev1.PodCondition, name corev1.PodConditionType) bool {
	return slices.ContainsFunc(conditions, func(c corev1.PodCondition) bool { return c.Type == name && c.Status == corev1.ConditionTrue })
}

func isTrueOf(b *bool) bool { return b != nil && *b }

func turnOf(pod *corev1.Pod) int64 {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Unix()
		}
	}
	return 0
}

// maxWord bounds names and words, in bytes. A readiness gate may have a longer
// name than any container.
const maxWord = 80

func short(name string) string {
	if len(name) > maxWord {
		return strings.ToValidUTF8(name[:maxWord], "") + "…"
	}
	return name
}

// isWord reports whether a reason is a short word of letters, as kubelets write.
func isWord(s string) bool {
	return len(s) > 0 && len(s) <= maxWord && strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) < 0
}
