package checkup

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTrouble(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) metav1.Time { return metav1.Time{Time: now.Add(-d)} }
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	running := func(since time.Duration) corev1.ContainerState {
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(since)}}
	}
	ended := func(before time.Duration) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137, FinishedAt: ago(before)}}
	}
	tests := map[string]struct {
		reason        string
		status        corev1.ContainerStatus
		why, restarts string
	}{
		"runs":          {"", corev1.ContainerStatus{State: running(time.Hour), Started: new(true)}, "", ""},
		"comes":         {"init containers before it run", corev1.ContainerStatus{State: waiting("PodInitializing")}, "", ""},
		"is made":       {"", corev1.ContainerStatus{State: waiting("ContainerCreating")}, "", ""},
		"begins":        {"its startup probe has some seconds", corev1.ContainerStatus{State: running(5 * time.Second), Started: new(false)}, "", ""},
		"deaf":          {"the port is another's", corev1.ContainerStatus{State: running(time.Minute), Started: new(false)}, "has not answered for 1m0s", ""},
		"no image":      {"", corev1.ContainerStatus{State: waiting("ImagePullBackOff")}, "is in ImagePullBackOff", ""},
		"crashes":       {"", corev1.ContainerStatus{State: waiting("CrashLoopBackOff"), LastTerminationState: ended(time.Minute), RestartCount: 4}, "is in CrashLoopBackOff", "4 times, the last time after OOMKilled (exit code 137)"},
		"restarted":     {"", corev1.ContainerStatus{State: running(time.Minute), Started: new(true), LastTerminationState: ended(time.Minute), RestartCount: 1}, "", "1 times, the last time after OOMKilled (exit code 137)"},
		"long ago":      {"nobody looks for that any more", corev1.ContainerStatus{State: running(time.Hour), Started: new(true), LastTerminationState: ended(2 * time.Hour), RestartCount: 1}, "", ""},
		"somebody else": {"", corev1.ContainerStatus{Name: "other", State: waiting("CrashLoopBackOff")}, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.status.Name == "" {
				test.status.Name = "elector"
			}
			pod := &corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{test.status}}}
			if why, restarts := trouble(pod, now); why != test.why || restarts != test.restarts {
				t.Errorf("%q, %q, want %q, %q: %s", why, restarts, test.why, test.restarts, test.reason)
			}
		})
	}
}
