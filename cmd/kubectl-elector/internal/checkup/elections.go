package checkup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
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
		c.election(&found.Locks[i])
	}
	c.candidates(ctx)
	c.refused(ctx)
	c.workloads(ctx)
	if len(c.findings) == before {
		c.say(OK, "locks", "", "nothing is wrong with the %d locks in the namespace %s", len(found.Locks), c.Namespace)
	}
}

func (c *Checkup) election(l *survey.Lock) {
	describe := "kubectl elector describe " + l.Key().Short() + " -n " + l.Namespace
	switch {
	case l.Note != "" && len(l.Candidates) > 0 && (l.Leader == "" || l.LeadingCandidate() == nil || l.Late(c.API.Now()) > 0):
		c.say(Fault, "locks", describe+"; kubectl -n "+l.Namespace+" logs "+l.Candidates[0].Name+" -c elector", "%s: %s", l.Name, l.Note)
	case l.Note != "" && len(l.Candidates) > 0:
		c.say(Warning, "locks", describe, "%s: %s", l.Name, l.Note)
	}
}

// versions compares the manager's version with the sidecars' and the plugin's.
func (c *Checkup) versions(context.Context) {
	if c.sidecar == "" {
		return
	}
	if c.Version != c.sidecar {
		c.say(Warning, "versions", "use the plugin of the manager's version", "this plugin has version %s, and the manager %s", c.Version, c.sidecar)
	}
	if !c.podsRead {
		return // it has been said
	}
	others := map[string]int{}
	for i := range c.pods {
		if p := &c.pods[i]; p.lock.Name != "" && p.version != c.sidecar {
			others[p.version]++
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
