package checkup

import (
	"context"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// clocks compares those of the leaders with the API server's: a Lease says when its
// holder renewed it, and when the API server wrote that down.
func (c *Checkup) clocks(ctx context.Context) {
	namespaces := []string{c.Namespace}
	if c.manager != nil && c.manager.Namespace != c.Namespace {
		namespaces = append(namespaces, c.manager.Namespace)
	}
	for _, namespace := range namespaces {
		for options := (metav1.ListOptions{LabelSelector: kube.ManagedByLabel + "=" + kube.ManagedBy, Limit: 50}); ; {
			list, err := c.API.Client.CoordinationV1().Leases(namespace).List(ctx, options)
			if err != nil {
				break // it has been said, or is the manager's and read on its own
			}
			for i := range list.Items {
				c.clock(&list.Items[i])
			}
			if options.Continue = list.Continue; options.Continue == "" {
				break
			}
		}
	}
}

func (c *Checkup) clock(lease *coordinationv1.Lease) {
	ahead, ok := clockAhead(lease)
	if !ok || ahead.Abs() <= clockSlack {
		return
	}
	c.say(Warning, "clock", "set the clock of its node. No election goes by it, and no certificate", "the clock of %s, which leads %s/%s, and the API server's differ by %s, so times on the lock and in logs are wrong",
		elector.NameOf(kube.HolderOf(lease)), lease.Namespace, lease.Name, ahead.Abs().Round(time.Second))
}

// clockAhead is how far the holder's clock was before the API server's at the last
// renewal.
func clockAhead(lease *coordinationv1.Lease) (ahead time.Duration, known bool) {
	if lease.Spec.RenewTime == nil || kube.HolderOf(lease) == "" {
		return 0, false
	}
	for _, entry := range lease.ManagedFields {
		if entry.Time != nil && entry.FieldsV1 != nil && strings.Contains(entry.FieldsV1.GetRawString(), `"f:renewTime"`) {
			return lease.Spec.RenewTime.Sub(entry.Time.Time), true
		}
	}
	return 0, false
}
