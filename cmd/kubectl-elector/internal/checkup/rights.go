package checkup

import (
	"context"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
)

// managersRights asks whether the manager may do what it does.
func (c *Checkup) managersRights(ctx context.Context) {
	if c.manager == nil {
		return
	}
	account := c.manager.Spec.Template.Spec.ServiceAccountName
	var missing []string
	for _, r := range needs(c.manager) {
		review, err := c.API.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + c.manager.Namespace + ":" + account, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + c.manager.Namespace, "system:authenticated"},
			ResourceAttributes: &r,
		}}, metav1.CreateOptions{})
		if err != nil {
			c.unread(ctx, "rights", err, access.Right{Verb: "create", Group: authorizationv1.GroupName, Resource: "subjectaccessreviews"})
			return
		}
		if !review.Status.Allowed {
			missing = append(missing, r.Verb+" "+strings.TrimSuffix(r.Resource+"/"+r.Subresource, "/"))
		}
	}
	if len(missing) > 0 {
		c.say(Fault, "rights", upgrade, "the manager's ServiceAccount %s/%s may not %s", c.manager.Namespace, account, some(missing))
		return
	}
	c.say(OK, "rights", "", "the manager may do what it does")
}

// some is a list for people, of maxSaid at most.
func some(list []string) string {
	if more := len(list) - maxSaid; more > 0 {
		return strings.Join(list[:maxSaid], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(list, ", ")
}

// needs is what the manager does, one request each, as the chart's roles have it: a
// test holds them together. What was switched off is told by the manager's flags.
func needs(manager *appsv1.Deployment) []authorizationv1.ResourceAttributes {
	var all []authorizationv1.ResourceAttributes
	need := func(r authorizationv1.ResourceAttributes, verbs ...string) {
		for _, r.Verb = range verbs {
			all = append(all, r)
		}
	}
	type of = authorizationv1.ResourceAttributes
	need(of{Resource: "pods"}, "get", "list", "watch")
	need(of{Resource: "pods", Subresource: "status"}, "patch")
	for _, resource := range []string{"roles", "rolebindings"} {
		need(of{Group: rbacv1.GroupName, Resource: resource}, "get", "list", "watch", "create", "patch", "delete")
	}
	need(of{Group: coordinationv1.GroupName, Resource: "leases"}, "get", "list", "watch", "create", "update", "patch", "delete")
	if flag(manager, "leader-for-life") != "false" {
		need(of{Resource: "configmaps"}, "get", "list", "watch", "create", "patch", "delete")
	}
	if flag(manager, "namespace-selector") != "" {
		need(of{Resource: "namespaces"}, "get", "list", "watch")
	}
	need(of{Group: eventsv1.GroupName, Resource: "events"}, "create", "patch")
	need(of{Group: appsv1.GroupName, Resource: "replicasets"}, "get")
	need(of{Group: batchv1.GroupName, Resource: "jobs"}, "get")
	configuration := of{Group: admissionv1.GroupName, Resource: "mutatingwebhookconfigurations", Name: flag(manager, "webhook-configuration")}
	need(configuration, "get", "list", "watch")
	if flag(manager, "certificate-mode") == "self" {
		need(configuration, "patch")
		need(of{Namespace: manager.Namespace, Resource: "secrets", Name: flag(manager, "certificate-secret")}, "get", "list", "watch", "update")
	}
	return all
}

// flag is the value of one of the manager's flags, the last if it is given twice.
func flag(manager *appsv1.Deployment, name string) (value string) {
	for i := range manager.Spec.Template.Spec.Containers {
		for _, arg := range manager.Spec.Template.Spec.Containers[i].Args {
			if v, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
				value = v
			}
		}
	}
	return value
}
