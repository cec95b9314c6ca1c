package grant

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/look"
	"github.com/elector-io/elector/elector"
)

var (
	webLease     = lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}
	webConfigMap = lock{Namespace: "shop", Mode: elector.ModeLeaderForLife, Name: "web"}
)

// injected returns a pod as the webhook leaves it, as far as grants go.
func injected(name string, l lock, account string, change ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   l.Namespace,
			Name:        name,
			Labels:      map[string]string{"elector.io/injected": "true"},
			Annotations: map[string]string{"elector.io/status": `{"version":"v1","lock":"` + l.Name + `","mode":"` + string(l.Mode) + `"}`},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: account,
			InitContainers:     []corev1.Container{{Name: "elector", Args: []string{"--lock=" + l.Name, "--mode=" + string(l.Mode)}}},
		},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func phase(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase = phase }
}

func status(json string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations["elector.io/status"] = json }
}

func TestDesired(t *testing.T) {
	managed := map[string]string{"app.kubernetes.io/managed-by": "elector"}
	leaseRole := &rbacv1.Role{
		TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "Role"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "elector:lease:web", Labels: managed},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{"web"}, Verbs: []string{"get", "list", "watch", "update"}},
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		},
	}
	configMapRole := &rbacv1.Role{
		TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "Role"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "elector:configmap:web", Labels: managed},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"web"}, Verbs: []string{"get", "list", "watch", "patch", "delete"}},
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}},
		},
	}
	binding := func(role, account string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "RoleBinding"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: role + ":" + account, Labels: managed},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "shop", Name: account}},
			RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: role},
		}
	}

	tests := map[string]struct {
		reason   string
		lock     lock
		pods     []corev1.Pod
		role     *rbacv1.Role
		bindings []*rbacv1.RoleBinding
	}{
		"no pods": {
			reason: "nothing for nobody",
			lock:   webLease,
		},
		"lease": {
			reason:   "the one Lease, and create, which cannot be limited to a name",
			lock:     webLease,
			pods:     []corev1.Pod{injected("a", webLease, "web")},
			role:     leaseRole,
			bindings: []*rbacv1.RoleBinding{binding("elector:lease:web", "web")},
		},
		"leader-for-life": {
			reason:   "a leader for life resigns by deleting the ConfigMap",
			lock:     webConfigMap,
			pods:     []corev1.Pod{injected("a", webConfigMap, "web")},
			role:     configMapRole,
			bindings: []*rbacv1.RoleBinding{binding("elector:configmap:web", "web")},
		},
		"several accounts": {
			reason: "one binding each, in order, whoever has more pods",
			lock:   webLease,
			pods: []corev1.Pod{
				injected("d", webLease, "web"), injected("c", webLease, ""), injected("b", webLease, "web"), injected("a", webLease, "admin"),
			},
			role: leaseRole,
			bindings: []*rbacv1.RoleBinding{
				binding("elector:lease:web", "admin"), binding("elector:lease:web", "default"), binding("elector:lease:web", "web"),
			},
		},
		"finished": {
			reason: "the containers of a terminal pod are dead for good",
			lock:   webLease,
			pods:   []corev1.Pod{injected("a", webLease, "web", phase(corev1.PodSucceeded)), injected("b", webLease, "web", phase(corev1.PodFailed))},
		},
		"being deleted": {
			reason: "it still has to release its lock",
			lock:   webLease,
			pods: []corev1.Pod{injected("a", webLease, "web", phase(corev1.PodRunning), func(p *corev1.Pod) {
				p.DeletionTimestamp = &metav1.Time{}
			})},
			role:     leaseRole,
			bindings: []*rbacv1.RoleBinding{binding("elector:lease:web", "web")},
		},
		"other lock": {
			reason: "each lock has its own grants",
			lock:   webConfigMap,
			pods:   []corev1.Pod{injected("a", webLease, "web")},
		},
		"other namespace": {
			reason: "a pod has no say in other namespaces",
			lock:   lock{Namespace: "bank", Mode: elector.ModeLease, Name: "web"},
			pods:   []corev1.Pod{injected("a", webLease, "web")},
		},
		"forged": {
			reason: "what the webhook did not write is not believed",
			lock:   webLease,
			pods: []corev1.Pod{
				injected("no json", webLease, "web", status("web")),
				injected("no mode", webLease, "web", status(`{"lock":"web"}`)),
				injected("no sidecar", webLease, "web", func(p *corev1.Pod) { p.Spec.InitContainers = nil }),
				injected("other lock", lock{Namespace: "shop", Mode: elector.ModeLease, Name: "db"}, "web", status(`{"lock":"web","mode":"lease"}`)),
				injected("no label", webLease, "web", func(p *corev1.Pod) { p.Labels = nil }),
			},
		},
		"invalid name": {
			reason: "a name that cannot be a lock's is not put into a Role",
			lock:   lock{Namespace: "shop", Mode: elector.ModeLease, Name: "*"},
			pods:   []corev1.Pod{injected("a", lock{Namespace: "shop", Mode: elector.ModeLease, Name: "*"}, "web")},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var pods []candidates.Pod
			for i := range tc.pods {
				pods = append(pods, candidates.Of(&tc.pods[i]))
			}
			role, bindings := desired(tc.lock, pods)
			if diff := cmp.Diff(tc.role, role); diff != "" {
				t.Errorf("%s: role (-want +got):\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(tc.bindings, bindings); diff != "" {
				t.Errorf("%s: bindings (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	object := func(labels, annotations map[string]string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations}}
	}
	ours, adopted := map[string]string{"app.kubernetes.io/managed-by": "elector"}, map[string]string{"elector.io/adopt": "true"}
	tests := map[string]struct {
		reason string
		lock   lock
		object *metav1.PartialObjectMetadata
		data   bool
		want   string
	}{
		"not there":    {"the pod will make it", webLease, nil, false, ""},
		"ours":         {"elector made it", webLease, object(ours, nil), false, ""},
		"adopted":      {"its owner agrees", webLease, object(nil, adopted), false, ""},
		"not adopted":  {"only true is true", webLease, object(nil, map[string]string{"elector.io/adopt": "yes"}), false, "Lease shop/web exists and is not elector's, so it is not granted as a lock: choose another name with the annotation elector.io/lock, or annotate the Lease with elector.io/adopt: \"true\""},
		"Helm's":       {"an annotation must not become a way to someone else's objects", webConfigMap, object(map[string]string{"app.kubernetes.io/managed-by": "Helm"}, nil), false, "ConfigMap shop/web exists and is not elector's, so it is not granted as a lock: choose another name with the annotation elector.io/lock, or annotate the ConfigMap with elector.io/adopt: \"true\""},
		"data":         {"the label stays when configuration is applied to a lock", webConfigMap, object(ours, nil), true, "ConfigMap shop/web holds data, and as a lock it is deleted with its leader's pod, so it is not granted: choose another name for the lock with the annotation elector.io/lock, or for the data"},
		"data adopted": {"its owner agrees", webConfigMap, object(ours, adopted), true, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := refusal(tc.lock, look.Sight{Object: tc.object, HasData: tc.data}); got != tc.want {
				t.Errorf("%s:\n got %s\nwant %s", tc.reason, got, tc.want)
			}
		})
	}
}

func TestForbidden(t *testing.T) {
	const want = "ConfigMap shop/web is not granted as a lock: mode leader-for-life is not allowed in this cluster"
	if got := forbidden(webConfigMap, true, true); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := forbidden(webLease, true, true) + forbidden(webConfigMap, true, false); got != "" {
		t.Errorf("got %q: Leases are always allowed, and without the flag so are ConfigMaps", got)
	}
}
