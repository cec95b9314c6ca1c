//go:build integration

package rights

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// The sentences of the policies, after "the manager of elector ".
const (
	onlyStatus       = "writes to a pod through its status alone"
	onlyInjected     = `writes only to pods with the label elector.io/injected "true"`
	noStatus         = "changes no status of a pod"
	onlyRoleLabel    = "changes no label of a pod but elector.io/role, which is leader or standby"
	onlyDeletionCost = "changes no annotation of a pod but controller.kubernetes.io/pod-deletion-cost"
	onlyLeadersCost  = "gives a pod no deletion cost but 2147483646, and takes no other away"
	noFinalizer      = "changes no finalizer or owner of a pod"

	roleNamed      = "writes no Role but those with names such as elector:lease:web"
	roleOurs       = `writes to no Role without the label app.kubernetes.io/managed-by "elector"`
	roleMarked     = `makes no Role without the label app.kubernetes.io/managed-by "elector", or with other finalizers or owners`
	roleOfLock     = "makes no Role but that of the lock in its name"
	bindingNamed   = "writes no RoleBinding but those with names such as elector:lease:web:default"
	bindingOurs    = `writes to no RoleBinding without the label app.kubernetes.io/managed-by "elector"`
	bindingMarked  = `makes no RoleBinding without the label app.kubernetes.io/managed-by "elector", or with other finalizers or owners`
	bindingOfLock  = "binds no Role but that of the lock, and to the ServiceAccount, in the RoleBinding's name"
	leaseOwn       = "makes no Lease but its own"
	leaseOurs      = `writes to no Lease but those with the label app.kubernetes.io/managed-by "elector" or the annotation elector.io/adopt "true"`
	leaseReleased  = "does nothing to a Lease but release it or say who is to lead next, unless it is its own"
	leaseFree      = `deletes no Lease that somebody holds, or without the label app.kubernetes.io/managed-by "elector"`
	configMapNone  = "makes no ConfigMap"
	configMapAlone = "changes no ConfigMap but to say who is to lead next"
	configMapOurs  = `deletes no ConfigMap but those that belong to a Pod and have the label app.kubernetes.io/managed-by "elector"`
	webhookOwn     = "writes to no webhook configuration but its own"
	webhookBundle  = "changes nothing of its webhook configuration but the caBundles"
	caOwn          = "writes to no Secret but that of its CA"
	secretData     = "changes nothing of its Secret but the data"
	eventOwn       = "writes no Event but its own"
)

// act is a request, always a dry run.
type act func(context.Context, kubernetes.Interface) error

var (
	dryCreate = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	dryPatch  = metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
	dryApply  = metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: "elector-webhook", Force: new(true)}
	dryDelete = metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
)

func patchPod(name, patch string, subresource ...string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Pods(shop).Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), dryPatch, subresource...)
		return err
	}
}

func patchStatus(name, patch string) act { return patchPod(name, patch, "status") }

// costs is a patch of the deletion cost.
func costs(value string) string {
	return `{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":` + value + `}}}`
}

func createRole(role *rbacv1.Role) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.RbacV1().Roles(shop).Create(ctx, role, dryCreate)
		return err
	}
}

func patchRole(name, patch string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.RbacV1().Roles(shop).Patch(ctx, name, types.MergePatchType, []byte(patch), dryPatch)
		return err
	}
}

func createBinding(binding *rbacv1.RoleBinding) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.RbacV1().RoleBindings(shop).Create(ctx, binding, dryCreate)
		return err
	}
}

func patchBinding(name, patch string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.RbacV1().RoleBindings(shop).Patch(ctx, name, types.MergePatchType, []byte(patch), dryPatch)
		return err
	}
}

// updateLease changes a Lease as whoever asks for it finds it.
func updateLease(namespace, name string, change func(*coordinationv1.Lease)) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		lease, err := c.CoordinationV1().Leases(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		change(lease)
		_, err = c.CoordinationV1().Leases(namespace).Update(ctx, lease, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
}

func createLease(namespace, name string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: ours}}
		_, err := c.CoordinationV1().Leases(namespace).Create(ctx, lease, dryCreate)
		return err
	}
}

func deleteLease(name string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		return c.CoordinationV1().Leases(shop).Delete(ctx, name, dryDelete)
	}
}

func patchLease(name, patch string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoordinationV1().Leases(shop).Patch(ctx, name, types.MergePatchType, []byte(patch), dryPatch)
		return err
	}
}

func patchConfigMap(name, patch string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().ConfigMaps(shop).Patch(ctx, name, types.MergePatchType, []byte(patch), dryPatch)
		return err
	}
}

func deleteConfigMap(namespace, name string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		return c.CoreV1().ConfigMaps(namespace).Delete(ctx, name, dryDelete)
	}
}

func patchWebhook(name, patch string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), dryPatch)
		return err
	}
}

