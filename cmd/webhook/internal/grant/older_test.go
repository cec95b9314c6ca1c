package grant

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

var newConfigMap = lock{Namespace: "shop", Mode: elector.ModeLeaderForLife, Name: "web-lock"}

// lockBy is the change of a pod whose status says who chose the lock.
func lockBy(l lock, who string) func(*corev1.Pod) {
	return status(fmt.Sprintf(`{"version":"v1","lock":%q,"mode":%q,"lockBy":%q}`, l.Name, l.Mode, who))
}

// controlled is the change of a pod that a controller made.
func controlled(apiVersion, kind string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: "web", UID: "1", Controller: new(true)}}
	}
}

func TestWithheld(t *testing.T) {
	newPod := injected("new", newConfigMap, "web", lockBy(newConfigMap, inject.LockByDefault))
	tests := map[string]struct {
		reason string
		l      lock
		pods   []corev1.Pod
		role   lock // that has been granted already
		want   bool
	}{
		"rollout":        {"the old pods and the new would each have a leader", newConfigMap, []corev1.Pod{newPod, injected("old", webConfigMap, "web")}, lock{}, true},
		"old pods alone": {"they go on as ever", webConfigMap, []corev1.Pod{injected("old", webConfigMap, "web")}, lock{}, false},
		"new pods alone": {"nobody is in the way", newConfigMap, []corev1.Pod{newPod}, lock{}, false},
		"old pods ended": {"nothing of them runs", newConfigMap, []corev1.Pod{newPod, injected("old", webConfigMap, "web", phase(corev1.PodFailed))}, lock{}, false},
		"chosen now":     {"whoever names a lock means it", newConfigMap, []corev1.Pod{injected("new", newConfigMap, "web", lockBy(newConfigMap, inject.LockByAnnotation)), injected("old", webConfigMap, "web")}, lock{}, false},
		"chosen then":    {"a lock that is called like a workload today was chosen", newConfigMap, []corev1.Pod{newPod, injected("other", webConfigMap, "web", lockBy(webConfigMap, inject.LockByAnnotation))}, lock{}, false},
		"other mode":     {"a Lease has the name that it had", newConfigMap, []corev1.Pod{newPod, injected("old", webLease, "web")}, lock{}, false},
		"other place":    {"a lock is its namespace's", newConfigMap, []corev1.Pod{newPod, injected("old", lock{Namespace: "else", Mode: webConfigMap.Mode, Name: "web"}, "web")}, lock{}, false},
		"rollout, late":  {"a leader may have what was granted", newConfigMap, []corev1.Pod{newPod, injected("old", webConfigMap, "web")}, newConfigMap, false},
		"late old pod":   {"it would lead beside the one that does", webConfigMap, []corev1.Pod{newPod, injected("old", webConfigMap, "web")}, newConfigMap, true},
		"early old pod":  {"the new pods wait", webConfigMap, []corev1.Pod{newPod, injected("old", webConfigMap, "web")}, lock{}, false},
		"granted before": {"it is not taken back", webConfigMap, []corev1.Pod{newPod, injected("old", webConfigMap, "web")}, webConfigMap, false},
		"old, alone":     {"the Role is of pods that are gone", webConfigMap, []corev1.Pod{injected("old", webConfigMap, "web")}, newConfigMap, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for i := range tc.pods {
				must(t, w.client.Create(w.ctx, &tc.pods[i]))
			}
			if tc.role != (lock{}) {
				must(t, w.client.Create(w.ctx, roleFor(tc.role)))
			}
			have, err := w.read(w.ctx, tc.l)
			must(t, err)
			got, _, err := w.withheld(w.ctx, tc.l, have)
			must(t, err)
			if (got != "") != tc.want {
				t.Errorf("%s: it says %q", tc.reason, got)
			}
			if tc.want && !strings.Contains(got, tc.l.String()+" is not granted as a lock yet") {
				t.Errorf("it says %q", got)
			}
		})
	}
}

// TestWithheldUntilGone rolls a workload out whose pods had a lock by the older
// name: the new lock is granted when the last of them is gone, and not before.
func TestWithheldUntilGone(t *testing.T) {
	w := newWorld(t)
	pods := w.informPods()
	w.inform(&rbacv1.Role{})
	w.inform(&rbacv1.RoleBinding{})
	w.inform(locks.Object(elector.ModeLease))
	w.inform(locks.Object(elector.ModeLeaderForLife))
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	bindings, err := w.client.Watch(w.ctx, &rbacv1.RoleBindingList{})
	must(t, err)
	next := func() string {
		e := <-bindings.ResultChan()
		return string(e.Type) + " " + e.Object.(*rbacv1.RoleBinding).Name
	}
	old, young := injected("old", webConfigMap, "web"), injected("new", newConfigMap, "web", lockBy(newConfigMap, inject.LockByDefault))
	must(t, w.client.Create(w.ctx, &old))
	pods.Add(old.DeepCopy())
	if got, want := next(), string(watch.Added)+" elector:configmap:web:web"; got != want {
		t.Errorf("with the old pod came %s, not %s", got, want)
	}
	must(t, w.client.Create(w.ctx, &young))
	pods.Add(young.DeepCopy())
	if e := <-w.events.Events; !strings.HasPrefix(e, "Warning LockNotGranted ConfigMap shop/web-lock is not granted as a lock yet") {
		t.Errorf("event %q", e)
	}
	must(t, w.client.Delete(w.ctx, &old))
	pods.Delete(old.DeepCopy())
	got := map[string]bool{next(): true, next(): true}
	if !got["DELETED elector:configmap:web:web"] || !got["ADDED elector:configmap:web-lock:web"] {
		t.Errorf("when the old pod was gone came %v", got)
	}
	bindings.Stop()
	cancel()
	must(t, <-done)
}

func TestOlderPods(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		pod    corev1.Pod
		want   bool
	}{
		"old":      {"it may be in the way", injected("a", webConfigMap, "web"), true},
		"new":      {"it has the name of today", injected("a", newConfigMap, "web", lockBy(newConfigMap, inject.LockByDefault)), false},
		"chosen":   {"nobody waits for it", injected("a", webConfigMap, "web", lockBy(webConfigMap, inject.LockByAnnotation)), false},
		"lease":    {"its name is what it was", injected("a", webLease, "web"), false},
		"ended":    {"it contends no more", injected("a", webConfigMap, "web", phase(corev1.PodSucceeded)), false},
		"nobody's": {"a word that no manager writes", injected("a", webConfigMap, "web", lockBy(webConfigMap, "mallory")), true},
	} {
		if got := isOlder(candidates.Of(&tc.pod)); got != tc.want {
			t.Errorf("%s: %s: got %t", name, tc.reason, got)
		}
	}
}
