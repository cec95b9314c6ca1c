package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// rest is what the manager does while nothing happens in many elections.
type rest struct {
	pods   int
	window time.Duration
	requests
	// cpu is what all replicas have used, and idle what they would have without the pods in the same time.
	cpu, idle time.Duration
	resident  int64 // of the larger replica, at the end
}

// perThousand scales what the pods have cost to a thousand of them, in shares of one core.
func (r rest) perThousand() float64 {
	return (r.cpu - r.idle).Seconds() / r.window.Seconds() / float64(r.pods) * 1000
}

// writesPerThousand is how many writes a thousand pods would make in an hour.
func (r rest) writesPerThousand() float64 {
	return float64(r.writes) / r.window.Hours() / float64(r.pods) * 1000
}

const (
	// deploys is how many workloads start at a time.
	deploys = 8
	// electorate is how many pods each has.
	electorate = 2
	// calm is how long the manager must not have written before it counts as at rest.
	calm = 10 * time.Second
)

// measureRest watches the manager alone, and then with many workloads that have their leaders.
func (l *lab) measureRest(ctx context.Context) (r rest, err error) {
	pids, err := l.replicas(ctx)
	if err != nil {
		return r, err
	}
	if err := l.untilCalm(ctx); err != nil {
		return r, err
	}
	idle, err := l.watchManager(ctx, pids, l.plan.idle)
	if err != nil {
		return r, err
	}
	all := names("rest", l.plan.electorates)
	starting, within := errgroup.WithContext(ctx)
	starting.SetLimit(deploys)
	for _, name := range all {
		starting.Go(func() error {
			t, err := l.elected(name)
			if err != nil {
				return err
			}
			if err := l.deploy(within, name, electorate, t); err != nil {
				return err
			}
			_, _, _, err = l.leader(within, name, electorate)
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		return r, fmt.Errorf("starting what rests: %w", err)
	}
	if err := l.untilCalm(ctx); err != nil {
		return r, err
	}
	if r, err = l.watchManager(ctx, pids, l.plan.rest); err != nil {
		return r, err
	}
	r.pods = len(all) * electorate
	r.idle = time.Duration(float64(idle.cpu) * float64(r.window) / float64(idle.window))
	return r, l.remove(ctx, all...)
}

// replicas finds the manager's processes.
func (l *lab) replicas(ctx context.Context) (pids []int, err error) {
	pods, err := l.client.CoreV1().Pods(managerNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=elector"})
	if err != nil {
		return nil, fmt.Errorf("listing the manager's pods: %w", err)
	}
	for i := range pods.Items {
		if len(pods.Items[i].Status.ContainerStatuses) != 1 {
			return nil, fmt.Errorf("pod %s of the manager does not run", pods.Items[i].Name)
		}
		pid, err := measure.PID(pods.Items[i].Status.ContainerStatuses[0].ContainerID)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// watchManager tells what the manager does in a window.
func (l *lab) watchManager(ctx context.Context, pids []int, window time.Duration) (r rest, err error) {
	audit := l.audit()
	if _, err := audit.more(); err != nil { // what was before
		return r, err
	}
	before, err := cpuTime(pids)
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := measure.Sleep(ctx, window); err != nil {
		return r, err
	}
	after, err := cpuTime(pids)
	if err != nil {
		return r, err
	}
	r.window, r.cpu = time.Since(began), after-before
	for _, pid := range pids {
		memory, err := measure.ReadMemory(pid)
		if err != nil {
			return r, err
		}
		r.resident = max(r.resident, memory.Resident)
	}
	r.requests, err = audit.more()
	return r, err
}

func cpuTime(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		cpu, err := measure.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		sum += cpu
	}
	return sum, nil
}

// untilCalm waits until the manager has not written for a while.
func (l *lab) untilCalm(ctx context.Context) error {
	audit := l.audit()
	for began := time.Now(); time.Since(began) < patience; {
		if _, err := audit.more(); err != nil {
			return err
		}
		if err := measure.Sleep(ctx, calm); err != nil {
			return err
		}
		if r, err := audit.more(); err != nil || r.writes == 0 {
			return err
		}
	}
	return errors.New("the manager does not come to rest")
}