// updateSecret changes the Secret of the CA, which the manager may update and not patch.
func updateSecret(name string, change func(*corev1.Secret)) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		secret, err := c.CoreV1().Secrets(system).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		change(secret)
		_, err = c.CoreV1().Secrets(system).Update(ctx, secret, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
}

func createEvent(controller string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.EventsV1().Events(shop).Create(ctx, anEvent("new", controller), dryCreate)
		return err
	}
}

func patchEvent(name string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.EventsV1().Events(shop).Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), dryPatch)
		return err
	}
}

func anEvent(name, controller string) *eventsv1.Event {
	return &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: shop}, EventTime: metav1.NowMicro(),
		ReportingController: controller, ReportingInstance: controller + "-1", Action: "Grant", Reason: "LockNotGranted", Type: corev1.EventTypeWarning,
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: shop, Name: "candidate"},
	}
}

var ours = map[string]string{"app.kubernetes.io/managed-by": "elector"}

// roleOf returns the Role that the manager makes for a Lease, changed.
func roleOf(lock string, change ...func(*rbacv1.Role)) *rbacv1.Role {
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "elector:lease:" + lock, Labels: ours},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{lock}, Verbs: []string{"get", "list", "watch", "update"}},
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		},
	}
	for _, c := range change {
		c(role)
	}
	return role
}

// bindingOf returns the RoleBinding that the manager makes for a ServiceAccount, changed. Its Role is that of the candidate's lock: RBAC
// looks whether there is one.
func bindingOf(account string, change ...func(*rbacv1.RoleBinding)) *rbacv1.RoleBinding {
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "elector:lease:web:" + account, Labels: ours},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "elector:lease:web"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: shop, Name: account}},
	}
	for _, c := range change {
		c(binding)
	}
	return binding
}

// itself is the manager's ServiceAccount as a subject.
const itself = `{"kind":"ServiceAccount","name":"` + manager + `","namespace":"` + system + `"}`

// evil is what somebody would do with the manager's token.
type evil struct {
	do act
	// says is the policy's sentence.
	says string
	// forbidden tells that RBAC refuses it, so that the policy matters only to a manager that has been given more.
	forbidden bool
}

