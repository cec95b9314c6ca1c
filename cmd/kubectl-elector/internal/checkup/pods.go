package checkup

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/internal/rights"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
	"github.com/elector-io/elector/inject"
)

// pod is what is kept of one: little, whatever it says.
type pod struct {
	name, account string
	uid           types.UID
	// bare tells that it asks for the sidecar and has none, and left that the
	// webhook does not select it.
	bare, left bool
	// copied tells that it has the sidecar and is no candidate.
	copied bool
	// lock is what a candidate contends for, maker the kind that made it if nobody
	// chose the lock's name.
	lock  survey.Key
	maker string
	// version is its manager's.
	version string
	// trouble is why its sidecar does not run, restarts that it was restarted.
	trouble, restarts string
	// lingers is for how long it should have been gone.
	lingers time.Duration
}

// maxWord bounds what is kept of one word of a pod.
const maxWord = 200

// podsOf reads the pods of the namespace.
func (c *Checkup) podsOf(ctx context.Context) error {
	for options := (metav1.ListOptions{Limit: 50}); ; {
		page, err := c.API.Client.CoreV1().Pods(c.Namespace).List(ctx, options)
		if err != nil {
			return err
		}
		for i := range page.Items {
			c.pods = append(c.pods, c.podOf(&page.Items[i]))
		}
		if options.Continue = page.Continue; options.Continue == "" {
			c.podsRead = true
			return nil
		}
	}
}

func (c *Checkup) podOf(p *corev1.Pod) pod {
	kept := pod{name: p.Name, uid: p.UID, account: cmp.Or(p.Spec.ServiceAccountName, "default")}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return kept
	}
	status, contends := inject.CandidateOf(p)
	switch {
	case !slices.ContainsFunc(p.Spec.InitContainers, isSidecar):
		kept.bare = p.Annotations[inject.AnnotationEnabled] == "true"
		kept.left = !c.selects(p.Labels)
		return kept
	case !contends:
		kept.copied = true
		return kept
	}
	kept.version = shorten(status.Version)
	kept.lock = survey.Key{Namespace: p.Namespace, Name: status.Lock, Mode: status.Mode}
	if status.LockBy == inject.LockByDefault {
		kept.maker = "Pod"
		if owner := metav1.GetControllerOfNoCopy(p); owner != nil {
			kept.maker = owner.Kind
		}
	}
	kept.trouble, kept.restarts = trouble(p, c.API.Now())
	if p.DeletionTimestamp != nil {
		kept.lingers = c.API.Now().Sub(p.DeletionTimestamp.Time)
	}
	return kept
}

func isSidecar(c corev1.Container) bool { return c.Name == inject.ContainerName }

// selects reports whether the webhook's objectSelector selects a pod.
func (c *Checkup) selects(of map[string]string) bool {
	selector := c.objectSelector()
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err != nil || s.Matches(labels.Set(of))
}

// startSlack is how long a sidecar may take until it answers, and a pod to go when
// its time is up.
const startSlack = 10 * time.Second

// trouble says why a pod's sidecar does not run, and how it ended within the hour.
func trouble(p *corev1.Pod, now time.Time) (why, restarts string) {
	i := slices.IndexFunc(p.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == inject.ContainerName })
	if i < 0 {
		return "", ""
	}
	s := &p.Status.InitContainerStatuses[i]
	if ended := s.LastTerminationState.Terminated; ended != nil && now.Sub(ended.FinishedAt.Time) < time.Hour {
		restarts = fmt.Sprintf("%d times, the last time after %s (exit code %d)", s.RestartCount, shorten(cmp.Or(ended.Reason, "Error")), ended.ExitCode)
	}
	switch {
	case s.State.Waiting != nil && s.State.Waiting.Reason != "PodInitializing" && s.State.Waiting.Reason != "ContainerCreating":
		why = "is in " + shorten(s.State.Waiting.Reason)
	case s.State.Running != nil && s.Started != nil && !*s.Started && now.Sub(s.State.Running.StartedAt.Time) > startSlack:
		why = "has not answered for " + now.Sub(s.State.Running.StartedAt.Time).Round(time.Second).String()
	}
	return why, restarts
}

func shorten(word string) string { return word[:min(len(word), maxWord)] }

// examples is a number of pods, and one of them.
func examples(of []pod) string { return fmt.Sprintf("%d pods, such as %s,", len(of), of[0].name) }

// those are the pods that are so.
func (c *Checkup) those(are func(pod) bool) []pod {
	return slices.DeleteFunc(slices.Clone(c.pods), func(p pod) bool { return !are(p) })
}

