package kube

import (
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/elector"
)

// leaseKind writes the record that client-go's LeaseLock writes, so that its
// candidates and ours can contend for one Lease.
func leaseKind() kind {
	return kind{
		groupVersion: coordinationv1.SchemeGroupVersion,
		resource:     "leases",
		newObject:    func() object { return &coordinationv1.Lease{} },
		newList:      func() list { return &coordinationv1.LeaseList{} },
		first: func(l list) object {
			if items := l.(*coordinationv1.LeaseList).Items; len(items) > 0 {
				return &items[0]
			}
			return nil
		},
		record:   leaseRecord,
		apply:    applyToLease,
		writable: true,
	}
}

func leaseRecord(obj object) elector.Record {
	lease := obj.(*coordinationv1.Lease)
	r := elector.Record{
		Holder:        ptr.Deref(lease.Spec.HolderIdentity, ""),
		LeaseDuration: time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second,
		Transitions:   ptr.Deref(lease.Spec.LeaseTransitions, 0),
		AcquireTime:   ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}).Time,
		RenewTime:     ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}).Time,
	}
	var n int32
	var state string
	// An annotation that can't be read is as good as none.
	_, _ = fmt.Sscanf(lease.Annotations[ClaimAnnotation], "%d %s %d", &n, &state, &r.Token)
	if n != r.Transitions || state == "" {
		r.Token = 0
		return r
	}
	r.Elected = true
	r.Released = state == claimReleased
	return r
}

func applyToLease(obj object, want elector.Record) {
	lease := obj.(*coordinationv1.Lease)
	lease.Spec.HolderIdentity = &want.Holder
	lease.Spec.LeaseDurationSeconds = new(int32(want.LeaseDuration / time.Second)) //nolint:gosec // at most a day
	lease.Spec.LeaseTransitions = &want.Transitions
	lease.Spec.AcquireTime = &metav1.MicroTime{Time: want.AcquireTime}
	lease.Spec.RenewTime = &metav1.MicroTime{Time: want.RenewTime}
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[ClaimAnnotation] = claimNote(want)
}

// The states in ClaimAnnotation.
const (
	claimAcquired = "acquired"
	claimToken    = "token"
	claimReleased = "released"
)

func claimNote(want elector.Record) string {
	switch {
	case want.Holder == "":
		return fmt.Sprintf("%d %s", want.Transitions, claimReleased)
	case want.Token == 0:
		return fmt.Sprintf("%d %s", want.Transitions, claimAcquired)
	}
	return fmt.Sprintf("%d %s %d", want.Transitions, claimToken, want.Token)
}