// evils need the fixtures.
var evils = map[string]evil{
	"give a pod another image":               {patchPod("candidate", `{"spec":{"containers":[{"name":"app","image":"evil"}]}}`), onlyStatus, true},
	"label a pod through the pod":            {patchPod("candidate", `{"metadata":{"labels":{"elector.io/role":"leader"}}}`), onlyStatus, true},
	"resize a pod":                           {patchPod("candidate", `{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"2"}}}]}}`, "resize"), onlyStatus, true},
	"debug a pod":                            {patchPod("candidate", `{"spec":{"ephemeralContainers":[{"name":"e","image":"evil"}]}}`, "ephemeralcontainers"), onlyStatus, true},
	"make a pod":                             {createPod, onlyStatus, true},
	"delete a pod":                           {deletePod, onlyStatus, true},
	"delete all pods":                        {deletePods, onlyStatus, true},
	"evict a pod":                            {evictPod, onlyStatus, true},
	"bind a pod to a node":                   {bindPod, onlyStatus, true},
	"label a pod that is no candidate":       {patchStatus("plain", `{"metadata":{"labels":{"elector.io/role":"leader"}}}`), onlyInjected, false},
	"make a pod a candidate":                 {patchStatus("plain", `{"metadata":{"labels":{"elector.io/injected":"true"}}}`), onlyInjected, false},
	"let another pod be ready":               {patchStatus("plain", `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`), onlyInjected, false},
	"let a candidate have failed":            {patchStatus("candidate", `{"status":{"phase":"Failed"}}`), noStatus, false},
	"let a candidate be ready":               {patchStatus("candidate", `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`), noStatus, false},
	"give a candidate another address":       {patchStatus("candidate", `{"status":{"podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}]}}`), noStatus, false},
	"put a candidate into another Service":   {patchStatus("candidate", `{"metadata":{"labels":{"app":"bank"}}}`), onlyRoleLabel, false},
	"take a candidate out of its Service":    {patchStatus("candidate", `{"metadata":{"labels":{"app":null}}}`), onlyRoleLabel, false},
	"hide a candidate from the manager":      {patchStatus("candidate", `{"metadata":{"labels":{"elector.io/injected":null}}}`), onlyRoleLabel, false},
	"invent a role":                          {patchStatus("candidate", `{"metadata":{"labels":{"elector.io/role":"king"}}}`), onlyRoleLabel, false},
	"change what a candidate contends for":   {patchStatus("candidate", `{"metadata":{"annotations":{"elector.io/status":"{}"}}}`), onlyDeletionCost, false},
	"take away a candidate's annotation":     {patchStatus("candidate", `{"metadata":{"annotations":{"elector.io/status":null}}}`), onlyDeletionCost, false},
	"let another be deleted first":           {patchStatus("candidate", costs(`"100"`)), onlyLeadersCost, false},
	"take a pod's own deletion cost":         {patchStatus("costly", costs("null")), onlyLeadersCost, false},
	"change a pod's own deletion cost":       {patchStatus("costly", costs(`"2147483646"`)), onlyLeadersCost, false},
	"change a leader's deletion cost":        {patchStatus("leader", costs(`"-1"`)), onlyLeadersCost, false},
	"keep a candidate from going":            {patchStatus("candidate", `{"metadata":{"finalizers":["example.com/stay"]}}`), noFinalizer, false},
	"write a Role that is nobody's lock":     {createRole(roleOf("other", func(r *rbacv1.Role) { r.Name = "mine" })), roleNamed, false},
	"write a Role of a name made up":         {createRole(roleOf("other", func(r *rbacv1.Role) { r.Name = ""; r.GenerateName = "elector:lease:other" })), roleOfLock, false},
	"write a Role of another lock":           {createRole(roleOf("other", func(r *rbacv1.Role) { r.Rules[0].ResourceNames[0] = "theirs" })), roleOfLock, false},
	"write a Role of two locks":              {createRole(roleOf("other", func(r *rbacv1.Role) { r.Rules[0].ResourceNames = append(r.Rules[0].ResourceNames, "theirs") })), roleOfLock, false},
	"write a Role of all locks":              {createRole(roleOf("other", func(r *rbacv1.Role) { r.Rules[0].ResourceNames = nil })), roleOfLock, false},
	"write a Role of one more rule":          {createRole(roleOf("other", func(r *rbacv1.Role) { r.Rules = append(r.Rules, readPods) })), roleOfLock, false},
	"write a Role of another rule":           {createRole(roleOf("other", func(r *rbacv1.Role) { r.Rules[1] = readPods })), roleOfLock, false},
	"write a Role that updates what it made": {createRole(roleOf("other", func(r *rbacv1.Role) { r.Rules[1].Verbs = append(r.Rules[1].Verbs, "update") })), roleOfLock, false},
	"write a Role without rules":             {createRole(roleOf("other", func(r *rbacv1.Role) { r.Rules = nil })), roleOfLock, false},
	"write a Role that is not marked":        {createRole(roleOf("other", func(r *rbacv1.Role) { r.Labels = nil })), roleMarked, false},
	"write a Role that cannot go":            {createRole(roleOf("other", func(r *rbacv1.Role) { r.Finalizers = []string{"example.com/stay"} })), roleMarked, false},
	"keep a Role from going":                 {patchRole("elector:lease:web", `{"metadata":{"finalizers":["example.com/stay"]}}`), roleMarked, false},
	"change somebody's Role":                 {patchRole("team", `{"metadata":{"labels":{"a":"b"}}}`), roleNamed, false},
	"take somebody's Role for its own":       {patchRole("elector:lease:stranger", `{"metadata":{"labels":{"app.kubernetes.io/managed-by":"elector"}}}`), roleOurs, false},
	"widen a Role":                           {patchRole("elector:lease:web", `{"rules":[{"apiGroups":["coordination.k8s.io"],"resources":["leases"],"verbs":["get"]}]}`), roleOfLock, false},
	"delete somebody's Role":                 {deleteRole("team"), roleNamed, false},
	"delete a Role that is not marked":       {deleteRole("elector:lease:stranger"), roleOurs, false},
	"join a RoleBinding":                     {patchBinding("team", `{"subjects":[`+itself+`]}`), bindingNamed, false},
	"join a RoleBinding of its own":          {patchBinding("elector:lease:web:default", `{"subjects":[`+itself+`]}`), bindingOfLock, false},
	"apply a RoleBinding that is not there":  {applyBinding, bindingOfLock, false},
	"bind a RoleBinding's second subject":    {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.Subjects = append(b.Subjects, b.Subjects[0]) })), bindingOfLock, false},
	"bind somebody of another namespace":     {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.Subjects[0].Namespace = "default" })), bindingOfLock, false},
	"bind another account":                   {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.Subjects[0].Name = "team" })), bindingOfLock, false},
	"bind a user": {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) {
		b.Subjects[0] = rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "default"}
	})), bindingOfLock, false},
	"bind everybody": {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) {
		b.Subjects[0] = rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:authenticated"}
	})), bindingOfLock, false},
	"bind nobody":                          {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.Subjects = nil })), bindingOfLock, false},
	"bind another Role":                    {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.RoleRef.Name = "team" })), bindingOfLock, false},
	"bind the manager's rights":            {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.RoleRef.Kind, b.RoleRef.Name = "ClusterRole", manager })), bindingOfLock, false},
	"write a RoleBinding of another name":  {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.Name = "mine" })), bindingNamed, false},
	"write a RoleBinding that is unmarked": {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.Labels = nil })), bindingMarked, false},
	"write a RoleBinding that cannot go":   {createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) { b.Finalizers = []string{"example.com/stay"} })), bindingMarked, false},
	"take somebody's RoleBinding":          {patchBinding("elector:lease:stranger:default", `{"metadata":{"labels":{"app.kubernetes.io/managed-by":"elector"}}}`), bindingOurs, false},
	"delete somebody's RoleBinding":        {deleteBinding("team"), bindingNamed, false},
	"delete an unmarked RoleBinding":       {deleteBinding("elector:lease:stranger:default"), bindingOurs, false},

	"make a lock for somebody":     {createLease(shop, "new"), leaseOwn, false},
	"make a lock beside its own":   {createLease(system, "new"), leaseOwn, false},
	"take somebody's Lease":        {updateLease(shop, "theirs", lead), leaseOurs, false},
	"free somebody's Lease":        {updateLease(shop, "theirs", free), leaseOurs, false},
	"adopt somebody's Lease":       {updateLease(shop, "theirs", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"elector.io/adopt": "true"} }), leaseOurs, false},
	"stop the scheduler":           {updateLease("kube-node-lease", "node-1", free), leaseOurs, false},
	"lead a workload":              {updateLease(shop, "held", lead), leaseReleased, false},
	"lead where nobody does":       {updateLease(shop, "free", lead), leaseReleased, false},
	"let a leader lead for longer": {updateLease(shop, "held", func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = new(int32(86400)) }), leaseReleased, false},
	"renew for a leader":           {updateLease(shop, "held", func(l *coordinationv1.Lease) { l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()} }), leaseReleased, false},
	"label a free Lease":           {updateLease(shop, "free", func(l *coordinationv1.Lease) { l.Labels["a"] = "b" }), leaseReleased, false},
	"annotate a free Lease":        {updateLease(shop, "free", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"a": "b"} }), leaseReleased, false},
	"keep a free Lease":            {updateLease(shop, "free", func(l *coordinationv1.Lease) { l.Finalizers = []string{"example.com/stay"} }), leaseReleased, false},
	"delete a leader's Lease":      {deleteLease("held"), leaseFree, false},
	"steer somebody's Lease":       {patchLease("theirs", `{"metadata":{"annotations":{"elector.io/next":"web-1"}}}`), leaseOurs, false},
	"steer and lead a workload":    {patchLease("held", `{"metadata":{"annotations":{"elector.io/next":"web-1"}},"spec":{"holderIdentity":"evil_1"}}`), leaseReleased, false},
	"forge a leader's note":        {patchLease("held", `{"metadata":{"annotations":{"elector.io/claim":"{}"}}}`), leaseReleased, false},
	"fill a Lease":                 {patchLease("held", `{"metadata":{"annotations":{"elector.io/next":"`+strings.Repeat("x", 9000)+`"}}}`), leaseReleased, false},
	"steer and keep a Lease":       {patchLease("held", `{"metadata":{"finalizers":["example.com/stay"],"annotations":{"elector.io/next":"web-1"}}}`), leaseReleased, false},
	"delete somebody's Lease":      {deleteLease("theirs"), leaseOurs, false},
	"delete an adopted Lease":      {deleteLease("adopted"), leaseFree, false},
	"delete all locks": {func(ctx context.Context, c kubernetes.Interface) error {
		return c.CoordinationV1().Leases(shop).DeleteCollection(ctx, dryDelete, metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=elector"})
	}, leaseFree, true},

	"make a ConfigMap":                                   {createConfigMap, configMapNone, false},
	"change an app's ConfigMap":                          {patchConfigMap("app-config", `{"data":{"a":"b"}}`), configMapAlone, false},
	"mark an app's ConfigMap":                            {patchConfigMap("app-config", `{"metadata":{"labels":{"app.kubernetes.io/managed-by":"elector"}}}`), configMapAlone, false},
	"steer an app's ConfigMap":                           {patchConfigMap("app-config", `{"metadata":{"annotations":{"elector.io/next":"web-1"}}}`), configMapAlone, false},
	"put data into a lock for life":                      {patchConfigMap("life", `{"metadata":{"annotations":{"elector.io/next":"web-1"}},"data":{"a":"b"}}`), configMapAlone, false},
	"freeze a lock for life":                             {patchConfigMap("life", `{"immutable":true}`), configMapAlone, false},
	"take a lock for life":                               {patchConfigMap("life", `{"metadata":{"ownerReferences":null}}`), configMapAlone, false},
	"delete an app's ConfigMap":                          {deleteConfigMap(shop, "app-config"), configMapOurs, false},
	"delete a ConfigMap that a Pod owns":                 {deleteConfigMap(shop, "owned"), configMapOurs, false},
	"delete a marked ConfigMap that is a lock of nobody": {deleteConfigMap(shop, "nobody"), configMapOurs, false},
	"end authentication to the API server":               {deleteConfigMap("kube-system", "extension-apiserver-authentication"), configMapOurs, false},

	"see every object":                    {patchWebhook(manager, `{"webhooks":[{"name":"pods.elector.io","rules":[{"apiGroups":["*"],"apiVersions":["*"],"resources":["*/*"],"operations":["*"]}]}]}`), webhookBundle, false},
	"see other pods":                      {patchWebhook(manager, `{"webhooks":[{"name":"pods.elector.io","matchConditions":[{"name":"asks-for-elector","expression":"true"}]}]}`), webhookBundle, false},
	"see other namespaces":                {patchWebhook(manager, `{"webhooks":[{"name":"pods.elector.io","namespaceSelector":{"matchLabels":{"a":"b"}}}]}`), webhookBundle, false},
	"select other pods":                   {patchWebhook(manager, `{"webhooks":[{"name":"pods.elector.io","objectSelector":{"matchLabels":{"a":"b"}}}]}`), webhookBundle, false},
	"send pods elsewhere":                 {patchWebhook(manager, `{"webhooks":[{"name":"pods.elector.io","clientConfig":{"service":null,"url":"https://evil.example/"}}]}`), webhookBundle, false},
	"send pods to another Service":        {patchWebhook(manager, `{"webhooks":[{"name":"pods.elector.io","clientConfig":{"service":{"name":"evil"}}}]}`), webhookBundle, false},
	"let pods pass":                       {patchWebhook(manager, `{"webhooks":[{"name":"pods.elector.io","failurePolicy":"Ignore"}]}`), webhookBundle, false},
	"add a webhook":                       {patchWebhook(manager, `{"webhooks":[{"name":"evil.elector.io","clientConfig":{"url":"https://evil.example/"},"sideEffects":"None","admissionReviewVersions":["v1"]}]}`), webhookBundle, false},
	"remove a webhook":                    {patchWebhook(manager, `{"webhooks":[{"$patch":"delete","name":"pods.elector.io"}]}`), webhookBundle, false},
	"remove all webhooks":                 {patchWebhook(manager, `{"webhooks":null}`), webhookBundle, false},
	"let cert-manager write the caBundle": {patchWebhook(manager, `{"metadata":{"annotations":{"cert-manager.io/inject-ca-from":"shop/evil"}}}`), webhookBundle, false},
	"change somebody's webhooks":          {patchWebhook("theirs", `{"metadata":{"labels":{"a":"b"}}}`), webhookOwn, true},
	"make webhooks": {func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx,
			&admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "evil"}}, dryCreate)
		return err
	}, webhookOwn, true},
	"delete its webhooks": {func(ctx context.Context, c kubernetes.Interface) error {
		return c.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, manager, dryDelete)
	}, webhookOwn, true},

	"label its Secret":     {updateSecret(manager+"-ca", func(s *corev1.Secret) { s.Labels["a"] = "b" }), secretData, false},
	"keep its Secret":      {updateSecret(manager+"-ca", func(s *corev1.Secret) { s.Finalizers = []string{"example.com/stay"} }), secretData, false},
	"freeze its Secret":    {updateSecret(manager+"-ca", func(s *corev1.Secret) { s.Immutable = new(true) }), secretData, false},
	"write another Secret": {updateSecret("theirs", func(s *corev1.Secret) { s.Data = map[string][]byte{"a": nil} }), caOwn, true},
	"make a Secret": {func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Secrets(system).Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}}, Type: corev1.SecretTypeServiceAccountToken,
		}, dryCreate)
		return err
	}, caOwn, true},
	"delete its Secret": {func(ctx context.Context, c kubernetes.Interface) error {
		return c.CoreV1().Secrets(system).Delete(ctx, manager+"-ca", dryDelete)
	}, caOwn, true},

	"tell Events in the kubelet's name": {createEvent("kubelet"), eventOwn, false},
	"change somebody's Event":           {patchEvent("theirs"), eventOwn, false},
	"delete an Event": {func(ctx context.Context, c kubernetes.Interface) error {
		return c.EventsV1().Events(shop).Delete(ctx, "theirs", dryDelete)
	}, eventOwn, true},
}

