package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/bench/internal/measure"
)

// rest is what the manager does while nothing happens in many elections.
type rest struct {
	pods   int
	window time.Duration
	requests
	// renewals is how often a lock was renewed, of which the manager is told.
	renewals int
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
	// makers is how many electorates are made at a time, and how many Leases are renewed.
	makers = 8
	// electorate is how many pods each has.
	electorate = 2
	// calm is how long the manager must not have written before it counts as at rest.
	calm = 10 * time.Second
)

// measureRest watches the manager alone, and then with many pods whose locks have their leaders.
func (l *lab) measureRest(ctx context.Context) (r rest, err error) {
	pids, err := l.replicas(ctx)
	if err != nil {
		return r, err
	}
	if err := l.untilCalm(ctx); err != nil {
		return r, err
	}
	idle, err := l.watchManager(ctx, pids, l.plan.rest)
	if err != nil {
		return r, err
	}
	all := names("rest", l.plan.electorates)
	stop, err := l.rest(ctx, all)
	if err == nil {
		if err = l.untilCalm(ctx); err == nil {
			r, err = l.watchManager(ctx, pids, l.plan.rest)
		}
	}
	if err := errors.Join(err, stop()); err != nil {
		return r, err
	}
	r.pods = len(all) * electorate
	r.idle = time.Duration(float64(idle.cpu) * float64(r.window) / float64(idle.window))
	return r, l.untilCalm(ctx)
}

// rest has locks with leaders until stop is called. Their pods do not run, so that there may be many: they are said to be Ready, and their
// Leases are written here, and renewed as often as their sidecars would.
func (l *lab) rest(ctx context.Context, locks []string) (stop func() error, err error) {
	within, cancel := context.WithCancel(ctx)
	renewing, within := errgroup.WithContext(within)
	stop = func() error {
		cancel()
		return errors.Join(renewing.Wait(), l.removePods(context.WithoutCancel(ctx), locks...))
	}
	making, each := errgroup.WithContext(within)
	for share := range slices.Chunk(locks, (len(locks)+makers-1)/makers) {
		making.Go(func() error {
			for _, name := range share {
				if err := l.makeElectorate(each, name); err != nil {
					return err
				}
			}
			renewing.Go(func() error { return l.renew(within, share) })
			return nil
		})
	}
	if err := making.Wait(); err != nil {
		return stop, fmt.Errorf("making pods that rest: %w", err)
	}
	return stop, eventually(within, "labels of all who lead", func(ctx context.Context) (bool, error) {
		leaders, err := l.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: inject.LabelRole + "=" + string(elector.RoleLeader)})
		return err == nil && len(leaders.Items) == len(locks), err
	})
}

// makeElectorate makes a lock's pods, and its Lease as the sidecar of one of them would.
func (l *lab) makeElectorate(ctx context.Context, lock string) error {
	var leader string
	for range electorate {
		pod, err := l.makePod(ctx, lock)
		if err != nil {
			return err
		}
		leader = elector.Identity(pod.Name, string(pod.UID))
	}
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: lock, Labels: map[string]string{kube.ManagedByLabel: kube.ManagedBy},
			Annotations: map[string]string{kube.ClaimAnnotation: fmt.Sprintf(`{"holder":%q,"term":1,"write":"bench.1","token":461}`, leader)},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &leader, LeaseTransitions: new(int32(1)), LeaseDurationSeconds: new(int32(elector.DefaultLeaseDuration.Seconds())),
			AcquireTime: new(metav1.NowMicro()), RenewTime: new(metav1.NowMicro()),
		},
	}
	if _, err := l.client.CoordinationV1().Leases(namespace).Create(ctx, lease, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating a lease: %w", err)
	}
	return nil
}

// renew renews Leases until ctx ends, one after the other, each as often as electors do.
func (l *lab) renew(ctx context.Context, locks []string) error {
	turn := time.NewTicker(elector.DefaultRenewDeadline / 3 / time.Duration(len(locks)))
	defer turn.Stop()
	for {
		for _, name := range locks {
			select {
			case <-turn.C:
			case <-ctx.Done():
				return nil
			}
			patch, err := json.Marshal(map[string]any{"spec": map[string]any{"renewTime": metav1.NowMicro()}})
			if err != nil {
				return fmt.Errorf("renewing a lease: %w", err)
			}
			_, err = l.client.CoordinationV1().Leases(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("renewing a lease: %w", err)
			}
			l.renewals.Add(1)
		}
	}
}

// makePod makes a pod that is never scheduled, and says that it works.
func (l *lab) makePod(ctx context.Context, lock string) (*corev1.Pod, error) {
	t, err := l.elected(lock)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	pod.GenerateName = lock + "-"
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/never"}}
	pods := l.client.CoreV1().Pods(namespace)
	if pod, err = pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("creating a pod: %w", err)
	}
	pod.Status = corev1.PodStatus{
		Phase:                 corev1.PodRunning,
		Conditions:            []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}},
		InitContainerStatuses: running(pod.Spec.InitContainers), ContainerStatuses: running(pod.Spec.Containers),
	}
	if _, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		return nil, fmt.Errorf("saying that a pod works: %w", err)
	}
	return pod, nil
}

// running is the status of containers that run.
func running(containers []corev1.Container) (status []corev1.ContainerStatus) {
	for i := range containers {
		status = append(status, corev1.ContainerStatus{
			Name: containers[i].Name, Image: containers[i].Image, Ready: true, Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		})
	}
	return status
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
	began, renewals := time.Now(), l.renewals.Load()
	if err := measure.Sleep(ctx, window); err != nil {
		return r, err
	}
	after, err := cpuTime(pids)
	if err != nil {
		return r, err
	}
	r.window, r.cpu, r.renewals = time.Since(began), after-before, int(l.renewals.Load()-renewals)
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
