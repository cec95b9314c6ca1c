package checkup

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// What the chart gives all objects of the manager.
const installed = "app.kubernetes.io/name=elector"

// The names of the chart's webhooks.
var webhooks = []string{"pods.elector.io", "workloads.elector.io"}

const upgrade = "helm upgrade elector charts/elector -n elector-system --reset-then-reuse-values"

// webhook looks at the webhook's configuration.
func (c *Checkup) webhook(ctx context.Context) {
	list, err := c.API.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{LabelSelector: installed})
	if err != nil {
		c.unread(ctx, "webhook", err, access.Right{Verb: "list", Group: admissionv1.GroupName, Resource: "mutatingwebhookconfigurations"})
		return
	}
	if len(list.Items) == 0 {
		c.say(Fault, "webhook", "install elector, or bring it back: "+upgrade, "there is no MutatingWebhookConfiguration with the label %s: no pod gets the sidecar", installed)
		return
	}
	if len(list.Items) > 1 {
		c.say(Warning, "webhook", "uninstall one of them", "elector is installed %d times, this is about %s", len(list.Items), list.Items[0].Name)
	}
	c.configuration = &list.Items[0]
	whole := true
	for _, name := range webhooks {
		i := slices.IndexFunc(c.configuration.Webhooks, func(w admissionv1.MutatingWebhook) bool { return w.Name == name })
		if i < 0 {
			c.say(Fault, "webhook", upgrade, "the MutatingWebhookConfiguration %s has lost its webhook %s", c.configuration.Name, name)
			whole = false
			continue
		}
		whole = c.oneWebhook(ctx, &c.configuration.Webhooks[i]) && whole
	}
	if whole {
		c.say(OK, "webhook", "", "the MutatingWebhookConfiguration %s is whole, and its caBundle valid", c.configuration.Name)
	}
}

// oneWebhook reports whether nothing is wrong.
func (c *Checkup) oneWebhook(ctx context.Context, w *admissionv1.MutatingWebhook) bool {
	if why := caFault(w.ClientConfig.CABundle, c.API.Now()); why != "" {
		c.say(Fault, "caBundle", "in mode self the manager writes it within seconds, so look whether it runs and who else writes it: kubectl get mutatingwebhookconfiguration "+c.configuration.Name+" -o yaml --show-managed-fields",
			"the caBundle of %s %s: the API server refuses every pod that asks for elector", w.Name, why)
		return false
	}
	if w.FailurePolicy != nil && *w.FailurePolicy == admissionv1.Ignore && w.Name == webhooks[0] {
		c.say(Warning, "webhook", upgrade+" --set webhook.failurePolicy=Fail", "failurePolicy is Ignore: pods that ask for elector start without it while no replica of the manager is reachable, and never lead")
	}
	namespace, err := c.API.Client.CoreV1().Namespaces().Get(ctx, c.Namespace, metav1.GetOptions{})
	if err != nil || w.NamespaceSelector == nil || w.Name != webhooks[0] {
		return true // the dry run will tell
	}
	selector, err := metav1.LabelSelectorAsSelector(w.NamespaceSelector)
	if err == nil && !selector.Matches(labels.Set(namespace.Labels)) {
		c.leftOut = true
		c.say(Fault, "webhook", "label the namespace so, or change webhook.namespaceSelector of the chart", "webhook.namespaceSelector (%s) does not select the namespace %s: its pods do not get the sidecar", selector, c.Namespace)
		return false
	}
	return true
}

// caFault says what is wrong with certificates that are to be trusted.
func caFault(bundle []byte, now time.Time) string {
	if len(bundle) == 0 {
		return "is empty"
	}
	expired := 0
	certificates := 0
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "is no certificate"
		}
		certificates++
		if now.Before(certificate.NotBefore) || now.After(certificate.NotAfter) {
			expired++
		}
	}
	switch {
	case certificates == 0:
		return "is no certificate"
	case expired == certificates:
		return "is expired, or not valid yet"
	}
	return ""
}