var readPods = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}

func lead(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("evil_1") }

func free(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("") }

func createPod(ctx context.Context, c kubernetes.Interface) error {
	_, err := c.CoreV1().Pods(shop).Create(ctx, aPod("evil"), dryCreate)
	return err
}

func deletePod(ctx context.Context, c kubernetes.Interface) error {
	return c.CoreV1().Pods(shop).Delete(ctx, "plain", dryDelete)
}

func deletePods(ctx context.Context, c kubernetes.Interface) error {
	return c.CoreV1().Pods(shop).DeleteCollection(ctx, dryDelete, metav1.ListOptions{})
}

func evictPod(ctx context.Context, c kubernetes.Interface) error {
	return c.CoreV1().Pods(shop).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: shop}, DeleteOptions: &dryDelete})
}

func bindPod(ctx context.Context, c kubernetes.Interface) error {
	return c.CoreV1().Pods(shop).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: shop}, Target: corev1.ObjectReference{Kind: "Node", Name: "node-1"},
	}, dryCreate)
}

func deleteRole(name string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		return c.RbacV1().Roles(shop).Delete(ctx, name, dryDelete)
	}
}

func deleteBinding(name string) act {
	return func(ctx context.Context, c kubernetes.Interface) error {
		return c.RbacV1().RoleBindings(shop).Delete(ctx, name, dryDelete)
	}
}

