//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// The pods' ServiceAccount may touch its lock as the sidecar does, and nothing else.
func TestAccess(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newSpace(t)
		const account = "web-account"
		if _, err := cluster.Client().CoreV1().ServiceAccounts(s.name).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		d := s.deployment("web", annotations(mode))
		d.Spec.Template.Spec.ServiceAccountName = account
		e := s.elect(d)
		s.checkReviews(account, mode)
		s.checkRequests(e, mode)
	})
}

// checkReviews asks the API server what the account may do.
func (s *space) checkReviews(account string, mode elector.Mode) {
	s.t.Helper()
	group, resource, other, otherGroup := "coordination.k8s.io", "leases", "configmaps", ""
	if mode == elector.ModeLeaderForLife {
		group, resource, other, otherGroup = otherGroup, other, resource, group
	}
	forLife := mode == elector.ModeLeaderForLife
	allowed := map[string]bool{"get": true, "list": true, "watch": true, "update": !forLife, "patch": forLife, "delete": forLife}
	lock := inject.DefaultLock("web", mode)
	type question struct{ namespace, verb, group, resource, name, subresource string }
	questions := map[question]bool{
		// RBAC cannot limit creation to a name.
		{s.name, "create", group, resource, "", ""}: true,
	}
	for _, verb := range []string{"get", "list", "watch", "update", "patch", "delete", "deletecollection"} {
		questions[question{s.name, verb, group, resource, lock, ""}] = allowed[verb]
		questions[question{s.name, verb, group, resource, "web2", ""}] = false
		questions[question{s.name, verb, group, resource, "", ""}] = false // all of them
		questions[question{s.name, verb, otherGroup, other, lock, ""}] = false
		questions[question{"default", verb, group, resource, lock, ""}] = false
	}
	for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
		for _, core := range []string{"pods", "secrets", "serviceaccounts", "events", "services"} {
			questions[question{s.name, verb, "", core, "", ""}] = false
		}
		questions[question{s.name, verb, "rbac.authorization.k8s.io", "roles", "", ""}] = false
		questions[question{"", verb, "", "nodes", "", ""}] = false
	}
	questions[question{s.name, "create", otherGroup, other, "", ""}] = false
	questions[question{"default", "create", group, resource, "", ""}] = false
	questions[question{s.name, "create", "", "serviceaccounts", "web-account", "token"}] = false
	for q, want := range questions {
		review, err := cluster.Client().AuthorizationV1().SubjectAccessReviews().Create(s.t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User:   "system:serviceaccount:" + s.name + ":" + account,
				Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + s.name, "system:authenticated"},
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: q.namespace, Verb: q.verb, Group: q.group, Resource: q.resource, Name: q.name, Subresource: q.subresource,
				},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		if review.Status.Allowed != want {
			s.t.Errorf("%+v: allowed %t, want %t (%s)", q, review.Status.Allowed, want, review.Status.Reason)
		}
	}
}

// checkRequests tries it, with the token that the leader's sidecar uses.
func (s *space) checkRequests(e *election, mode elector.Mode) {
	s.t.Helper()
	leader, _ := e.awaitLeader("")
	token := s.kubectl("exec", leader, "-c", "elector", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	config := cluster.RESTConfig()
	config.CertData, config.CertFile = nil, ""
	config.KeyData, config.KeyFile = nil, ""
	config.BearerToken = strings.TrimSpace(token)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx := s.t.Context()
	leases, configMaps := client.CoordinationV1().Leases(s.name), client.CoreV1().ConfigMaps(s.name)
	get := func(name string) error {
		if mode == elector.ModeLeaderForLife {
			_, err := configMaps.Get(ctx, name, metav1.GetOptions{})
			return err
		}
		_, err := leases.Get(ctx, name, metav1.GetOptions{})
		return err
	}
	update := func(name string) error {
		if mode == elector.ModeLeaderForLife {
			_, err := configMaps.Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.UpdateOptions{})
			return err
		}
		_, err := leases.Update(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.UpdateOptions{})
		return err
	}
	if err := get(inject.DefaultLock("web", mode)); err != nil {
		s.t.Errorf("the sidecar's token cannot read its lock: %v", err)
	}
	for what, err := range map[string]error{
		"reading another lock":      get("web2"),
		"changing another lock":     update("web2"),
		"deleting a Lease":          leases.Delete(ctx, "web2", metav1.DeleteOptions{}),
		"deleting a ConfigMap":      configMaps.Delete(ctx, "kube-root-ca.crt", metav1.DeleteOptions{}),
		"listing pods":              second(client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{})),
		"listing Secrets":           second(client.CoreV1().Secrets(s.name).List(ctx, metav1.ListOptions{})),
		"listing Leases":            second(leases.List(ctx, metav1.ListOptions{})),
		"listing ConfigMaps":        second(configMaps.List(ctx, metav1.ListOptions{})),
		"reading another namespace": second(client.CoordinationV1().Leases("elector-system").Get(ctx, "elector-webhook", metav1.GetOptions{})),
	} {
		if !apierrors.IsForbidden(err) {
			s.t.Errorf("%s with the sidecar's token: %v, want 403", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// What was granted goes with the last pod that needs it.
func TestGrantCleanup(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	e := s.elect(s.deployment("web", annotations(elector.ModeLease)))
	want := "role.rbac.authorization.k8s.io/elector:lease:web\nrolebinding.rbac.authorization.k8s.io/elector:lease:web:default\n"
	if got := s.kubectl("get", "roles,rolebindings", "-o", "name"); got != want {
		t.Errorf("granted is\n%swant\n%s", got, want)
	}
	s.kubectl("scale", "deployment", "web", "--replicas=1")
	e.await("two pods to go", func() error {
		if len(e.pods) != 1 {
			return fmt.Errorf("%d pods are there", len(e.pods))
		}
		return nil
	})
	if got := s.kubectl("get", "roles,rolebindings", "-o", "name"); got != want {
		t.Errorf("with one pod left, granted is\n%swant\n%s", got, want)
	}
	s.kubectl("delete", "deployment", "web")
	s.awaitNoGrants()
	e.await("the last pod to go", func() error {
		if len(e.pods) > 0 {
			return fmt.Errorf("%d pods are there", len(e.pods))
		}
		return nil
	})
}

func (s *space) awaitNoGrants() {
	s.t.Helper()
	eventually(s.t, "the grant to go", func(ctx context.Context) error {
		roles, err := cluster.Client().RbacV1().Roles(s.name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		bindings, err := cluster.Client().RbacV1().RoleBindings(s.name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if n := len(roles.Items) + len(bindings.Items); n > 0 {
			return fmt.Errorf("%d Roles and RoleBindings are there", n)
		}
		return nil
	})
}