// managers looks at the manager's replicas and their election.
func (c *Checkup) managers(ctx context.Context) {
	namespace := c.managersNamespace()
	list, err := c.API.Client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: installed + ",app.kubernetes.io/component=webhook"})
	if err != nil {
		c.unread(ctx, "manager", err, access.Right{Verb: "list", Group: "apps", Resource: "deployments", Namespace: access.Scope(namespace)})
		return
	}
	if len(list.Items) == 0 {
		c.say(Fault, "manager", upgrade, "there is no Deployment of the manager: elections that run go on, but no pod gets the sidecar, a grant or a label")
		return
	}
	c.manager = &list.Items[0]
	in, wanted, ready := c.manager.Namespace, int32(1), c.manager.Status.ReadyReplicas
	if c.manager.Spec.Replicas != nil {
		wanted = *c.manager.Spec.Replicas
	}
	logs := "kubectl -n " + in + " get pods; kubectl -n " + in + " logs -l " + installed
	switch {
	case wanted == 0:
		c.say(Fault, "manager", "kubectl -n "+in+" scale deployment "+c.manager.Name+" --replicas 2", "the manager is scaled to 0: elections that run go on, but no pod gets the sidecar, a grant or a label")
		return
	case ready == 0:
		c.say(Fault, "manager", logs, "no replica of the manager is ready: elections that run go on, but no pod gets the sidecar, a grant or a label")
		return
	case ready < wanted:
		c.say(Warning, "manager", logs, "%d of %d replicas of the manager are ready", ready, wanted)
	case wanted == 1:
		c.say(Warning, "manager", upgrade+" --set replicas=2", "the manager has one replica: while it is restarted, pods that ask for elector are refused")
	default:
		c.say(OK, "manager", "", "%d of %d replicas of the manager are ready", ready, wanted)
	}
	l, err := c.Read(ctx, survey.Key{Namespace: in, Mode: elector.ModeLease, Name: c.manager.Name})
	switch {
	case err != nil:
		c.say(Unknown, "manager", "", "%v", err)
	case l.Leader == "" || l.Late(c.API.Now()) > 0:
		c.say(Fault, "manager", logs, "none of the manager's replicas leads: there are no new grants and labels, and locks of dead pods are not freed")
	}
}

func (c *Checkup) managersNamespace() string {
	if c.configuration == nil {
		return ""
	}
	for i := range c.configuration.Webhooks {
		if service := c.configuration.Webhooks[i].ClientConfig.Service; service != nil {
			return service.Namespace
		}
	}
	return ""
}

// objectSelector is that of the webhook for pods, nil if it is not known.
func (c *Checkup) objectSelector() *metav1.LabelSelector { return c.selectorOf(webhooks[0]) }

func (c *Checkup) selectorOf(webhook string) *metav1.LabelSelector {
	if c.configuration != nil {
		for i := range c.configuration.Webhooks {
			if c.configuration.Webhooks[i].Name == webhook {
				return c.configuration.Webhooks[i].ObjectSelector
			}
		}
	}
	return nil
}

// admission creates a pod that asks for the sidecar, by a dry run.
func (c *Checkup) admission(ctx context.Context) {
	if c.leftOut {
		return // it has been said
	}
	asking := askingPod(c.Namespace, labelsFor(c.objectSelector()))
	pod, err := c.tryOut(ctx, asking)
	if explained := c.API.Explain(ctx, err, access.Right{Verb: "create", Resource: "pods", Namespace: c.Namespace}); access.IsDenied(explained) {
		c.say(Unknown, "admission", "", "%v", explained)
		return
	}
	if apierrors.IsNotFound(err) {
		c.say(Fault, "admission", "choose another with -n", "there is no namespace %s: %v", c.Namespace, err)
		return
	}
	if err != nil {
		asking.Annotations = nil
		if _, same := c.tryOut(ctx, asking); same != nil {
			c.say(Unknown, "admission", "choose another namespace with -n", "a pod is refused in the namespace %s even if it does not ask for elector: %v", c.Namespace, same)
			return
		}
		c.say(Fault, "admission", "see the sentence: a quota, a LimitRange, a policy, or no replica of the manager that the API server reaches (docs/operations.md, Troubleshooting)",
			"a pod that asks for elector is refused in the namespace %s, and one that does not is accepted: %v", c.Namespace, err)
		return
	}
	if !slices.ContainsFunc(pod.Spec.InitContainers, isSidecar) {
		c.say(Fault, "admission", "look at the selectors of the MutatingWebhookConfiguration; with failurePolicy Ignore, whether the manager is there", "a pod that asks for elector in the namespace %s is accepted without the sidecar", c.Namespace)
		return
	}
	if status, ok := inject.StatusOf(pod); ok {
		c.sidecar = status.Version
	}
	c.say(OK, "admission", "", "a pod that asks for elector in the namespace %s gets the sidecar", c.Namespace)
	c.carrying(ctx)
}