// applyBinding creates by server-side apply.
func applyBinding(ctx context.Context, c kubernetes.Interface) error {
	_, err := c.RbacV1().RoleBindings(shop).Patch(ctx, "elector:lease:web:new", types.ApplyPatchType, []byte(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding",
		"metadata":{"name":"elector:lease:web:new","labels":{"app.kubernetes.io/managed-by":"elector"}},
		"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"elector:lease:web"},"subjects":[`+itself+`]}`), dryApply)
	return err
}

func createConfigMap(ctx context.Context, c kubernetes.Interface) error {
	_, err := c.CoreV1().ConfigMaps(shop).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "new", Labels: ours}}, dryCreate)
	return err
}

// aPod is one that no node takes.
func aPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeSelector: map[string]string{"no": "node"}, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

// fixed tells that the fixtures are there. They go with the cluster: every request is a dry run.
var fixed bool

// fixtures is a namespace with what is evil to touch, and what is not.
func fixtures(t *testing.T) {
	t.Helper()
	if fixed {
		return
	}
	ctx, c := t.Context(), cluster.Client()
	ok := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}
	ok(c.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}))
	eventually(t, "the namespace's ServiceAccount", func(ctx context.Context) error {
		_, err := c.CoreV1().ServiceAccounts(shop).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	candidate := aPod("candidate")
	candidate.Annotations = map[string]string{"elector.io/enabled": "true", "elector.io/lock": "web"}
	pod, err := c.CoreV1().Pods(shop).Create(ctx, candidate, metav1.CreateOptions{})
	ok(pod, err)
	ok(c.CoreV1().Pods(shop).Create(ctx, aPod("plain"), metav1.CreateOptions{}))
	for name, cost := range map[string]string{"costly": "5", "leader": "2147483646"} {
		costly := aPod(name)
		costly.Annotations = maps.Clone(candidate.Annotations)
		costly.Annotations[corev1.PodDeletionCost] = cost
		ok(c.CoreV1().Pods(shop).Create(ctx, costly, metav1.CreateOptions{}))
	}
	owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "candidate", UID: pod.UID}}

	adopted := map[string]string{"elector.io/adopt": "true"}
	for name, meta := range map[string]metav1.ObjectMeta{"held": {Labels: ours}, "free": {Labels: ours}, "theirs": {}, "adopted": {Annotations: adopted}} {
		meta.Name = name
		lease := &coordinationv1.Lease{ObjectMeta: meta, Spec: coordinationv1.LeaseSpec{HolderIdentity: new("web-1_2"), LeaseDurationSeconds: new(int32(15))}}
		if name == "free" {
			lease.Spec.HolderIdentity = nil
		}
		ok(c.CoordinationV1().Leases(shop).Create(ctx, lease, metav1.CreateOptions{}))
	}
	for name, meta := range map[string]metav1.ObjectMeta{
		"app-config": {}, "owned": {OwnerReferences: owner}, "nobody": {Labels: ours},
		"life": {Labels: ours, OwnerReferences: owner}, "life-adopted": {Annotations: adopted, OwnerReferences: owner},
	} {
		meta.Name = name
		ok(c.CoreV1().ConfigMaps(shop).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{}))
	}
	stranger := roleOf("stranger", func(r *rbacv1.Role) { r.Labels = nil })
	team := roleOf("theirs", func(r *rbacv1.Role) { r.Name, r.Labels = "team", nil })
	for _, role := range []*rbacv1.Role{stranger, team} {
		ok(c.RbacV1().Roles(shop).Create(ctx, role, metav1.CreateOptions{}))
	}
	for _, binding := range []*rbacv1.RoleBinding{
		bindingOf("default", func(b *rbacv1.RoleBinding) {
			b.Name, b.Labels, b.RoleRef.Name = "elector:lease:stranger:default", nil, "elector:lease:stranger"
		}),
		bindingOf("default", func(b *rbacv1.RoleBinding) { b.Name, b.Labels, b.RoleRef.Name = "team", nil, "team" }),
	} {
		ok(c.RbacV1().RoleBindings(shop).Create(ctx, binding, metav1.CreateOptions{}))
	}
	ok(c.EventsV1().Events(shop).Create(ctx, anEvent("theirs", "kubelet"), metav1.CreateOptions{}))
	ok(c.EventsV1().Events(shop).Create(ctx, anEvent("ours", manager), metav1.CreateOptions{}))
	ok(c.CoreV1().Secrets(system).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}, metav1.CreateOptions{}))
	theirs := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}
	ok(c.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, theirs, metav1.CreateOptions{}))
	eventually(t, "the grant of the candidate", func(ctx context.Context) error {
		_, err := c.RbacV1().RoleBindings(shop).Get(ctx, "elector:lease:web:default", metav1.GetOptions{})
		return err
	})
	fixed = true
}

