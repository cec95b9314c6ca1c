package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	rbacv1client "k8s.io/client-go/kubernetes/typed/rbac/v1"
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
	// atOnce sends both together.
	atOnce bool
}

// writes is how long a writer's requests took, and what the API server waited for meanwhile.
type writes struct {
	who           string
	role, binding measure.Sample
	both          measure.Sample // of each pair, without the time that was let pass between them
	waits         int            // of lists of RBAC objects, for the watch cache to be up to date
	waited        time.Duration  // all of them together
}

// The users. They are not the manager itself, because the chart's policy keeps that to grants of locks that exist.
const (
	// peer has all that the manager has.
	peer = "elector-bench:peer"
	// binder may bind any Role besides.
	binder = "elector-bench:may-bind"
	// escalator may also write any Role.
	escalator = "elector-bench:may-escalate"
)

// measureWrites lets different users make the same objects, to find out what the time of a grant depends on.
func (l *lab) measureWrites(ctx context.Context) ([]writes, error) {
	if err := measure.CreateNamespace(ctx, l.client, writesNamespace); err != nil {
		return nil, err
	}
	if err := l.allowWrites(ctx); err != nil {
		return nil, err
	}
	var all []writes
	for _, w := range []writer{
		{who: "one with the manager's rights", user: peer},
		{who: "the same, " + writesApart.String() + " apart", user: peer, apart: writesApart},
		{who: "one who may also `bind`, both at once", user: binder, atOnce: true},
		{who: "one who may also `escalate` and `bind`", user: escalator},
		{who: "the cluster's administrator"},
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

// allowWrites gives the users their rights: each has the manager's ClusterRole, which is called as its Service is.
func (l *lab) allowWrites(ctx context.Context) error {
	for user, verbs := range map[string][]string{peer: nil, binder: {"bind"}, escalator: {"bind", "escalate"}} {
		if err := l.bindCluster(ctx, user+":as-manager", l.endpoint.service, user); err != nil {
			return err
		}
		if verbs == nil {
			continue
		}
		_, err := l.client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles"}, Verbs: verbs},
		}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("creating a cluster role: %w", err)
		}
		if err := l.bindCluster(ctx, user, user, user); err != nil {
			return err
		}
	}
	return measure.Sleep(ctx, time.Second) // the API server's authorizer hears of it
}

func (l *lab) bindCluster(ctx context.Context, name, role, user string) error {
	_, err := l.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating a cluster role binding: %w", err)
	}
	return nil
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
		if err := w.pair(ctx, client.RbacV1(), who, name); err != nil {
			return w, err
		}
	}
	after, afterSum, err := l.cacheWaits(ctx)
	w.waits, w.waited = after-before, afterSum-beforeSum
	return w, err
}

// pair writes a Role and its RoleBinding.
func (w *writes) pair(ctx context.Context, client rbacv1client.RbacV1Interface, who writer, name string) error {
	role, binding := roleAndBinding(name)
	var roleTook, bindingTook time.Duration
	var group errgroup.Group
	group.Go(func() error {
		began := time.Now()
		_, err := client.Roles(writesNamespace).Create(ctx, role, metav1.CreateOptions{})
		if roleTook = time.Since(began); err != nil {
			return fmt.Errorf("creating a role as %s: %w", who.who, err)
		}
		return nil
	})
	if !who.atOnce {
		if err := errors.Join(group.Wait(), measure.Sleep(ctx, who.apart)); err != nil {
			return err
		}
	}
	group.Go(func() error {
		began := time.Now()
		_, err := client.RoleBindings(writesNamespace).Create(ctx, binding, metav1.CreateOptions{})
		if bindingTook = time.Since(began); err != nil {
			return fmt.Errorf("creating a role binding as %s: %w", who.who, err)
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	both := roleTook + bindingTook
	if who.atOnce {
		both = max(roleTook, bindingTook)
	}
	w.role, w.binding, w.both = append(w.role, roleTook), append(w.binding, bindingTook), append(w.both, both)
	return nil
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
