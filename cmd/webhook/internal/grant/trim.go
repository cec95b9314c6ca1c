package grant

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxGrant bounds what is kept of a Role's rules, or of whom and what a
// RoleBinding names, in bytes of protobuf. Those made here have less, with the
// longest names there are.
const maxGrant = 2 << 10

// Trim is a cache's transform that keeps of a Role or RoleBinding what is compared
// here. One that says more than any of ours does is not as it should be, whatever
// that is: of it the name is kept.
func Trim(obj any) (any, error) {
	switch o := obj.(type) {
	case *rbacv1.Role:
		kept := &rbacv1.Role{Rules: o.Rules}
		if kept.Size() > maxGrant {
			kept.Rules = nil
		}
		kept.ObjectMeta = trimMeta(o.ObjectMeta)
		return kept, nil
	case *rbacv1.RoleBinding:
		kept := &rbacv1.RoleBinding{Subjects: o.Subjects, RoleRef: o.RoleRef}
		if kept.Size() > maxGrant {
			kept.Subjects, kept.RoleRef = nil, rbacv1.RoleRef{}
		}
		kept.ObjectMeta = trimMeta(o.ObjectMeta)
		return kept, nil
	}
	return obj, nil
}

// trimMeta keeps no labels: the cache asks for objects with elector's, and hears of one
// that loses it as if it were gone. A map of one label would be a third of what is
// kept.
func trimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}
