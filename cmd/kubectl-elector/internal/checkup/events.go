package checkup

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
)

// maxSaid is how many different messages of a reason are worth reading.
const maxSaid = 5

// refused tells what the manager said about pods and locks, and still holds.
func (c *Checkup) refused(ctx context.Context) {
	lockOf := map[types.UID]string{}
	for i := range c.pods {
		lockOf[c.pods[i].uid] = c.pods[i].lock.Name
	}
	c.told(ctx, "events", c.Namespace, "LockNotGranted", Fault, func(e *corev1.Event) bool { return c.lacksGrant(lockOf[e.InvolvedObject.UID]) })
	c.told(ctx, "events", c.Namespace, "LockRevoked", Fault, func(e *corev1.Event) bool { return c.lacksGrant(e.InvolvedObject.Name) })
}

// lacksGrant reports whether a lock is not granted to all its candidates, or may not
// be, as far as is known.
func (c *Checkup) lacksGrant(lock string) bool {
	return lock != "" && (c.ungranted == nil || c.ungranted[lock])
}

// authority looks at the manager's CA in mode self, and tells what the manager said
// about it.
func (c *Checkup) authority(ctx context.Context) {
	if c.manager == nil || flag(c.manager, "certificate-mode") != "self" {
		return
	}
	secret := access.Right{Verb: "get", Resource: "secrets", Namespace: c.manager.Namespace, Name: flag(c.manager, "certificate-secret")}
	switch _, err := c.API.Metadata.Resource(corev1.SchemeGroupVersion.WithResource(secret.Resource)).Namespace(secret.Namespace).Get(ctx, secret.Name, metav1.GetOptions{}); {
	case apierrors.IsNotFound(err):
		c.say(Fault, "CA", "kubectl -n "+secret.Namespace+" create secret generic "+secret.Name, "the Secret %s/%s, which the replicas share their CA through, is gone: a replica that starts is not ready until it is there", secret.Namespace, secret.Name)
	case err != nil:
		c.unread(ctx, "CA", err, secret)
	}
	all := func(*corev1.Event) bool { return true }
	c.told(ctx, "CA", c.manager.Namespace, "CertificateNotKept", Fault, all)
	c.told(ctx, "CA", c.manager.Namespace, "CASecretMended", Warning, all)
}

// told repeats what the manager said for a reason.
func (c *Checkup) told(ctx context.Context, about, namespace, reason string, level Level, holds func(*corev1.Event) bool) {
	list, err := c.API.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reason, Limit: 500})
	if err != nil {
		c.unread(ctx, about, err, access.Right{Verb: "list", Resource: "events", Namespace: namespace})
		return
	}
	said := map[string]bool{}
	for i := range list.Items {
		if e := &list.Items[i]; e.Source.Component == "" && !said[e.Message] && len(said) < maxSaid && holds(e) {
			said[e.Message] = true
			c.say(level, about, "what it says; docs/messages.md explains "+reason+". Events stay for an hour", "%s: %s", reason, e.Message)
		}
	}
}
