package kube

import (
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
		record: leaseRecord,
		apply:  applyToLease,
	}
}

func leaseRecord(obj metav1.Object) elector.Record {
	lease := obj.(*coordinationv1.Lease)
	return elector.Record{
		Holder:        ptr.Deref(lease.Spec.HolderIdentity, ""),
		LeaseDuration: time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second,
		Transitions:   ptr.Deref(lease.Spec.LeaseTransitions, 0),
		AcquireTime:   ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}).Time,
		RenewTime:     ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}).Time,
	}
}

func applyToLease(obj object, want elector.Record) {
	lease := obj.(*coordinationv1.Lease)
	lease.Spec.HolderIdentity = &want.Holder
	lease.Spec.LeaseTransitions = &want.Transitions
	if want.Holder == "" {
		return // a release changes nothing else
	}
	lease.Spec.LeaseDurationSeconds = new(int32(want.LeaseDuration / time.Second)) //nolint:gosec // at most a day
	lease.Spec.AcquireTime = &metav1.MicroTime{Time: want.AcquireTime}
	lease.Spec.RenewTime = &metav1.MicroTime{Time: want.RenewTime}
}