// Nothing evil comes of the manager's token: first with the rights that the chart gives it, then with all rights, when the policies are
// all that is left. Without policies, everything passes.
func TestPolicy(t *testing.T) {
	fixtures(t)
	token := asManager(t)
	for name, e := range evils {
		t.Run("chart's rights/"+name, func(t *testing.T) {
			switch err := e.do(t.Context(), token); {
			case !apierrors.IsForbidden(err):
				t.Errorf("not refused: %v", err)
			case e.forbidden && !strings.Contains(err.Error(), `User "system:serviceaccount:`+system+":"+manager+`" cannot `):
				t.Errorf("RBAC does not refuse it: %v", err)
			case !e.forbidden && !strings.Contains(err.Error(), "the manager of elector "+e.says):
				t.Errorf("it says %v", err)
			}
		})
	}
	for name, do := range needs {
		t.Run("chart's rights/needs to "+name, func(t *testing.T) {
			if err := do(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}

	giveAll(t, token)
	for name, e := range evils {
		t.Run("all rights/"+name, func(t *testing.T) {
			if err := e.do(t.Context(), token); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "the manager of elector "+e.says) {
				t.Errorf("it says %v", err)
			}
		})
	}
	t.Run("all rights/open a shell in a pod", func(t *testing.T) { // of which there is no dry run
		err := token.CoreV1().RESTClient().Post().Namespace(shop).Resource("pods").Name("candidate").SubResource("exec").Param("command", "id").Do(t.Context()).Error()
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "the manager of elector "+onlyStatus) {
			t.Errorf("it says %v", err)
		}
	})
	withoutPolicies(t, token)
	pass := func(step string, forbidden bool) {
		for name, e := range evils {
			if e.forbidden != forbidden {
				continue
			}
			t.Run(step+"/"+name, func(t *testing.T) {
				if err := e.do(t.Context(), token); err != nil {
					t.Error(err)
				}
			})
		}
	}
	pass("no policies, all rights", true)
	takeBack(t, token)
	pass("no policies, chart's rights", false)
}

// tooMuch gives the manager every right.
const tooMuch = "manager-is-admin"

func giveAll(t *testing.T, token kubernetes.Interface) {
	t.Helper()
	_, err := cluster.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: tooMuch}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: system, Name: manager}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := cluster.Client().RbacV1().ClusterRoleBindings().Delete(context.WithoutCancel(t.Context()), tooMuch, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	eventually(t, "the rights to count", func(ctx context.Context) error {
		_, err := token.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		return err
	})
}

