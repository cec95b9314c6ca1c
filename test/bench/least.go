package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// leastWriters write at the same time, each its own Lease.
	leastWriters = 20
	// writesPerHandover are a release, and what takes the lock.
	writesPerHandover = 2
)

// least is what writes of Leases cost that nobody watches, by a client that does nothing else: a handover cannot do without.
type least struct {
	writes int
	cpu    cpu
}

// each is a time divided by the writes.
func (w *least) each(t time.Duration) time.Duration { return t / time.Duration(max(1, w.writes)) }

// control is the CPU time that the API server and etcd need for the writes of one handover.
func (w *least) control() time.Duration {
	return writesPerHandover * w.each(w.cpu.server+w.cpu.etcd)
}

// least measures the writes, without any candidate.
func (l *massLab) least(ctx context.Context) (w least, err error) {
	leases := l.client.CoordinationV1().Leases(namespace)
	made := make([]*coordinationv1.Lease, leastWriters)
	for i := range made {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("least-%d", i)}}
		if made[i], err = leases.Create(ctx, lease, metav1.CreateOptions{}); err != nil {
			return w, err
		}
	}
	before, err := l.readCPU()
	if err != nil {
		return w, err
	}
	var writers errgroup.Group
	for _, lease := range made {
		writers.Go(func() (err error) {
			for range l.plan.leastWrites {
				lease.Spec.RenewTime = new(metav1.NowMicro())
				if lease, err = leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := writers.Wait(); err != nil {
		return w, fmt.Errorf("writing Leases that nobody watches: %w", err)
	}
	after, err := l.readCPU()
	w.writes = leastWriters * l.plan.leastWrites
	w.cpu.add(before, after)
	return w, err
}
