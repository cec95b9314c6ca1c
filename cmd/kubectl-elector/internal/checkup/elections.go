package checkup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/cmd/internal/rights"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// usersRights says which commands the user may not give.
func (c *Checkup) usersRights(ctx context.Context) {
	all := true
	for _, r := range []struct {
		right access.Right
		what  string
	}{
		{access.Right{Verb: "list", Resource: "pods"}, "`get` and `describe` do not know the candidates"},
		{access.Right{Verb: "list", Group: coordinationv1.GroupName, Resource: "leases"}, "`get` does not know the locks of mode lease"},
		{access.Right{Verb: "list", Resource: "configmaps"}, "`get` does not know the locks of leader-for-life"},
		{access.Right{Verb: "list", Resource: "events"}, "`describe` does not know the history"},
		{access.Right{Verb: "patch", Group: coordinationv1.GroupName, Resource: "leases"}, "`switchover` does not work"},
	} {
		r.right.Namespace = c.Namespace
		review, err := c.API.Client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: c.Namespace, Verb: r.right.Verb, Group: r.right.Group, Resource: r.right.Resource},
		}}, metav1.CreateOptions{})
		if err != nil {
			c.unread(ctx, "you", err, access.Right{Verb: "create", Group: authorizationv1.GroupName, Resource: "selfsubjectaccessreviews"})
			return
		}
		if !review.Status.Allowed {
			all = false
			c.say(Warning, "you", r.right.Command(c.API.User(ctx)), "you may not %s: %s", r.right, r.what)
		}
	}
	if all {
		c.say(OK, "you", "", "you may use every command in the namespace %s", c.Namespace)
	}
}

// elections looks at the locks and pods of the namespace.
func (c *Checkup) elections(ctx context.Context) {
	before := len(c.findings)
	found, err := c.All(ctx, c.Namespace)
	if err != nil {
		c.say(Unknown, "locks", "", "%v", err)
		return
	}
	for _, sentence := range found.Missing {
		c.say(Unknown, "locks", "", "%s", sentence)
	}
	for i := range found.Locks {
		c.election(ctx, &found.Locks[i])
	}
	c.bare(ctx)
	c.refused(ctx)
	if len(c.findings) == before {
		c.say(OK, "locks", "", "nothing is wrong with the %d locks in the namespace %s", len(found.Locks), c.Namespace)
	}
}

func (c *Checkup) election(ctx context.Context, l *survey.Lock) {
	describe := "kubectl elector describe " + shortKey(l) + " -n " + l.Namespace
	switch {
	case l.Note != "" && len(l.Candidates) > 0 && (l.Leader == "" || l.LeadingCandidate() == nil || l.Late(c.API.Now()) > 0):
		c.say(Fault, "locks", describe+"; kubectl -n "+l.Namespace+" logs "+l.Candidates[0].Name+" -c elector", "%s: %s", l.Name, l.Note)
	case l.Note != "" && len(l.Candidates) > 0:
		c.say(Warning, "locks", describe, "%s: %s", l.Name, l.Note)
	}
	if len(l.Candidates) == 0 {
		return
	}
	name := rights.Name(l.Mode, l.Name)
	bindings, err := c.API.Client.RbacV1().RoleBindings(l.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		c.unread(ctx, "grants", err, access.Right{Verb: "list", Group: "rbac.authorization.k8s.io", Resource: "rolebindings", Namespace: l.Namespace})
		return
	}
	for i := range bindings.Items {
		if bindings.Items[i].RoleRef.Name == name {
			return
		}
	}
	c.say(Warning, "grants", "the manager grants it, so look whether it is there and what it says of the pods: kubectl -n "+l.Namespace+" get events; without the webhook: kubectl elector inject --rbac",
		"no RoleBinding of elector's lets the candidates of %s write their lock", l.Name)
}

func shortKey(l *survey.Lock) string {
	if l.Mode == elector.ModeLeaderForLife {
		return "configmap/" + l.Name
	}
	return "lease/" + l.Name
}

// bare looks for pods that ask for elector and have no sidecar: they were made while
// the webhook did not answer, or before it was there, and never lead.
func (c *Checkup) bare(ctx context.Context) {
	var names []string
	for options := (metav1.ListOptions{Limit: 50}); ; {
		page, err := c.API.Client.CoreV1().Pods(c.Namespace).List(ctx, options)
		if err != nil {
			return // it has been said
		}
		for i := range page.Items {
			p := &page.Items[i]
			hasSidecar := slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerName })
			if p.Annotations[inject.Prefix+"enabled"] == "true" && !hasSidecar {
				names = append(names, p.Name)
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	if len(names) > 0 {
		c.say(Fault, "pods", "delete them, or restart their workload: kubectl rollout restart", "%d pods ask for elector and have no sidecar, such as %s: they were made while no replica of the manager answered, or before it was installed",
			len(names), names[0])
	}
}

// reasons are those of the manager's Events that tell of something wrong.
var reasons = []string{"LockNotGranted", "LockRevoked", "LockShared"}

// refused tells what the manager said about pods and locks.
func (c *Checkup) refused(ctx context.Context) {
	for _, reason := range reasons {
		list, err := c.API.Client.CoreV1().Events(c.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reason, Limit: 500})
		if err != nil {
			c.unread(ctx, "events", err, access.Right{Verb: "list", Resource: "events", Namespace: c.Namespace})
			return
		}
		said := map[string]bool{}
		for i := range list.Items {
			if e := &list.Items[i]; e.Source.Component == "" && !said[e.Message] && len(said) < maxSaid {
				said[e.Message] = true
				c.say(Fault, "events", "what it says; docs/messages.md explains "+reason+". Events stay for an hour", "%s: %s", reason, e.Message)
			}
		}
	}
}

// maxSaid is how many different messages of a reason are worth reading.
const maxSaid = 5

// versions compares the manager's version with the sidecars' and the plugin's.
func (c *Checkup) versions(ctx context.Context) {
	if c.sidecar == "" {
		return
	}
	if c.Version != c.sidecar {
		c.say(Warning, "versions", "use the plugin of the manager's version", "this plugin has version %s, and the manager %s", c.Version, c.sidecar)
	}
	found, err := c.All(ctx, c.Namespace)
	if err != nil {
		return // it has been said
	}
	others := map[string]int{}
	for i := range found.Locks {
		for j := range found.Locks[i].Candidates {
			if version := found.Locks[i].Candidates[j].Sidecar; version != c.sidecar {
				others[version]++
			}
		}
	}
	if len(others) == 0 {
		c.say(OK, "versions", "", "manager and sidecars have version %s", c.sidecar)
		return
	}
	var list []string
	for _, version := range slices.Sorted(maps.Keys(others)) {
		list = append(list, fmt.Sprintf("%d of %s", others[version], version))
	}
	c.say(Warning, "versions", "kubectl -n "+c.Namespace+" rollout restart deployment NAME", "the manager has version %s, and there are sidecars of others: %s. What is new in the manager may do nothing there",
		c.sidecar, strings.Join(list[:min(len(list), maxSaid)], ", "))
}