func takeBack(t *testing.T, token kubernetes.Interface) {
	t.Helper()
	if err := cluster.Client().RbacV1().ClusterRoleBindings().Delete(t.Context(), tooMuch, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rights to be gone", func(ctx context.Context) error {
		if _, err := token.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			return fmt.Errorf("reading nodes: %w", err)
		}
		return nil
	})
}

// withoutPolicies switches the policies off until the end of the test, and waits until they count no more.
func withoutPolicies(t *testing.T, token kubernetes.Interface) {
	t.Helper()
	t.Cleanup(func() {
		if err := upgrade(context.WithoutCancel(t.Context()), "admissionPolicy.enabled=true"); err != nil {
			t.Error(err)
		}
	})
	if err := upgrade(t.Context(), "admissionPolicy.enabled=false"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the policies to be gone", func(ctx context.Context) error {
		for _, e := range evils {
			if err := e.do(ctx, token); err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
				return err
			}
		}
		return nil
	})
}

// needs is what the manager does.
var needs = map[string]act{
	"label a leader":                patchStatus("candidate", `{"metadata":{"labels":{"elector.io/role":"leader"}}}`),
	"label a standby":               patchStatus("candidate", `{"metadata":{"labels":{"elector.io/role":"standby"}}}`),
	"say who is to be deleted last": patchStatus("candidate", costs(`"2147483646"`)),
	"say so no more":                patchStatus("leader", costs("null")),
	"label one with its own cost":   patchStatus("costly", `{"metadata":{"labels":{"elector.io/role":"leader"}}}`),
	"make a Role":                   createRole(roleOf("other")),
	"make a Role for life":          createRole(forLife),
	"put a Role right":              patchRole("elector:lease:web", `{"metadata":{"annotations":{"a":"b"}}}`),
	"delete a Role":                 deleteRole("elector:lease:web"),
	"make a RoleBinding": createBinding(bindingOf("other", func(b *rbacv1.RoleBinding) {
		b.RoleRef.Name, b.Name = "elector:lease:web", "elector:lease:web:team"
		b.Subjects[0].Name = "team"
	})),
	"put a RoleBinding right":        patchBinding("elector:lease:web:default", `{"metadata":{"annotations":{"a":"b"}}}`),
	"delete a RoleBinding":           deleteBinding("elector:lease:web:default"),
	"renew its lock":                 updateLease(system, manager, func(l *coordinationv1.Lease) { l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()} }),
	"free a dead pod's lock":         updateLease(shop, "held", free),
	"free a dead pod's adopted lock": updateLease(shop, "adopted", release),
	"remove a lock that is free":     deleteLease("free"),
	"ask for a handover":             patchLease("held", `{"metadata":{"annotations":{"elector.io/handover":"{\"token\":7}","elector.io/next":"web-1,web-2"}}}`),
	"ask on an adopted Lease":        patchLease("adopted", `{"metadata":{"annotations":{"elector.io/handover":"{\"token\":7}"}}}`),
	"say who is next for life":       patchConfigMap("life", `{"metadata":{"annotations":{"elector.io/next":"web-1"}}}`),
	"say it in an adopted ConfigMap": patchConfigMap("life-adopted", `{"metadata":{"annotations":{"elector.io/handover":"{\"token\":7}"}}}`),
	"free a dead pod's ConfigMap":    deleteConfigMap(shop, "life"),
	"free an adopted ConfigMap":      deleteConfigMap(shop, "life-adopted"),
	"publish its CA":                 patchWebhook(manager, `{"webhooks":[{"name":"pods.elector.io","clientConfig":{"caBundle":"Cg=="}}]}`),
	"keep its CA":                    updateSecret(manager+"-ca", func(s *corev1.Secret) { s.Data["more"] = []byte("a") }),
	"tell an Event":                  createEvent(manager),
	"tell an Event again":            patchEvent("ours"),
}

