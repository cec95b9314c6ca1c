package checkup

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/pager"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/inject"
)

// workloads looks for what was to ask for elector and does not: a label, another
// prefix, a kind that the webhook never sees, a template that the annotation has
// not come to.
func (c *Checkup) workloads(ctx context.Context) {
	c.namespaces(ctx)
	apps, batch, core := c.API.Client.AppsV1(), c.API.Client.BatchV1(), c.API.Client.CoreV1()
	for _, kind := range []struct {
		group, resource string
		list            pager.ListPageFunc
	}{
		{appsv1.GroupName, "deployments", page(apps.Deployments(c.Namespace).List)},
		{appsv1.GroupName, "statefulsets", page(apps.StatefulSets(c.Namespace).List)},
		{appsv1.GroupName, "daemonsets", page(apps.DaemonSets(c.Namespace).List)},
		{appsv1.GroupName, "replicasets", page(apps.ReplicaSets(c.Namespace).List)},
		{batchv1.GroupName, "jobs", page(batch.Jobs(c.Namespace).List)},
		{batchv1.GroupName, "cronjobs", page(batch.CronJobs(c.Namespace).List)},
		{corev1.GroupName, "replicationcontrollers", page(core.ReplicationControllers(c.Namespace).List)},
	} {
		p := &pager.ListPager{PageSize: 50, PageFn: kind.list}
		if err := p.EachListItem(ctx, metav1.ListOptions{}, c.workload); err != nil {
			c.unread(ctx, "workloads", err, access.Right{Verb: "list", Group: kind.group, Resource: kind.resource, Namespace: c.Namespace})
		}
	}
	c.foreign(ctx)
}

func page[L runtime.Object](list func(context.Context, metav1.ListOptions) (L, error)) pager.ListPageFunc {
	return func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return list(ctx, options)
	}
}

// workload looks at one.
func (c *Checkup) workload(obj runtime.Object) error {
	kind, object, template, seen := "", metav1.Object(nil), (*corev1.PodTemplateSpec)(nil), true
	switch o := obj.(type) {
	case *appsv1.Deployment:
		kind, object, template = "deployment", o, &o.Spec.Template
	case *appsv1.StatefulSet:
		kind, object, template = "statefulset", o, &o.Spec.Template
	case *appsv1.DaemonSet:
		kind, object, template = "daemonset", o, &o.Spec.Template
	case *appsv1.ReplicaSet:
		kind, object, template = "replicaset", o, &o.Spec.Template
	case *batchv1.Job:
		kind, object, template = "job", o, &o.Spec.Template
	case *batchv1.CronJob:
		kind, object, template = "cronjob", o, &o.Spec.JobTemplate.Spec.Template
	case *corev1.ReplicationController:
		kind, object, template, seen = "replicationcontroller", o, o.Spec.Template, false
	}
	if object == nil || template == nil || metav1.GetControllerOf(object) != nil || c.isManager(object) {
		return nil // its maker is looked at
	}
	name, asks := kind+"/"+object.GetName(), object.GetAnnotations()[inject.AnnotationEnabled] == "true"
	_, given := template.Annotations[inject.AnnotationEnabled]
	switch {
	case asks && !given && !seen:
		c.unseen(name)
	case asks && !given && kind == "job":
		c.say(Fault, "workloads", "create it anew, as it is", "%s asks for elector since after it was made, and the template of a Job cannot change: its pods have no sidecar", name)
	case asks && !given:
		c.say(Fault, "workloads", fmt.Sprintf("write it again when the manager is there: kubectl -n %s annotate --overwrite %s %[3]s-; kubectl -n %[1]s annotate %[2]s %[3]s=true", c.Namespace, name, inject.AnnotationEnabled),
			"%s asks for elector and its pod template does not: the annotation was written while no replica of the manager answered", name)
	}
	level := Warning
	if !asks && !given {
		level = Fault
	}
	for _, sentence := range inject.Overlooked(obj) {
		c.say(level, "workloads", "as it says; docs/reference.md lists the annotations", "%s looks as if it told elector something: %s", name, strings.TrimPrefix(sentence, "elector.io: "))
	}
	return nil
}

// isManager reports whether it is elector's own, which its webhooks never see.
func (c *Checkup) isManager(object metav1.Object) bool {
	return c.manager != nil && c.manager.Namespace == object.GetNamespace() && c.manager.Name == object.GetName()
}

// unseen tells of a kind that is not among the webhook's.
func (c *Checkup) unseen(name string) {
	c.say(Fault, "workloads", "write it into its pod template", "%s has the annotation %s on itself, where nobody sees it: the webhook is not asked about this kind", name, inject.AnnotationEnabled)
}

// elsewhere are kinds that make pods of a template and that people annotate.
var elsewhere = []schema.GroupVersionResource{
	{Group: "argoproj.io", Version: "v1alpha1", Resource: "rollouts"},
	{Group: "apps.openshift.io", Version: "v1", Resource: "deploymentconfigs"},
	{Group: "serving.knative.dev", Version: "v1", Resource: "services"},
}

// foreign looks at kinds that the cluster may not have. Who may not read them may
// not have the kind, either, so that is not told.
func (c *Checkup) foreign(ctx context.Context) {
	for _, kind := range elsewhere {
		p := &pager.ListPager{PageSize: 50, PageFn: page(c.API.Metadata.Resource(kind).Namespace(c.Namespace).List)}
		_ = p.EachListItem(ctx, metav1.ListOptions{}, func(obj runtime.Object) error {
			if o, ok := obj.(*metav1.PartialObjectMetadata); ok && o.Annotations[inject.AnnotationEnabled] == "true" {
				c.unseen(kind.GroupResource().String() + "/" + o.Name)
			}
			return nil
		})
	}
}

// namespaces looks whether somebody annotated the Namespace.
func (c *Checkup) namespaces(ctx context.Context) {
	namespace, err := c.API.Client.CoreV1().Namespaces().Get(ctx, c.Namespace, metav1.GetOptions{})
	if err != nil {
		return // few people may read it, and fewer may write it
	}
	isOurs := func(key string) bool {
		return slices.ContainsFunc(inject.Annotations(), func(a inject.Annotation) bool { return a.Key == key })
	}
	for _, keys := range []map[string]string{namespace.Annotations, namespace.Labels} {
		for key := range keys {
			if isOurs(key) {
				c.say(Warning, "workloads", "write it on the workloads, or their pod templates", "the Namespace %s has %s, which does nothing there: a Namespace elects nobody", c.Namespace, key)
			}
		}
	}
}
