//go:build integration

package integration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/elector"
)

// as returns a client with a token of the ServiceAccount, as its pods have one.
func (s *space) as(account string) kubernetes.Interface {
	s.t.Helper()
	token, err := cluster.Client().CoreV1().ServiceAccounts(s.name).CreateToken(s.t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(cluster.RESTConfig())
	config.BearerToken, config.QPS = token.Status.Token, -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

// rules are all that the client may do in the namespace, one by one, as the API server lists it to the client itself.
func (s *space) rules(ctx context.Context, client kubernetes.Interface) ([]string, error) {
	review, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: s.name},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	if review.Status.Incomplete {
		return nil, fmt.Errorf("the list is incomplete: %s", review.Status.EvaluationError)
	}
	all := map[string]bool{}
	for _, r := range review.Status.ResourceRules {
		names := r.ResourceNames
		if len(names) == 0 {
			names = []string{"any"}
		}
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, name := range names {
					for _, verb := range r.Verbs {
						all[strings.Join([]string{verb, group, resource, name}, " ")] = true
					}
				}
			}
		}
	}
	for _, r := range review.Status.NonResourceRules {
		for _, url := range r.NonResourceURLs {
			for _, verb := range r.Verbs {
				all[verb+" "+url] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// documented is what docs/reference.md says that a lock's candidates are granted, in the form of rules. What is granted for any name
// comes first.
func documented(mode elector.Mode, lock string) []string {
	group, resource, verbs := "coordination.k8s.io", "leases", []string{"get", "list", "watch", "update"}
	if mode == elector.ModeLeaderForLife {
		group, resource, verbs = "", "configmaps", []string{"get", "list", "watch", "patch", "delete"}
	}
	granted := []string{strings.Join([]string{"create", group, resource, "any"}, " ")}
	for _, verb := range verbs {
		granted = append(granted, strings.Join([]string{verb, group, resource, lock}, " "))
	}
	return granted
}

// awaitRules waits until the client may do what it could before, what is granted more, and nothing else.
func (s *space) awaitRules(what string, client kubernetes.Interface, before, granted []string) {
	s.t.Helper()
	want := slices.Sorted(slices.Values(slices.Concat(before, granted)))
	eventually(s.t, what, func(ctx context.Context) error {
		got, err := s.rules(ctx, client)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

// access asks about every resource that the API server has, by every verb, and returns what is allowed. Asked with a name, it
// finds what is allowed for this name and for any.
func (s *space) access(client kubernetes.Interface, name string) []string {
	s.t.Helper()
	_, lists, err := cluster.Client().Discovery().ServerGroupsAndResources()
	if err != nil {
		s.t.Fatal(err)
	}
	var questions []authorizationv1.ResourceAttributes
	for _, list := range lists {
		group, _, named := strings.Cut(list.GroupVersion, "/")
		if !named {
			group = ""
		}
		for _, r := range list.APIResources {
			resource, subresource, _ := strings.Cut(r.Name, "/")
			for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"} {
				questions = append(questions, authorizationv1.ResourceAttributes{
					Namespace: s.name, Verb: verb, Group: group, Resource: resource, Subresource: subresource, Name: name,
				})
			}
		}
	}
	var mu sync.Mutex
	allowed := map[string]bool{}
	var wg sync.WaitGroup
	for part := range slices.Chunk(questions, len(questions)/8+1) {
		wg.Go(func() {
			for _, q := range part {
				review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(s.t.Context(), &authorizationv1.SelfSubjectAccessReview{
					Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &q},
				}, metav1.CreateOptions{})
				if err != nil {
					s.t.Error(err)
					return
				}
				if !review.Status.Allowed {
					continue
				}
				mu.Lock()
				allowed[strings.TrimSuffix(strings.Join([]string{q.Verb, q.Group, q.Resource, q.Subresource}, " "), " ")] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return slices.Sorted(maps.Keys(allowed))
}

// anybody is what every ServiceAccount may do in its namespace without elector. To ask takes a thousand questions, so it is asked once.
var anybody struct {
	once   sync.Once
	access []string
}

func accessOfAnybody(s *space, client kubernetes.Interface, name string) []string {
	s.t.Helper()
	anybody.once.Do(func() { anybody.access = s.access(client, name) })
	return anybody.access
}

// A pod's ServiceAccount may do what the reference says more than without elector, and nothing else, while there is such a pod:
// whatever others make of the grant in the meantime.
func TestRules(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newSpace(t)
		const account, lock, other = "web-account", "web-lock", "other-lock"
		if _, err := cluster.Client().CoreV1().ServiceAccounts(s.name).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		client := s.as(account)
		before, err := s.rules(t.Context(), client)
		if err != nil || len(before) == 0 {
			t.Fatal(before, err)
		}
		accessBefore := accessOfAnybody(s, client, lock)

		// Two elections with locks and accounts of their own. Their pods need not run to be granted their lock.
		granted := documented(mode, lock)
		s.pending("web", account, annotations(mode, "lock", lock))
		s.pending("other", "default", annotations(mode, "lock", other))
		s.awaitRules("the grant", client, before, granted)
		s.awaitRules("the other's grant", s.as("default"), before, documented(mode, other))

		// For the lock, all of it is allowed; for the other one, what is granted for any.
		for name, rules := range map[string][]string{lock: granted, other: granted[:1]} {
			want := slices.Clone(accessBefore)
			for _, rule := range rules {
				want = append(want, rule[:strings.LastIndex(rule, " ")])
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, s.access(client, name)); diff != "" {
				t.Errorf("what is allowed for the name %s, one question at a time (-documented +allowed):\n%s", name, diff)
			}
		}
		s.checkOther(client, mode, other)
		s.checkDrift(client, mode, before, granted)

		s.kubectl("delete", "pod", "web")
		s.awaitRules("the end of the grant", client, before, nil)
	})
}

// pending makes a pod that no node fits.
func (s *space) pending(name, account string, annotations map[string]string) {
	s.t.Helper()
	pod := s.pod(annotations)
	pod.Name, pod.Spec.ServiceAccountName, pod.Spec.NodeSelector = name, account, map[string]string{"example.com/place": "nowhere"}
	if _, err := cluster.Client().CoreV1().Pods(s.name).Create(s.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// checkOther tries to touch another election's lock.
func (s *space) checkOther(client kubernetes.Interface, mode elector.Mode, name string) {
	s.t.Helper()
	ctx := s.t.Context()
	meta := metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "elector"}}
	tries := map[string]error{}
	if mode == elector.ModeLease {
		if _, err := cluster.Client().CoordinationV1().Leases(s.name).Create(ctx, &coordinationv1.Lease{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
		leases := client.CoordinationV1().Leases(s.name)
		tries["get"] = second(leases.Get(ctx, name, metav1.GetOptions{}))
		tries["update"] = second(leases.Update(ctx, &coordinationv1.Lease{ObjectMeta: meta}, metav1.UpdateOptions{}))
		tries["patch"] = second(leases.Patch(ctx, name, types.MergePatchType, []byte("{}"), metav1.PatchOptions{}))
		tries["delete"] = leases.Delete(ctx, name, metav1.DeleteOptions{})
		tries["list"] = second(leases.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name}))
		tries["watch"] = second(leases.Watch(ctx, metav1.ListOptions{}))
	} else {
		if _, err := cluster.Client().CoreV1().ConfigMaps(s.name).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
		configMaps := client.CoreV1().ConfigMaps(s.name)
		tries["get"] = second(configMaps.Get(ctx, name, metav1.GetOptions{}))
		tries["update"] = second(configMaps.Update(ctx, &corev1.ConfigMap{ObjectMeta: meta}, metav1.UpdateOptions{}))
		tries["patch"] = second(configMaps.Patch(ctx, name, types.MergePatchType, []byte("{}"), metav1.PatchOptions{}))
		tries["delete"] = configMaps.Delete(ctx, name, metav1.DeleteOptions{})
		tries["list"] = second(configMaps.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name}))
		tries["watch"] = second(configMaps.Watch(ctx, metav1.ListOptions{}))
	}
	for verb, err := range tries {
		if !apierrors.IsForbidden(err) {
			s.t.Errorf("%s of another election's lock: %v, want 403", verb, err)
		}
	}
}

// checkDrift edits and deletes the grant, which comes back each time as it was.
func (s *space) checkDrift(client kubernetes.Interface, mode elector.Mode, before, granted []string) {
	s.t.Helper()
	kind := "lease"
	if mode == elector.ModeLeaderForLife {
		kind = "configmap"
	}
	role := "elector:" + kind + ":web-lock"
	binding := role + ":web-account"
	roles, bindings := cluster.Client().RbacV1().Roles(s.name), cluster.Client().RbacV1().RoleBindings(s.name)
	changeRole := func(change func(*rbacv1.Role)) error {
		r, err := roles.Get(s.t.Context(), role, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(r)
		return second(roles.Update(s.t.Context(), r, metav1.UpdateOptions{}))
	}
	for what, change := range map[string]func() error{
		"more rules": func() error {
			return changeRole(func(r *rbacv1.Role) {
				r.Rules = append(r.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"*"}})
			})
		},
		"no names":      func() error { return changeRole(func(r *rbacv1.Role) { r.Rules[0].ResourceNames = nil }) },
		"fewer verbs":   func() error { return changeRole(func(r *rbacv1.Role) { r.Rules[0].Verbs = r.Rules[0].Verbs[:1] }) },
		"no Role":       func() error { return roles.Delete(s.t.Context(), role, metav1.DeleteOptions{}) },
		"no binding":    func() error { return bindings.Delete(s.t.Context(), binding, metav1.DeleteOptions{}) },
		"another group": func() error { return changeRole(func(r *rbacv1.Role) { r.Rules[1].APIGroups = []string{"*"} }) },
		"other subjects": func() error {
			b, err := bindings.Get(s.t.Context(), binding, metav1.GetOptions{})
			if err != nil {
				return err
			}
			b.Subjects = []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:authenticated"}}
			return second(bindings.Update(s.t.Context(), b, metav1.UpdateOptions{}))
		},
	} {
		if err := change(); err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		// The objects first: while nothing has been done yet, the API server may not have seen the change either.
		eventually(s.t, what, func(ctx context.Context) error {
			r, err := roles.Get(ctx, role, metav1.GetOptions{})
			if err != nil {
				return err
			}
			b, err := bindings.Get(ctx, binding, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if len(r.Rules) != 2 || len(r.Rules[0].Verbs) != len(granted)-1 || len(r.Rules[0].ResourceNames) != 1 || r.Rules[1].APIGroups[0] == "*" ||
				len(b.Subjects) != 1 || b.Subjects[0].Kind != rbacv1.ServiceAccountKind {
				return fmt.Errorf("still there: %v, %v", r.Rules, b.Subjects)
			}
			return nil
		})
		s.awaitRules(what, client, before, granted)
	}
}
