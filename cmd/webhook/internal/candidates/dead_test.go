package candidates

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	terminated = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137}}
	running    = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting    = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
)

// evicted is a pod that ended so, as its kubelet reports it.
func evicted() *corev1.Pod {
	p := injected()
	p.Status = corev1.PodStatus{
		Phase:                 corev1.PodFailed,
		Conditions:            []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "PodFailed"}},
		InitContainerStatuses: []corev1.ContainerStatus{{Name: "elector", State: terminated, ContainerID: "containerd://1"}},
		ContainerStatuses:     []corev1.ContainerStatus{{Name: "app", State: terminated, ContainerID: "containerd://2"}},
	}
	return p
}

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
			pod := evicted()
			tc.change(pod)
			if got := Of(pod).Dead; got != tc.want {
				t.Errorf("dead: %v, want %v: %s", got, tc.want, tc.reason)
			}
		})
	}
}