// forLife is the Role that the manager makes for a ConfigMap.
var forLife = roleOf("life", func(r *rbacv1.Role) {
	r.Name = "elector:configmap:life"
	for i := range r.Rules {
		r.Rules[i].APIGroups, r.Rules[i].Resources = []string{""}, []string{"configmaps"}
	}
	r.Rules[0].Verbs = []string{"get", "list", "watch", "patch", "delete"}
})

// release frees a Lease as elector does, with a note.
func release(l *coordinationv1.Lease) {
	l.Spec.HolderIdentity, l.Spec.LeaseTransitions = new(""), new(int32(0))
	l.Annotations["elector.io/claim"] = "{}"
}

// The API server's own check of the policies' types finds nothing.
func TestPolicyTypes(t *testing.T) {
	eventually(t, "the types to be checked", func(ctx context.Context) error {
		policies, err := cluster.Client().AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=elector"})
		if err != nil {
			return err
		}
		if len(policies.Items) == 0 {
			return errors.New("there are no policies")
		}
		for _, p := range policies.Items {
			if p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil {
				return fmt.Errorf("%s is not checked yet", p.Name)
			}
			for _, w := range p.Status.TypeChecking.ExpressionWarnings {
				t.Errorf("%s: %s: %s", p.Name, w.FieldRef, w.Warning)
			}
		}
		return nil
	})
}

// What the right to patch the status of pods is worth without the policies: the spec stays as it was, also in a candidate.
func TestStatusKeepsSpec(t *testing.T) {
	fixtures(t)
	pod, err := asManager(t).CoreV1().Pods(shop).Patch(t.Context(), "candidate", types.StrategicMergePatchType,
		[]byte(`{"spec":{"serviceAccountName":"other","containers":[{"name":"app","image":"evil"},{"name":"evil","image":"evil"}]}}`), dryPatch, "status")
	if err != nil {
		t.Fatal(err)
	}
	if got := pod.Spec.Containers; len(got) != 1 || got[0].Image != "app" || pod.Spec.ServiceAccountName != "default" {
		t.Errorf("the spec is %v of %s", got, pod.Spec.ServiceAccountName)
	}
}

// A token of the manager does not become another's.
func TestNoOtherIdentity(t *testing.T) {
	token := asManager(t)
	for _, account := range []struct{ namespace, name string }{{"kube-system", "default"}, {system, "default"}, {system, manager}} {
		_, err := token.CoreV1().ServiceAccounts(account.namespace).CreateToken(t.Context(), account.name, &authenticationv1.TokenRequest{}, dryCreate)
		if !apierrors.IsForbidden(err) {
			t.Errorf("a token of %s: %v", account, err)
		}
	}
	for _, who := range []rest.ImpersonationConfig{{UserName: "admin", Groups: []string{"system:masters"}}, {UserName: "system:serviceaccount:kube-system:default"}} {
		cfg := rest.CopyConfig(configOf(t))
		cfg.Impersonate = who
		other, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("in the name of %s: %v", who.UserName, err)
		}
	}
}

// Who speaks in the manager's name is held to what the manager does, whatever rights they have themselves.
func TestInTheManagersName(t *testing.T) {
	cfg := cluster.RESTConfig()
	cfg.Impersonate.UserName = "system:serviceaccount:" + system + ":" + manager
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal", func(ctx context.Context) error { // policies take a moment to count
		err := deleteConfigMap("kube-system", "extension-apiserver-authentication")(ctx, client)
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), configMapOurs) {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
}
