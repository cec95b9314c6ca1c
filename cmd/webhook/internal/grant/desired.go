package grant

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/internal/rights"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/cmd/webhook/internal/look"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// lock names one lock; everything is decided per lock.
type lock = locks.Lock

// roleName is the name of the lock's Role.
func roleName(l lock) string { return rights.Name(l.Mode, l.Name) }

// lockOf returns the lock that a Role or RoleBinding of the given name is for.
func lockOf(namespace, name string) (lock, bool) {
	mode, of, ok := rights.Lock(name)
	if !ok {
		return lock{}, false
	}
	return lock{Namespace: namespace, Mode: mode, Name: of}, true
}

// desired returns the grants of the lock to the ServiceAccounts of the pods that
// contend for it: nothing if none does.
func desired(l lock, pods []candidates.Pod) (*rbacv1.Role, []*rbacv1.RoleBinding) {
	var accounts []string
	for _, pod := range pods {
		if pod.Lock == l && pod.Contends() {
			accounts = append(accounts, pod.Account)
		}
	}
	if len(accounts) == 0 {
		return nil, nil
	}
	slices.Sort(accounts)
	role := roleFor(l)
	var bindings []*rbacv1.RoleBinding
	for _, account := range slices.Compact(accounts) {
		bindings = append(bindings, rights.Binding(role, account))
	}
	return role, bindings
}

func roleFor(l lock) *rbacv1.Role { return rights.Role(l.Mode, l.Namespace, l.Name) }

// isRight reports whether a Role or RoleBinding is the one that would be made for
// the lock.
func isRight(l lock, obj client.Object) bool {
	switch o := obj.(type) {
	case *rbacv1.Role:
		return sameRole(o, roleFor(l))
	case *rbacv1.RoleBinding:
		account := strings.TrimPrefix(o.Name, roleName(l)+":")
		return sameBinding(o, rights.Binding(roleFor(l), account))
	}
	return false
}

func sameRole(a, b *rbacv1.Role) bool {
	return a.Name == b.Name && equality.Semantic.DeepEqual(a.Rules, b.Rules)
}

func sameBinding(a, b *rbacv1.RoleBinding) bool {
	return a.Name == b.Name && a.RoleRef == b.RoleRef && equality.Semantic.DeepEqual(a.Subjects, b.Subjects)
}

// refusal says why the lock must not be granted, given what a look found, or is
// empty. A ConfigMap with data is somebody's configuration even if it has elector's
// label: that stays when the configuration is applied to a lock. Consent has to be
// said in words that a lock does not come with.
func refusal(l lock, found look.Sight) string {
	switch {
	case found.Object == nil, locks.Adopted(found.Object):
		return ""
	case !locks.MayUse(found.Object):
		return fmt.Sprintf(`%s exists and is not elector's, so it is not granted as a lock: choose another name with the annotation %s%s, or annotate the %s with %s: "true"`,
			l, inject.Prefix, elector.FieldLock, l.Kind().Kind, inject.AnnotationAdopt)
	case found.HasData:
		return fmt.Sprintf(`%s holds data, and as a lock it is deleted with its leader's pod, so it is not granted: choose another name for the lock with the annotation %s%s, or for the data`,
			l, inject.Prefix, elector.FieldLock)
	}
	return ""
}

// forbidden says why the lock must not be granted whatever its object is, or is
// empty.
func forbidden(l lock, selected, forbidLeaderForLife bool) string {
	switch {
	case !selected:
		return fmt.Sprintf("%s is not granted as a lock: elector does not work in the namespace %s, choose one that webhook.namespaceSelector of its chart selects", l, l.Namespace)
	case forbidLeaderForLife && l.Mode == elector.ModeLeaderForLife:
		return fmt.Sprintf("%s is not granted as a lock: mode %s is not allowed in this cluster", l, l.Mode)
	}
	return ""
}

// foreignError says that a Role or RoleBinding of a grant's name is somebody
// else's.
type foreignError struct{ kind, namespace, name string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("%s %s/%s exists and is not elector's", e.kind, e.namespace, e.name)
}

// refusal says so to who waits for the grant.
func (e *foreignError) refusal(l lock) string {
	return fmt.Sprintf("%s, so %s is not granted as a lock: delete the %s, or choose another name for the lock with the annotation %s%s",
		e.Error(), l, e.kind, inject.Prefix, elector.FieldLock)
}
