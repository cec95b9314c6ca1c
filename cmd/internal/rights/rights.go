// Package rights says what a candidate may do, and no more: the Role of one lock and
// the RoleBindings of those who contend for it. The manager makes them where it
// runs; where it does not, a person applies the same.
package rights

import (
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

const (
	// prefix is before the names of all of them.
	prefix = "elector"
	// The kinds of locks, as the names have them.
	lease     = "lease"
	configMap = "configmap"
)

// Name is the Role's name, elector:<lease|configmap>:<lock>. Names of locks hold
// no colon.
func Name(mode elector.Mode, lock string) string {
	kind := lease
	if mode == elector.ModeLeaderForLife {
		kind = configMap
	}
	return strings.Join([]string{prefix, kind, lock}, ":")
}

// Lock returns the lock that a Role or RoleBinding of the given name is for.
func Lock(name string) (mode elector.Mode, lock string, ok bool) {
	parts := strings.SplitN(name, ":", 4)
	if len(parts) < 3 || parts[0] != prefix {
		return "", "", false
	}
	switch parts[1] {
	case lease:
		return elector.ModeLease, parts[2], true
	case configMap:
		return elector.ModeLeaderForLife, parts[2], true
	}
	return "", "", false
}

// Role is what one lock needs: the object by its name, and to create it apart, which
// cannot be limited to a name.
func Role(mode elector.Mode, namespace, lock string) *rbacv1.Role {
	group, resource, changes := coordinationv1.GroupName, "leases", []string{"update"}
	if mode == elector.ModeLeaderForLife {
		// A leader for life resigns by deletion. Of what is there it changes its note
		// alone, when it goes on after a restart.
		group, resource, changes = corev1.GroupName, "configmaps", []string{"patch", "delete"}
	}
	return &rbacv1.Role{
		TypeMeta:   typeMeta("Role"),
		ObjectMeta: meta(namespace, Name(mode, lock)),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: []string{lock}, Verbs: append([]string{"get", "list", "watch"}, changes...)},
			{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{"create"}},
		},
	}
}

// Binding gives the Role to a ServiceAccount of its namespace.
func Binding(role *rbacv1.Role, account string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		TypeMeta:   typeMeta("RoleBinding"),
		ObjectMeta: meta(role.Namespace, role.Name+":"+account),
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: role.Namespace, Name: account}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
	}
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{kube.ManagedByLabel: kube.ManagedBy}}
}
