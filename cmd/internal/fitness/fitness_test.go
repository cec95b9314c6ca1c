package fitness

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var turned = time.Unix(1763756000, 0)

// healthy is an injected pod as its kubelet reports it: an init container that
// ended, the sidecar, and two containers of the app.
func healthy() *corev1.Pod {
	up := func(name string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: running, Ready: true, Started: new(true), ContainerID: "containerd://" + name}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways,
			InitContainers: []corev1.Container{
				{Name: "migrate"}, {Name: "elector", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)},
			},
			Containers: []corev1.Container{{Name: "app"}, {Name: "log"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodInitialized, Status: corev1.ConditionTrue},
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(turned)},
			},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "migrate", State: ended(0), Ready: true}, up("elector")},
			ContainerStatuses:     []corev1.ContainerStatus{up("app"), up("log")},
		},
	}
}

var running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}

func ended(code int32) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error"}}
}

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: strings.Repeat("m", 1<<10)}}
}

type change func(*corev1.Pod)

// all makes several changes.
func all(changes ...change) change {
	return func(p *corev1.Pod) {
		for _, c := range changes {
			c(p)
		}
	}
}

func unready(p *corev1.Pod) { p.Status.Conditions[1].Status = corev1.ConditionFalse }

// is puts a container into a state in which it is not Ready, and the pod neither.
func is(name string, state corev1.ContainerState) change {
	return func(p *corev1.Pod) {
		unready(p)
		for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
			for i := range list {
				if list[i].Name == name {
					list[i] = corev1.ContainerStatus{Name: name, State: state, Started: new(state.Running != nil), RestartCount: 4, LastTerminationState: ended(1)}
				}
			}
		}
	}
}

// in gives a container's state by its reason.
func in(name, reason string) change { return is(name, waiting(reason)) }

func policy(policy corev1.RestartPolicy) change {
	return func(p *corev1.Pod) { p.Spec.RestartPolicy = policy }
}

func counted(names string) change {
	return func(p *corev1.Pod) { p.Annotations["elector.io/containers"] = names }
}

// initialising is a pod whose init container does something.
func initialising(state corev1.ContainerState) change {
	return all(is("migrate", state), in("elector", "PodInitializing"), in("app", "PodInitializing"), in("log", "PodInitializing"))
}