// carrying creates a Deployment that asks for the sidecar, by a dry run.
func (c *Checkup) carrying(ctx context.Context) {
	asking := askingDeployment(c.Namespace, labelsFor(c.selectorOf(webhooks[1])))
	deployment, err := c.API.Client.AppsV1().Deployments(c.Namespace).Create(ctx, asking, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	explained := c.API.Explain(ctx, err, access.Right{Verb: "create", Group: "apps", Resource: "deployments", Namespace: c.Namespace})
	switch {
	case access.IsDenied(explained):
		c.say(Unknown, "admission", "", "%v", explained)
	case err != nil:
		c.say(Fault, "admission", "see the sentence: a policy, or no replica of the manager that the API server reaches (docs/operations.md, Troubleshooting)",
			"a Deployment that asks for elector is refused in the namespace %s: %v", c.Namespace, err)
	case deployment.Spec.Template.Annotations[inject.AnnotationEnabled] != "true":
		c.say(Fault, "admission", "look at the rules and selectors of "+webhooks[1]+" in the MutatingWebhookConfiguration, or write the annotation into pod templates",
			"the annotation of a Deployment in the namespace %s does not come to its pod template: its pods do not get the sidecar", c.Namespace)
	}
}

func (c *Checkup) tryOut(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return c.API.Client.CoreV1().Pods(c.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// labelsFor are labels that a selector selects, as far as it says what it wants.
func labelsFor(selector *metav1.LabelSelector) map[string]string {
	if selector == nil {
		return nil
	}
	wanted := map[string]string{}
	maps.Copy(wanted, selector.MatchLabels)
	for _, r := range selector.MatchExpressions {
		switch {
		case r.Operator == metav1.LabelSelectorOpExists:
			wanted[r.Key] = "true"
		case r.Operator == metav1.LabelSelectorOpIn && len(r.Values) > 0:
			wanted[r.Key] = r.Values[0]
		}
	}
	return wanted
}

// askingPod is a pod that every Pod Security level accepts, and with resources of
// its own, so that a quota or a LimitRange that refuses it means the sidecar. It is
// not Guaranteed: to such pods the sidecar adapts.
func askingPod(namespace string, labels map[string]string) *corev1.Pod {
	resources := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "elector-check", Labels: labels, Annotations: map[string]string{inject.AnnotationEnabled: "true"},
		},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "app", Image: "app",
				Resources:       corev1.ResourceRequirements{Requests: resources("100m", "128Mi"), Limits: resources("200m", "256Mi")},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}

// askingDeployment asks on itself, as people do, and makes such pods.
func askingDeployment(namespace string, selected map[string]string) *appsv1.Deployment {
	pod := askingPod(namespace, map[string]string{"app": "elector-check"})
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "elector-check", Labels: selected, Annotations: pod.Annotations},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
		},
	}
}

// policies looks whether the admission policies that confine the manager are there.
func (c *Checkup) policies(ctx context.Context) {
	policies, err := c.API.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{LabelSelector: installed})
	if err != nil {
		c.unread(ctx, "policies", err, access.Right{Verb: "list", Group: admissionv1.GroupName, Resource: "validatingadmissionpolicies"})
		return
	}
	bindings, err := c.API.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(ctx, metav1.ListOptions{LabelSelector: installed})
	if err != nil {
		c.unread(ctx, "policies", err, access.Right{Verb: "list", Group: admissionv1.GroupName, Resource: "validatingadmissionpolicybindings"})
		return
	}
	bound := map[string]bool{}
	for i := range bindings.Items {
		if binding := &bindings.Items[i].Spec; slices.Contains(binding.ValidationActions, admissionv1.Deny) {
			bound[binding.PolicyName] = true
		}
	}
	if len(policies.Items) == 0 {
		c.say(Warning, "policies", upgrade+" --set admissionPolicy.enabled=true", "no admission policy confines the manager: its ServiceAccount could do more than the manager does")
		return
	}
	there := map[string]bool{}
	for i := range policies.Items {
		there[policies.Items[i].Name] = true
	}
	wanted := policyNames(c.manager)
	if wanted == nil {
		wanted = slices.Sorted(maps.Keys(there))
	}
	for _, name := range wanted {
		switch {
		case !there[name]:
			c.say(Warning, "policies", upgrade, "there is no admission policy %s, which is one of those that confine the manager", name)
			return
		case !bound[name]:
			c.say(Warning, "policies", upgrade, "the admission policy %s has no binding that denies, and so no effect", name)
			return
		}
	}
	c.say(OK, "policies", "", "%d admission policies are there", len(policies.Items))
}

// policyNames are the admission policies that the chart has, nil if the manager is
// not known: a test holds them together.
func policyNames(manager *appsv1.Deployment) []string {
	if manager == nil {
		return nil
	}
	parts := []string{"pods", "events", "roles", "rolebindings", "leases", "marks"}
	if flag(manager, "leader-for-life") != "false" {
		parts = append(parts, "configmaps")
	}
	if flag(manager, "certificate-mode") == "self" {
		parts = append(parts, "secrets", "webhook")
	}
	for i := range parts {
		parts[i] = manager.Name + "-" + parts[i]
	}
	return parts
}
