package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/bench/internal/measure"
)

// replica is a process of the manager.
type replica struct {
	pod          string
	pid          int
	ready, leads bool
}

// usage is what a process of the manager used while something went on.
type usage struct {
	leads         bool
	before, after measure.Memory
	cpu           time.Duration // user and system time
}

// findReplicas finds the manager's processes and which of them writes.
func (l *lab) findReplicas(ctx context.Context) ([]replica, error) {
	found, err := l.listReplicas(ctx)
	if err == nil && !slices.ContainsFunc(found, func(r replica) bool { return r.leads }) {
		err = errors.New("no replica of the manager leads")
	}
	return found, err
}

// listReplicas lists those that run and are to stay.
func (l *lab) listReplicas(ctx context.Context) (found []replica, err error) {
	service, err := l.client.CoreV1().Services(l.endpoint.namespace).Get(ctx, l.endpoint.service, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the manager's service: %w", err)
	}
	pods, err := l.client.CoreV1().Pods(l.endpoint.namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(service.Spec.Selector).String()})
	if err != nil {
		return nil, fmt.Errorf("listing the manager's pods: %w", err)
	}
	lease, err := l.client.CoordinationV1().Leases(l.endpoint.namespace).Get(ctx, l.endpoint.service, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the manager's lock: %w", err)
	}
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil || len(pod.Status.ContainerStatuses) != 1 || pod.Status.ContainerStatuses[0].State.Running == nil {
			continue
		}
		status := pod.Status.ContainerStatuses[0]
		pid, err := measure.PID(status.ContainerID)
		if err != nil {
			return nil, err
		}
		leads := ptr.Deref(lease.Spec.HolderIdentity, "") == elector.Identity(pod.Name, string(pod.UID))
		found = append(found, replica{pod: pod.Name, pid: pid, ready: status.Ready, leads: leads})
	}
	return found, nil
}

// used is what the replica's process has used since its start.
func (r replica) used() (u usage, err error) {
	u.leads = r.leads
	if u.cpu, err = measure.CPUTime(r.pid); err != nil {
		return u, err
	}
	u.after, err = measure.ReadMemory(r.pid)
	return u, err
}

// usedReplicas is what all have used.
func (l *lab) usedReplicas() (all []usage, err error) {
	for _, r := range l.replicas {
		u, err := r.used()
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// watchReplicas begins to measure what the manager's processes use. The function it returns says what they have used since.
func (l *lab) watchReplicas() (end func() ([]usage, error), err error) {
	began, err := l.usedReplicas()
	return func() ([]usage, error) {
		used, err := l.usedReplicas()
		if err != nil {
			return nil, err
		}
		for i := range used {
			used[i].before = began[i].after
			used[i].cpu -= began[i].cpu
		}
		return used, nil
	}, err
}