func TestOf(t *testing.T) {
	gate := func(p *corev1.Pod) {
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "target-health.example.com/web"}}
		unready(p)
	}
	own := func(p *corev1.Pod) {
		p.Spec.Containers[0].RestartPolicy = new(corev1.ContainerRestartPolicyNever)
	}
	rules := func(p *corev1.Pod) {
		p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart}}
	}
	tests := map[string]struct {
		reason string
		change change
		state  State
		why    string
	}{
		"healthy":      {"everything runs and is Ready", all(), Fit, ""},
		"deleted":      {"it leaves by itself, however it is", all(in("app", "CrashLoopBackOff"), func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }), Over, "it is being deleted"},
		"failed":       {"it never runs again", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, Over, "it has ended"},
		"succeeded":    {"it never runs again", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, Over, "it has ended"},
		"nothing said": {"it has yet to be scheduled", func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} }, Unready, "init container migrate has not started"},

		"crash loop":             {"it crashes again and again", in("app", "CrashLoopBackOff"), Broken, "container app is in CrashLoopBackOff"},
		"image pull":             {"it cannot be pulled", in("app", "ImagePullBackOff"), Broken, "container app is in ImagePullBackOff"},
		"image pull just failed": {"the same, between two pauses", in("app", "ErrImagePull"), Broken, "container app is in ErrImagePull"},
		"image's name":           {"no registry has such a name", in("app", "InvalidImageName"), Broken, "container app is in InvalidImageName"},
		"missing ConfigMap":      {"it cannot be made", in("app", "CreateContainerConfigError"), Broken, "container app is in CreateContainerConfigError"},
		"bad command":            {"it cannot be started", in("app", "RunContainerError"), Broken, "container app is in RunContainerError"},
		"second container":       {"any app container counts", in("log", "CrashLoopBackOff"), Broken, "container log is in CrashLoopBackOff"},
		"not counted":            {"another is the app, but the pod is not Ready", all(counted("app"), in("log", "CrashLoopBackOff")), Unready, "container log is in CrashLoopBackOff"},
		"counted":                {"it is the app", all(counted(" log , app"), in("app", "CrashLoopBackOff")), Broken, "container app is in CrashLoopBackOff"},
		"none of these":          {"names that the pod does not have count for nothing", all(counted("web,,db"), in("app", "CrashLoopBackOff")), Broken, "container app is in CrashLoopBackOff"},
		"broken though Ready":    {"the kubelet has not looked at its probes yet", all(in("app", "CrashLoopBackOff"), func(p *corev1.Pod) { p.Status.Conditions[1].Status = corev1.ConditionTrue }), Broken, "container app is in CrashLoopBackOff"},

		"ended, never again":        {"it is not started again, whatever its code", all(policy(corev1.RestartPolicyNever), is("app", ended(0))), Broken, "container app has ended for good with exit code 0"},
		"failed, never again":       {"it is not started again", all(policy(corev1.RestartPolicyNever), is("app", ended(3))), Broken, "container app has ended for good with exit code 3"},
		"done on failure":           {"it did what it was for", all(policy(corev1.RestartPolicyOnFailure), is("app", ended(0))), Broken, "container app has ended for good with exit code 0"},
		"failed on failure":         {"it is started again", all(policy(corev1.RestartPolicyOnFailure), is("app", ended(3))), Unready, "container app has ended with exit code 3"},
		"crashed once":              {"it is started again, at once", is("app", ended(137)), Unready, "container app has ended with exit code 137"},
		"its own policy":            {"the container's goes before the pod's", all(own, is("app", ended(1))), Broken, "container app has ended for good with exit code 1"},
		"its own rules":             {"they may start it again", all(own, rules, is("app", ended(1))), Unready, "container app has ended with exit code 1"},
		"other container has ended": {"it is not the app", all(counted("app"), policy(corev1.RestartPolicyNever), is("log", ended(0))), Unready, "container log has ended with exit code 0"},

		"creating":              {"it is about to start", in("app", "ContainerCreating"), Unready, "container app is in ContainerCreating"},
		"init running":          {"a pod in its init containers is not fit", initialising(running), Unready, "init container migrate has not ended yet"},
		"init crashed":          {"it is tried again", initialising(ended(1)), Unready, "init container migrate has ended with exit code 1"},
		"init crash loop":       {"the app cannot start", initialising(waiting("CrashLoopBackOff")), Broken, "init container migrate is in CrashLoopBackOff"},
		"init image":            {"the app cannot start", initialising(waiting("ImagePullBackOff")), Broken, "init container migrate is in ImagePullBackOff"},
		"init forgotten":        {"a Ready pod is through with them", func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil }, Fit, ""},
		"init counted":          {"it is named, and did what it is for", counted("migrate,app"), Fit, ""},
		"init counted, hanging": {"it is the app and has not ended", all(counted("migrate"), initialising(running)), Unready, "init container migrate has not ended yet"},
		"sidecar down":          {"the pod is not Ready without it", in("elector", "CrashLoopBackOff"), Unready, "sidecar elector is in CrashLoopBackOff"},
		"sidecar starting": {"it has a startup probe", func(p *corev1.Pod) {
			is("elector", running)(p)
			p.Status.InitContainerStatuses[1].Started = new(false)
		}, Unready, "sidecar elector has not passed its startup probe"},

		"probe":         {"it runs and is not Ready", is("app", running), Unready, "container app is not Ready"},
		"startup probe": {"it runs and has not started", func(p *corev1.Pod) { is("app", running)(p); p.Status.ContainerStatuses[0].Started = nil }, Unready, "container app has not passed its startup probe"},
		"gate":          {"something else says that the pod is not Ready", gate, Unready, "its readiness gate target-health.example.com/web is not True"},
		"gate open": {"it is fit if all say so", func(p *corev1.Pod) {
			gate(p)
			p.Status.Conditions[1].Status = corev1.ConditionTrue
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "target-health.example.com/web", Status: corev1.ConditionTrue})
		}, Fit, ""},
		"node lost": {"nobody says why", unready, Unready, "it is not Ready"},
		"unknown":   {"not known to be Ready", func(p *corev1.Pod) { p.Status.Conditions[1].Status = corev1.ConditionUnknown }, Unready, "it is not Ready"},
		"Ready without its app": {"Ready lags behind", func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{}
		}, Unready, "container app has not started"},
		"forged reason": {"it is no word", in("app", "see\x1b[31m you"), Unready, "container app has not started"},
		"huge reason":   {"it is no word", in("app", strings.Repeat("x", 1<<20)), Unready, "container app has not started"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := healthy()
			tc.change(pod)
			if diff := cmp.Diff(Fitness{State: tc.state, Reason: tc.why}, Of(pod), ignoreTurn); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

var ignoreTurn = cmp.Transformer("withoutTurn", func(f Fitness) [2]string { return [2]string{string(f.State), f.Reason} })

// TestSilent tells a sidecar that is down from an app that is.
func TestSilent(t *testing.T) {
	tests := map[string]struct {
		reason string
		change change
		want   bool
	}{
		"up":        {"it runs", func(*corev1.Pod) {}, false},
		"ended":     {"it is started again", is("elector", ended(137)), true},
		"waiting":   {"it is started again", in("elector", "CrashLoopBackOff"), true},
		"starting":  {"it has not passed its startup probe", is("elector", running), true},
		"app down":  {"the sidecar goes on", in("app", "CrashLoopBackOff"), false},
		"unready":   {"the sidecar goes on", unready, false},
		"forgotten": {"nobody said that it is down", func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil }, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := healthy()
			tc.change(pod)
			if got := Of(pod).Silent; got != tc.want {
				t.Errorf("silent %v: %s", got, tc.reason)
			}
		})
	}
}

