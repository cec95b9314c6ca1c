package candidates

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

var webLease = locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}

// injected is a pod as the webhook leaves it, as far as the manager reads it.
func injected(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-0", UID: "7d3ef7a1-8c5f-4c1c-9a52-0f6f1f0f3a11", ResourceVersion: "7",
			Labels:      map[string]string{"elector.io/injected": "true"},
			Annotations: map[string]string{"elector.io/status": `{"lock":"web","mode":"lease"}`},
		},
		Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "elector", Args: []string{"--lock=web"}}}},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func status(json string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations["elector.io/status"] = json }
}

func role(value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[inject.LabelRole] = value }
}

func label(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[key] = value }
}

func annotated(name, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations[inject.Prefix+name] = value }
}

// waitsFor has a container that does not run.
func waitsFor(reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		app := strings.Repeat("a", 63)
		p.Spec.Containers = []corev1.Container{{Name: app}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: app, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
	}
}

func cost(value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations[corev1.PodDeletionCost] = value }
}

func ownedBy(apiVersion, kind, name string, uid types.UID) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "0"},
			{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid, Controller: new(true)},
		}
	}
}

func TestOf(t *testing.T) {
	plain := Pod{Namespace: "shop", Name: "web-0", UID: "7d3ef7a1-8c5f-4c1c-9a52-0f6f1f0f3a11", Version: "7"}
	web := plain
	web.Lock, web.Account, web.Failover = webLease, "default", inject.Failover{When: inject.HandoverBroken, For: 30 * time.Second}
	with := func(change func(*Pod)) Pod {
		p := web
		change(&p)
		return p
	}
	tests := map[string]struct {
		reason string
		pod    *corev1.Pod
		want   Pod
	}{
		"injected":           {"the lock that its status names, and the default account", injected(), web},
		"leader-for-life":    {"the other mode's lock is another", injected(status(`{"lock":"web","mode":"leader-for-life"}`)), with(func(p *Pod) { p.Lock.Mode = elector.ModeLeaderForLife })},
		"account":            {"whom the lock is granted to", injected(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "shopper" }), with(func(p *Pod) { p.Account = "shopper" })},
		"leader":             {"its label", injected(role("leader")), with(func(p *Pod) { p.Role = elector.RoleLeader })},
		"standby":            {"its label", injected(role("standby")), with(func(p *Pod) { p.Role = elector.RoleStandby })},
		"boss":               {"no role of ours", injected(role("boss")), web},
		"running":            {"a phase that passes is of no interest", injected(func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }), web},
		"failed":             {"it has ended; whether it is dead its containers say", injected(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), with(func(p *Pod) { p.Phase = corev1.PodFailed })},
		"evicted":            {"the kubelet says that it is dead", evicted(), with(func(p *Pod) { p.Phase, p.Dead = corev1.PodFailed, true })},
		"being deleted":      {"it contends until it is gone", injected(func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }), with(func(p *Pod) { p.Deleting = true })},
		"without the label":  {"the webhook sets it", injected(func(p *corev1.Pod) { p.Labels = nil }), plain},
		"without sidecar":    {"it may have copied the annotation", injected(func(p *corev1.Pod) { p.Spec.InitContainers = nil }), plain},
		"no JSON":            {"the webhook writes JSON", injected(status("web")), plain},
		"no mode":            {"the webhook writes it", injected(status(`{"lock":"web"}`)), plain},
		"another lock":       {"the sidecar contends for another one", injected(status(`{"lock":"db","mode":"lease"}`)), plain},
		"Deployment's":       {"its ReplicaSet", injected(ownedBy("apps/v1", "ReplicaSet", "web-1", "2")), with(func(p *Pod) { p.Owner = Owner{"apps/v1", "ReplicaSet", "web-1", "2"} })},
		"other version":      {"of the same kind", injected(ownedBy("apps/v9", "StatefulSet", "web", "2")), with(func(p *Pod) { p.Owner = Owner{"apps/v1", "StatefulSet", "web", "2"} })},
		"Node's":             {"a Node makes no pods", injected(ownedBy("v1", "Node", "node-1", "2")), web},
		"other group":        {"another kind of that name", injected(ownedBy("example.com/v1", "ReplicaSet", "web-1", "2")), web},
		"version of nothing": {"no version at all", injected(ownedBy("a/b/c", "ReplicaSet", "web-1", "2")), web},
		"of a ReplicaSet":    {"its version of the workload", injected(label("pod-template-hash", "74c6d4f9b")), with(func(p *Pod) { p.Revision = "74c6d4f9b" })},
		"of a StatefulSet":   {"its version of the workload", injected(label("controller-revision-hash", "web-5f7")), with(func(p *Pod) { p.Revision = "web-5f7" })},
		"failover":           {"what it asks for, though not when it was made", injected(annotated("handover-when", "unready"), annotated("unready-for", "5s")), with(func(p *Pod) { p.Failover = inject.Failover{When: inject.HandoverUnready, For: 5 * time.Second} })},
		"bad failover": {
			"what is refused elsewhere counts for nothing, and that can be told", injected(annotated("handover-when", "sick"), annotated("unready-for", "1ns")),
			with(func(p *Pod) {
				p.Refused = true
			}),
		},
		"created":       {"to the second, as the API server says", injected(func(p *corev1.Pod) { p.CreationTimestamp = metav1.Unix(1763756000, 0) }), with(func(p *Pod) { p.Created = 1763756000 })},
		"long owner":    {"no object has such a name", injected(ownedBy("apps/v1", "ReplicaSet", strings.Repeat("x", 1<<20), "2")), web},
		"own cost":      {"the pod's, which is not ours", injected(cost("2147483647")), with(func(p *Pod) { p.Cost = CostTheirs })},
		"empty cost":    {"the API server takes none", injected(cost("")), with(func(p *Pod) { p.Cost = CostTheirs })},
		"leader's cost": {"what elector writes", injected(cost(LeaderCost)), with(func(p *Pod) { p.Cost = CostOurs })},
		"long UID":      {"no object has such a UID", injected(ownedBy("apps/v1", "ReplicaSet", "web-1", types.UID(strings.Repeat("x", 1<<20)))), web},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := Of(tc.pod)
			if diff := cmp.Diff(fitness.Of(tc.pod), got.Fitness); diff != "" && got.Lock != (locks.Lock{}) {
				t.Errorf("fitness (-want +got):\n%s", diff)
			}
			got.Fitness = fitness.Fitness{}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if contends := tc.want.Lock != (locks.Lock{}) && tc.want.Phase == ""; got.Contends() != contends {
				t.Errorf("contends: %v", got.Contends())
			}
		})
	}
}