// candidates looks at the pods of the namespace.
func (c *Checkup) candidates(ctx context.Context) {
	if err := c.podsOf(ctx); err != nil {
		return // it has been said
	}
	if bare := c.those(func(p pod) bool { return p.bare && p.left }); len(bare) > 0 {
		c.say(Fault, "pods", "give them the labels that it asks for, in the pod template of their workload, or change webhook.objectSelector of the chart",
			"%s ask for elector and have no sidecar: webhook.objectSelector (%s) does not select them", examples(bare), metav1.FormatLabelSelector(c.objectSelector()))
	}
	if bare := c.those(func(p pod) bool { return p.bare && !p.left }); len(bare) > 0 {
		c.say(Fault, "pods", "delete them, or restart their workload: kubectl rollout restart", "%s ask for elector and have no sidecar: they were made while no replica of the manager answered, or before it was installed", examples(bare))
	}
	if copies := c.those(func(p pod) bool { return p.copied }); len(copies) > 0 {
		c.say(Warning, "pods", "nothing, if they are copies, as of kubectl debug --copy-to; else delete them", "%s have the sidecar and do not contend, because they lack the label or the annotation that it came with", examples(copies))
	}
	if sick := c.those(func(p pod) bool { return p.trouble != "" }); len(sick) > 0 {
		c.say(Fault, "sidecars", c.logs(sick[0]), "the sidecars of %s do not run: that one %s", examples(sick), sick[0].trouble)
	}
	if restarted := c.those(func(p pod) bool { return p.trouble == "" && p.restarts != "" }); len(restarted) > 0 {
		c.say(Warning, "sidecars", c.logs(restarted[0])+"; if it is OOMKilled: elector.io/memory-limit", "the sidecars of %s were restarted within the last hour, that one %s", examples(restarted), restarted[0].restarts)
	}
	if lingering := c.those(func(p pod) bool { return p.lock.Name != "" && p.lingers > startSlack }); len(lingering) > 0 {
		c.say(Warning, "pods", "if their node is off for sure: kubectl taint node NODE node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
			"%s should have ended, and have not: their node is away, or something holds them. A lock of leader-for-life stays theirs", examples(lingering))
	}
	c.shared()
	c.grants(ctx)
}

// logs are two commands that tell more about a sidecar.
func (c *Checkup) logs(p pod) string {
	return fmt.Sprintf("kubectl -n %s describe pod %s; kubectl -n %[1]s logs %[2]s -c elector --previous", c.Namespace, p.name)
}

// shared tells of workloads that meet on a lock that none of them chose.
func (c *Checkup) shared() {
	makers := map[survey.Key]map[string]bool{}
	for i := range c.pods {
		if p := &c.pods[i]; p.maker != "" {
			if makers[p.lock] == nil {
				makers[p.lock] = map[string]bool{}
			}
			makers[p.lock][p.maker] = true
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(makers), func(a, b survey.Key) int { return cmp.Compare(a.Name, b.Name) }) {
		if len(makers[key]) > 1 {
			c.say(Fault, "locks", "name the lock of each with the annotation elector.io/lock, the same if this is meant", "%s: workloads of different kinds (%s) share this lock, and so have one leader together",
				key.Name, some(slices.Sorted(maps.Keys(makers[key]))))
		}
	}
}

// grants looks whether candidates may write their lock.
func (c *Checkup) grants(ctx context.Context) {
	type grant struct {
		role, account string
	}
	wanted := map[grant]string{} // the lock's name
	for i := range c.pods {
		if p := &c.pods[i]; p.lock.Name != "" {
			wanted[grant{rights.Name(p.lock.Mode, p.lock.Name), p.account}] = p.lock.Name
		}
	}
	if len(wanted) == 0 {
		c.ungranted = map[string]bool{}
		return
	}
	bindings, err := c.API.Client.RbacV1().RoleBindings(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		c.unread(ctx, "grants", err, access.Right{Verb: "list", Group: rbacv1.GroupName, Resource: "rolebindings", Namespace: c.Namespace})
		return
	}
	for i := range bindings.Items {
		for _, s := range bindings.Items[i].Subjects {
			if s.Kind == rbacv1.ServiceAccountKind && cmp.Or(s.Namespace, c.Namespace) == c.Namespace {
				delete(wanted, grant{bindings.Items[i].RoleRef.Name, s.Name})
			}
		}
	}
	c.ungranted = map[string]bool{}
	for _, g := range slices.SortedFunc(maps.Keys(wanted), func(a, b grant) int { return cmp.Or(cmp.Compare(a.role, b.role), cmp.Compare(a.account, b.account)) }) {
		c.ungranted[wanted[g]] = true
		c.say(Warning, "grants", "the manager grants it, so look whether it is there and what it says of the pods: kubectl -n "+c.Namespace+" get events; without the webhook: kubectl elector inject --rbac",
			"no RoleBinding of elector's lets the ServiceAccount %s write the lock %s of its pods", g.account, wanted[g])
	}
}