// TestTurn tells one time of not being Ready from the next.
func TestTurn(t *testing.T) {
	pod := healthy()
	if got := Of(pod).Turn; got != turned.Unix() {
		t.Errorf("turn %d, want %d", got, turned.Unix())
	}
	pod.Status.Conditions = nil
	if got := Of(pod).Turn; got != 0 {
		t.Errorf("turn %d of a pod that does not say", got)
	}
}

// TestBounded has pods whose words are as large as an API server takes, or larger.
func TestBounded(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	for name, change := range map[string]change{
		"gate": func(p *corev1.Pod) {
			unready(p)
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: corev1.PodConditionType(large)}}
		},
		"container": func(p *corev1.Pod) { p.Spec.Containers[0].Name = large },
		"reason":    in("app", large),
		"message":   func(p *corev1.Pod) { unready(p); p.Status.Message, p.Status.Reason = large, large },
		"names":     counted(large),
	} {
		t.Run(name, func(t *testing.T) {
			pod := healthy()
			change(pod)
			if got := Of(pod); len(got.Reason) > 200 {
				t.Errorf("a reason of %d bytes", len(got.Reason))
			}
		})
	}
}

// TestWorks tells a pod of which a part may still do what only a leader may.
func TestWorks(t *testing.T) {
	for name, tc := range map[string]struct {
		change change
		want   bool
	}{
		"healthy":          {all(), true},
		"one of two":       {in("app", "CrashLoopBackOff"), true},
		"none":             {all(in("app", "CrashLoopBackOff"), in("log", "CrashLoopBackOff")), false},
		"another runs":     {all(counted("app"), in("app", "CrashLoopBackOff")), false},
		"running, unready": {all(in("log", "CrashLoopBackOff"), is("app", running)), true},
		"initialising":     {initialising(running), false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := healthy()
			tc.change(pod)
			if got := Of(pod).Works; got != tc.want {
				t.Errorf("works: %v", got)
			}
		})
	}
}
