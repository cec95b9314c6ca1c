package reap

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

var terminated = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137}}

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
			var pods []candidates.Pod
			for i := range tc.pods {
				pods = append(pods, candidates.Of(&tc.pods[i]))
			}
			got := ""
			if pod, ok := freeable(tc.lock, tc.holder, pods); ok {
				got = pod.Name
			}
			if got != tc.want {
				t.Errorf("got %q, want %q: %s", got, tc.want, tc.reason)
			}
		})
	}
}
