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
// holder renewed it. When the API server wrote that down it says of programs that do
// not keep it from doing so, as electors do; else it is taken for just now. What looks
// old by that may be of a holder that is gone: it is looked at again when one that
// lives has renewed.
func (c *Checkup) clocks(ctx context.Context) {
	var old []*coordinationv1.Lease
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
				if lease := &list.Items[i]; !c.clock(lease, c.API.Now()) {
					old = append(old, lease)
				}
			}
			if options.Continue = list.Continue; options.Continue == "" {
				break
			}
		}
	}
	if len(old) == 0 || !wait(ctx, elector.DefaultLeaseDuration) {
		return
	}
	for _, before := range old[:min(len(old), maxOld)] {
		lease, err := c.API.Client.CoordinationV1().Leases(before.Namespace).Get(ctx, before.Name, metav1.GetOptions{})
		if err == nil && lease.Spec.RenewTime != nil && !lease.Spec.RenewTime.Equal(before.Spec.RenewTime) {
			c.compare(lease, lease.Spec.RenewTime.Sub(c.API.Now()))
		}
	}
}

// maxOld is how many are looked at again, one after the other.
const maxOld = 50

// wait lets time pass, and tells whether it has before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// clock compares the holder's clock with the API server's, which is at now. It is not
// done if it takes a second look.
func (c *Checkup) clock(lease *coordinationv1.Lease, now time.Time) (done bool) {
	ahead, known := clockAhead(lease)
	switch {
	case lease.Spec.RenewTime == nil || kube.HolderOf(lease) == "":
		return true
	case !known:
		ahead = lease.Spec.RenewTime.Sub(now)
		if ahead < -clockSlack {
			return false
		}
	}
	c.compare(lease, ahead)
	return true
}

func (c *Checkup) compare(lease *coordinationv1.Lease, ahead time.Duration) {
	if ahead.Abs() <= clockSlack {
		return
	}
	c.say(Warning, "clock", "set the clock of its node. No election goes by it, and no certificate", "the clock of %s, which leads %s/%s, and the API server's differ by %s, so times on the lock and in logs are wrong",
		elector.NameOf(kube.HolderOf(lease)), lease.Namespace, lease.Name, ahead.Abs().Round(time.Second))
}

// clockAhead is how far the holder's clock was before the API server's at the last
// renewal, if the Lease says when the API server wrote that down.
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
