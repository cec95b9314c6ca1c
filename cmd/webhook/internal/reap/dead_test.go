package reap

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

var (
	terminated = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137}}
	running    = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting    = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
)

// deadPod is one that was evicted, as its kubelet reports it.
func deadPod(name string, uid types.UID, l locks.Lock, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.Namespace, Name: name, UID: uid,
			Labels:      map[string]string{"elector.io/injected": "true"},
			Annotations: map[string]string{"elector.io/status": `{"lock":"` + l.Name + `","mode":"` + string(l.Mode) + `"}`},
		},
		Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "elector", Args: []string{"--lock=" + l.Name}}}},
		Status: corev1.PodStatus{
			Phase:                 corev1.PodFailed,
			Conditions:            []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "PodFailed"}},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "elector", State: terminated, ContainerID: "containerd://1"}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "app", State: terminated, ContainerID: "containerd://2"}},
		},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

var (
	webLease     = locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}
	webConfigMap = locks.Lock{Namespace: "shop", Mode: elector.ModeLeaderForLife, Name: "web"}
)

func TestDead(t *testing.T) {
	tests := map[string]struct {
		reason string
		change func(*corev1.Pod)
		want   bool
	}{
		"evicted": {
			reason: "the kubelet says so",
			change: func(*corev1.Pod) {},
			want:   true,
		},
		"succeeded": {
			reason: "a Job's pod",
			change: func(p *corev1.Pod) {
				p.Status.Phase, p.Status.Conditions[1].Reason = corev1.PodSucceeded, "PodCompleted"
			},
			want: true,
		},
		"being deleted": {
			reason: "its object stays until finalizers and the kubelet are done",
			change: func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} },
			want:   true,
		},
		"app never started": {
			reason: "evicted while an init container ran",
			change: func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "app", State: waiting}
			},
			want: true,
		},
		"no state": {
			reason: "an empty state means waiting, says the API",
			change: func(p *corev1.Pod) { p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "app"} },
			want:   true,
		},
		"running": {
			reason: "all containers may restart while the phase is not terminal",
			change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning },
		},
		"node gone": {
			reason: "the pod garbage collector sets the phase and a condition and leaves the rest",
			change: func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{
					{Type: corev1.PodReady, Status: corev1.ConditionFalse},
					{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC"},
				}
				p.Status.InitContainerStatuses[0].State, p.Status.ContainerStatuses[0].State = running, running
			},
		},
		"node out of service": {
			reason: "the pod garbage collector sets the phase alone",
			change: func(p *corev1.Pod) {
				p.Status.Conditions[1] = corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
				p.Status.InitContainerStatuses[0].State, p.Status.ContainerStatuses[0].State = running, running
			},
		},
		"node gone between restarts": {
			reason: "containers were last seen terminated, but the kubelet meant to start them again",
			change: func(p *corev1.Pod) { p.Status.Conditions[1].Reason = "ContainersNotReady" },
		},
		"no condition": {
			reason: "a kubelet that refuses a pod after its own restart reports no more than the phase",
			change: func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodFailed} },
		},
		"sidecar runs": {
			reason: "it may claim",
			change: func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].State = running },
		},
		"sidecar unknown": {
			reason: "nothing says that it is dead",
			change: func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil },
		},
		"sidecar waits": {
			reason: "one that held a lock was started, whatever the status says",
			change: func(p *corev1.Pod) {
				p.Status.InitContainerStatuses[0] = corev1.ContainerStatus{Name: "elector", State: waiting}
			},
		},
		"app runs": {
			reason: "it may act as leader",
			change: func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = running },
		},
		"app unknown": {
			reason: "nothing says that it is dead",
			change: func(p *corev1.Pod) { p.Status.ContainerStatuses = nil },
		},
		"app between restarts": {
			reason: "it was started before, and waits to be again",
			change: func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = waiting },
		},
		"app ran before": {
			reason: "its last run is over, and the next one may have begun",
			change: func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "app", State: waiting, LastTerminationState: terminated}
			},
		},
		"other sidecar runs": {
			reason: "it may work for the app",
			change: func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, corev1.ContainerStatus{Name: "proxy", State: running, ContainerID: "containerd://3"})
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := deadPod("web-0", "1", webLease, tc.change)
			if got := dead(pod); got != tc.want {
				t.Errorf("dead: %v, want %v: %s", got, tc.want, tc.reason)
			}
			pod.Status = Evidence(pod.Status)
			if got := dead(pod); got != tc.want {
				t.Errorf("by its evidence dead: %v, want %v: %s", got, tc.want, tc.reason)
			}
		})
	}
}

// TestEvidence holds that of a pod that lives no more than the phase is kept.
func TestEvidence(t *testing.T) {
	pod := deadPod("web-0", "1", webLease)
	pod.Status.Phase = corev1.PodRunning
	if kept := Evidence(pod.Status); kept.Size() != (&corev1.PodStatus{Phase: corev1.PodRunning}).Size() {
		t.Errorf("kept %+v", kept)
	}
}

func TestFreeable(t *testing.T) {
	const holder = "web-0_1"
	tests := map[string]struct {
		reason string
		lock   locks.Lock
		holder string
		pods   []corev1.Pod
		want   string
	}{
		"dead holder":      {"the one that is named", webLease, holder, []corev1.Pod{*deadPod("web-1", "2", webLease), *deadPod("web-0", "1", webLease)}, "web-0"},
		"nobody":           {"a free lock is nobody's", webLease, "", []corev1.Pod{*deadPod("web-0", "1", webLease)}, ""},
		"another":          {"somebody else took over", webLease, "web-1_2", []corev1.Pod{*deadPod("web-0", "1", webLease)}, ""},
		"recreated":        {"the dead pod is not the holder, which had its name", webLease, holder, []corev1.Pod{*deadPod("web-0", "2", webLease)}, ""},
		"client-go's":      {"it is no pod of ours", webLease, "web-0_8d1c", []corev1.Pod{*deadPod("web-0", "1", webLease)}, ""},
		"vanished":         {"nobody says that it is dead", webLease, holder, nil, ""},
		"other mode":       {"another object of the same name", webConfigMap, holder, []corev1.Pod{*deadPod("web-0", "1", webLease)}, ""},
		"other lock":       {"the pod does not contend for this one", locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "db"}, holder, []corev1.Pod{*deadPod("web-0", "1", webLease)}, ""},
		"other namespace":  {"a pod has no say in other namespaces", locks.Lock{Namespace: "bank", Mode: elector.ModeLease, Name: "web"}, holder, []corev1.Pod{*deadPod("web-0", "1", webLease)}, ""},
		"alive":            {"it may only look dead", webLease, holder, []corev1.Pod{*deadPod("web-0", "1", webLease, func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })}, ""},
		"leader for life":  {"the owner's name and UID", webConfigMap, holder, []corev1.Pod{*deadPod("web-0", "1", webConfigMap)}, "web-0"},
		"not injected":     {"it may have copied the annotation", webLease, holder, []corev1.Pod{*deadPod("web-0", "1", webLease, func(p *corev1.Pod) { p.Spec.InitContainers = nil })}, ""},
		"no injected mark": {"the webhook sets the label", webLease, holder, []corev1.Pod{*deadPod("web-0", "1", webLease, func(p *corev1.Pod) { p.Labels = nil })}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			if pod := freeable(tc.lock, tc.holder, tc.pods); pod != nil {
				got = pod.Name
			}
			if got != tc.want {
				t.Errorf("got %q, want %q: %s", got, tc.want, tc.reason)
			}
		})
	}
}