// TestOfInjected has a pod as the webhook really leaves it.
func TestOfInjected(t *testing.T) {
	pod, err := inject.Pod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-0", UID: "1", Annotations: map[string]string{"elector.io/enabled": "true", "elector.io/lock": "web"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}},
	}, inject.Options{Image: "elector:v1", Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := Of(pod); got.Lock != webLease || got.Role != elector.RoleStandby || got.Identity() != "web-0_1" {
		t.Errorf("got %+v", got)
	}
}

// TestSize holds that the cache keeps little of a pod, whatever it says.
func TestSize(t *testing.T) {
	const most = 2 << 10
	large := strings.Repeat("x", 1<<20)
	everything := func(p *corev1.Pod) {
		for _, m := range []map[string]string{p.Labels, p.Annotations} {
			m[large] = large
		}
		p.GenerateName = large
		p.Finalizers = []string{large}
		p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: large}}
		p.Spec.InitContainers[0].Args = append(p.Spec.InitContainers[0].Args, large)
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: large, Image: large})
		p.Spec.NodeName, p.Spec.Hostname = large, large
		p.Status.Message, p.Status.Reason = large, large
		p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, corev1.ContainerStatus{Name: large, State: terminated, ContainerID: large})
	}
	name := strings.Repeat("n", 253)
	tests := map[string]struct {
		reason string
		pod    *corev1.Pod
	}{
		"everything":   {"what is not read is not kept", injected(everything)},
		"ended":        {"nor is the evidence of its end", evicted()},
		"role":         {"another word is none", injected(role(large))},
		"phase":        {"one that passes is not kept", injected(func(p *corev1.Pod) { p.Status.Phase = corev1.PodPhase(large) })},
		"account":      {"there is no such account", injected(func(p *corev1.Pod) { p.Spec.ServiceAccountName = large })},
		"status":       {"its version is not kept", injected(status(`{"version":"` + large + `","lock":"web","mode":"lease"}`))},
		"lock":         {"there is no such object", injected(status(`{"lock":"` + large + `","mode":"lease"}`))},
		"mode":         {"there is no such mode", injected(status(`{"lock":"web","mode":"` + large + `"}`))},
		"owner":        {"there is no such object", injected(ownedBy(large, large, large, types.UID(large)))},
		"owner's kind": {"a kind is one that is known", injected(ownedBy("apps/"+large, "ReplicaSet", "web", "1"))},
		"revision":     {"there is no such label", injected(label("pod-template-hash", large), label("controller-revision-hash", large))},
		"failover":     {"there is no such value", injected(annotated("handover-when", large), annotated("unready-for", large), annotated("containers", large))},
		"reason":       {"it is no reason of a kubelet", injected(waitsFor(large))},
		"gate": {"its name is cut", injected(func(p *corev1.Pod) {
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: corev1.PodConditionType(large)}}
		})},
		"names as large": {"as they may be", injected(func(p *corev1.Pod) { p.Name, p.Namespace, p.Spec.ServiceAccountName = name, name[:63], name }, ownedBy("apps/v1", "ReplicaSet", name, "1"), label("controller-revision-hash", name[:63]), waitsFor("CrashLoopBackOff"))},
		"cost":           {"whose it is suffices", injected(cost("-" + large))},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			kept, err := hold(tc.pod)
			if err != nil {
				t.Fatal(err)
			}
			if got := size(reflect.ValueOf(kept)); got > most || got == 0 {
				t.Errorf("%d bytes are kept, %d may be: %s", got, most, tc.reason)
			}
		})
	}
	if typical, _ := hold(injected(ownedBy("apps/v1", "ReplicaSet", "web-74c6d4f9b", "7d3ef7a1-8c5f-4c1c-9a52-0f6f1f0f3a11"))); size(reflect.ValueOf(typical)) > 800 {
		t.Errorf("%d bytes for a pod like others", size(reflect.ValueOf(typical)))
	}
}

// size is how many bytes a value refers to, with itself.
func size(v reflect.Value) int {
	n := int(v.Type().Size())
	switch v.Kind() { //nolint:exhaustive // the others refer to nothing
	case reflect.String:
		n += v.Len()
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			n += size(v.Elem())
		}
	case reflect.Struct:
		n = 0
		for _, field := range v.Fields() {
			n += size(field)
		}
	case reflect.Slice:
		for i := range v.Len() {
			n += size(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			n += size(key) + size(v.MapIndex(key))
		}
	}
	return n
}

func TestObject(t *testing.T) {
	pod := injected(ownedBy("apps/v1", "ReplicaSet", "web-1", "2"))
	got := Of(pod).Object()
	if got.Namespace != "shop" || got.Name != "web-0" || got.UID != pod.UID || got.ResourceVersion != "7" || got.Kind != "Pod" {
		t.Errorf("got %+v", got)
	}
	if owner := metav1.GetControllerOf(got); owner == nil || owner.Name != "web-1" {
		t.Errorf("its controller is %+v", owner)
	}
}
