package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

const writesNamespace = "bench-writes"

// writer is somebody who writes a Role and a RoleBinding to it, as the manager does.
type writer struct {
	who  string
	user string // to impersonate; empty is the cluster's administrator
	// apart is the time between the two.
	apart time.Duration
}

// writes is how long a writer's requests took, and what the API server waited for meanwhile.
type writes struct {
	who           string
	role, binding measure.Sample
	waits         int           // of lists of RBAC objects, for the watch cache to be up to date
	waited        time.Duration // all of them together
}

// total is the time of a Role and its RoleBinding, without what lies between.
func (w writes) total() (s measure.Sample) {
	for i := range w.role {
		s = append(s, w.role[i]+w.binding[i])
	}
	return s
}

// The user who has all that the manager has, and the verbs escalate and bind.
const escalator = "elector-bench:may-escalate"

// measureWrites lets different users make the same objects, to find out what the time of a grant depends on.
func (l *lab) measureWrites(ctx context.Context) ([]writes, error) {
	if err := measure.CreateNamespace(ctx, l.client, writesNamespace); err != nil {
		return nil, err
	}
	if err := l.allowEscalation(ctx); err != nil {
		return nil, err
	}
	var all []writes
	for _, w := range []writer{
		{"the manager", l.manager, 0},
		{"the manager, " + writesApart.String() + " apart", l.manager, writesApart},
		{"a user who may escalate and bind", escalator, 0},
		{"the cluster's administrator", "", 0},
	} {
		found, err := l.measureWriter(ctx, w, fmt.Sprintf("writer-%d", len(all)))
		if err != nil {
			return nil, err
		}
		all = append(all, found)
	}
	return all, nil
}

// writesApart is well above the API server's period for asking etcd how far it is.
const writesApart = 300 * time.Millisecond

// allowEscalation lets the escalator write Roles and RoleBindings of any content.
func (l *lab) allowEscalation(ctx context.Context) error {
	meta := metav1.ObjectMeta{Name: escalator}
	_, err := l.client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}, Verbs: []string{"create", "escalate", "bind"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating a cluster role: %w", err)
	}
	_, err = l.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: escalator},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: escalator}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating a cluster role binding: %w", err)
	}
	return measure.Sleep(ctx, time.Second) // the API server's authorizer hears of it
}

func (l *lab) measureWriter(ctx context.Context, who writer, prefix string) (w writes, err error) {
	config := rest.CopyConfig(l.base)
	config.Impersonate.UserName = who.user
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return w, fmt.Errorf("making a client: %w", err)
	}
	w.who = who.who
	before, beforeSum, err := l.cacheWaits(ctx)
	if err != nil {
		return w, err
	}
	for i := range l.plan.writes {
		if err := pause(ctx); err != nil {
			return w, err
		}
		name := fmt.Sprintf("%s-%d", prefix, i)
		// Something else is written first, as a pod is before its grants.
		other := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := l.client.CoreV1().ConfigMaps(writesNamespace).Create(ctx, other, metav1.CreateOptions{}); err != nil {
			return w, fmt.Errorf("creating a config map: %w", err)
		}
		role, binding := roleAndBinding(name)
		began := time.Now()
		if _, err := client.RbacV1().Roles(writesNamespace).Create(ctx, role, metav1.CreateOptions{}); err != nil {
			return w, fmt.Errorf("creating a role as %s: %w", who.who, err)
		}
		w.role = append(w.role, time.Since(began))
		if err := measure.Sleep(ctx, who.apart); err != nil {
			return w, err
		}
		began = time.Now()
		if _, err := client.RbacV1().RoleBindings(writesNamespace).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
			return w, fmt.Errorf("creating a role binding as %s: %w", who.who, err)
		}
		w.binding = append(w.binding, time.Since(began))
	}
	after, afterSum, err := l.cacheWaits(ctx)
	w.waits, w.waited = after-before, afterSum-beforeSum
	return w, err
}

// roleAndBinding are like those that the manager makes, but not marked as its own: it would remove them, for want of a pod.
func roleAndBinding(name string) (*rbacv1.Role, *rbacv1.RoleBinding) {
	meta := metav1.ObjectMeta{Name: name}
	group := []string{"coordination.k8s.io"}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: group, Resources: []string{"leases"}, ResourceNames: []string{name}, Verbs: []string{"get", "list", "watch", "update"}},
		{APIGroups: group, Resources: []string{"leases"}, Verbs: []string{"create"}},
	}}
	return role, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: writesNamespace, Name: name}},
	}
}

// waitMetric is the API server's own measure of how long reads wait for the watch cache to be as new as etcd.
const waitMetric = "apiserver_watch_cache_read_wait_seconds"

// cacheWaits is how often, and for how long in all, reads of RBAC objects have waited.
func (l *lab) cacheWaits(ctx context.Context) (count int, sum time.Duration, err error) {
	return l.histogram(ctx, waitMetric, "group", rbacv1.GroupName)
}
