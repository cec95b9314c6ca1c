package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/bench/internal/measure"
)

// replica is a process of the manager.
type replica struct {
	pid   int
	leads bool
}

// usage is what a process of the manager used while something went on.
type usage struct {
	leads         bool
	before, after measure.Memory
	cpu           time.Duration // user and system time
}

// findReplicas finds the manager's processes and which of them writes.
func (l *lab) findReplicas(ctx context.Context) ([]replica, error) {
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
	var found []replica
	leads := false
	for _, pod := range pods.Items {
		if len(pod.Status.ContainerStatuses) != 1 {
			return nil, fmt.Errorf("pod %s of the manager does not run", pod.Name)
		}
		pid, err := measure.PID(pod.Status.ContainerStatuses[0].ContainerID)
		if err != nil {
			return nil, err
		}
		one := replica{pid: pid, leads: ptr.Deref(lease.Spec.HolderIdentity, "") == elector.Identity(pod.Name, string(pod.UID))}
		leads = leads || one.leads
		found = append(found, one)
	}
	if !leads {
		return nil, errors.New("no replica of the manager leads")
	}
	return found, nil
}

// watchReplicas begins to measure what the manager's processes use. The function it returns says what they have used since.
func (l *lab) watchReplicas() (end func() ([]usage, error), err error) {
	began := make([]usage, len(l.replicas))
	for i, r := range l.replicas {
		began[i].leads = r.leads
		if began[i].before, err = measure.ReadMemory(r.pid); err != nil {
			return nil, err
		}
		if began[i].cpu, err = measure.CPUTime(r.pid); err != nil {
			return nil, err
		}
	}
	return func() ([]usage, error) {
		used := make([]usage, len(l.replicas))
		for i, r := range l.replicas {
			cpu, err := measure.CPUTime(r.pid)
			if err != nil {
				return nil, err
			}
			used[i] = began[i]
			used[i].cpu = cpu - began[i].cpu
			if used[i].after, err = measure.ReadMemory(r.pid); err != nil {
				return nil, err
			}
		}
		return used, nil
	}, nil
}
