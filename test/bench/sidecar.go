package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// program is the package of the sidecar.
func (i implementation) program() string { return [...]string{"./cmd/elector", measure.Peer}[i] }

// footprint is what an implementation's sidecar costs.
type footprint struct {
	binary          int64 // bytes
	leader, standby usage
}

// usage is what one process uses.
type usage struct {
	memory measure.Memory // at the end
	cpu    time.Duration  // user and system time in the window
	window time.Duration
	age    time.Duration // of the container, at the end
}

// perHour is the CPU time that an hour takes at this rate.
func (u usage) perHour() time.Duration {
	return time.Duration(float64(u.cpu) / float64(u.window) * float64(time.Hour))
}

// processes are two pods of each implementation, one of which leads.
type processes struct {
	of    [2][]*process
	began time.Time
}

// process is the one container of a pod.
type process struct {
	identity string
	pid      int
	started  time.Time
	leads    bool
	before   time.Duration // CPU time when the window began
}

// startSidecars runs two pods of each sidecar and waits until one of them leads.
func (l *lab) startSidecars(ctx context.Context, built measure.Programs) (*processes, error) {
	if err := measure.GrantLeases(ctx, l.client, namespace, account); err != nil {
		return nil, err
	}
	var p processes
	for _, who := range implementations {
		for i := range 2 {
			pod := sidecarPod(who, i, built.Of(who.program()))
			if _, err := l.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
				return nil, fmt.Errorf("creating pod %s: %w", pod.Name, err)
			}
		}
	}
	for _, who := range implementations {
		for i := range 2 {
			one, err := l.findProcess(ctx, sidecarPod(who, i, "").Name)
			if err != nil {
				return nil, err
			}
			p.of[who] = append(p.of[who], one)
		}
	}
	return &p, l.eventually(ctx, "a leader among the sidecars", func(ctx context.Context) (bool, error) { return l.findLeaders(ctx, &p) })
}

// account is the ServiceAccount of the pods.
const account = "sidecar"

func sidecarLease(who implementation) string { return "sidecar-" + who.String() }

func sidecarPod(who implementation, number int, path string) *corev1.Pod {
	lease := sidecarLease(who)
	// As the webhook injects them. The addresses are the defaults, but the embedded cluster has to see them to give each pod its own.
	args := []string{"--lock=" + lease, "--http-address=127.0.0.1:4040", "--health-address=:4041"}
	if who == peer {
		args = []string{"-lease=" + lease, "-file=/var/run/elector/leader"}
	}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s-%d", lease, number)},
		Spec: corev1.PodSpec{
			ServiceAccountName: account,
			Containers: []corev1.Container{{
				Name: "sidecar", Image: "host", Command: []string{path}, Args: args,
				Env: []corev1.EnvVar{
					{Name: kube.PodNameEnv, ValueFrom: field("metadata.name")},
					{Name: kube.PodUIDEnv, ValueFrom: field("metadata.uid")},
					{Name: "POD_NAMESPACE", ValueFrom: field("metadata.namespace")},
					{Name: "GOMAXPROCS", Value: "1"},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "status", MountPath: "/var/run/elector"}},
			}},
			Volumes: []corev1.Volume{{
				Name:         "status",
				VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}},
			}},
		},
	}
}

func (l *lab) findProcess(ctx context.Context, name string) (*process, error) {
	var p *process
	err := l.eventually(ctx, "pod "+name+" to run", func(ctx context.Context) (bool, error) {
		pod, err := l.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Running == nil {
			return false, nil
		}
		status := pod.Status.ContainerStatuses[0]
		pid, err := measure.PID(status.ContainerID)
		if err != nil {
			return false, err
		}
		p = &process{identity: elector.Identity(pod.Name, string(pod.UID)), pid: pid, started: status.State.Running.StartedAt.Time}
		return true, nil
	})
	return p, err
}

// findLeaders asks the Leases who leads, and tells whether there is one of each implementation.
func (l *lab) findLeaders(ctx context.Context, p *processes) (bool, error) {
	for _, who := range implementations {
		lease, err := l.client.CoordinationV1().Leases(namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + sidecarLease(who)})
		if err != nil {
			return false, err
		}
		found := false
		for _, one := range p.of[who] {
			one.leads = len(lease.Items) > 0 && ptr.Deref(lease.Items[0].Spec.HolderIdentity, "") == one.identity
			found = found || one.leads
		}
		if !found {
			return false, nil
		}
	}
	return true, nil
}

// eventually asks until the answer is yes.
func (l *lab) eventually(ctx context.Context, what string, ask wait.ConditionWithContextFunc) error {
	if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, patience, true, ask); err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	return nil
}

// begin opens the window in which CPU time is counted: what starting takes is not part of it.
func (p *processes) begin() error {
	p.began = time.Now()
	for _, of := range p.of {
		for _, one := range of {
			var err error
			if one.before, err = measure.CPUTime(one.pid); err != nil {
				return err
			}
		}
	}
	return nil
}

// end closes the window.
func (l *lab) endSidecars(ctx context.Context, p *processes, built measure.Programs) (found [2]footprint, err error) {
	for _, who := range implementations {
		info, err := os.Stat(built.Of(who.program()))
		if err != nil {
			return found, fmt.Errorf("looking at a binary: %w", err)
		}
		found[who].binary = info.Size()
		for _, one := range p.of[who] {
			u, err := one.end(p.began)
			if err != nil {
				return found, err
			}
			if one.leads {
				found[who].leader = u
			} else {
				found[who].standby = u
			}
		}
	}
	before := p.leaders()
	if _, err := l.findLeaders(ctx, p); err != nil {
		return found, fmt.Errorf("asking who leads: %w", err)
	}
	if p.leaders() != before {
		return found, errors.New("the sidecars at rest changed their leader, is the machine overloaded?")
	}
	return found, nil
}

func (p *processes) leaders() (identities [2]string) {
	for who, of := range p.of {
		for _, one := range of {
			if one.leads {
				identities[who] = one.identity
			}
		}
	}
	return identities
}

func (p *process) end(began time.Time) (usage, error) {
	cpu, err := measure.CPUTime(p.pid)
	if err != nil {
		return usage{}, err
	}
	memory, err := measure.ReadMemory(p.pid)
	if err != nil {
		return usage{}, err
	}
	return usage{memory: memory, cpu: cpu - p.before, window: time.Since(began), age: time.Since(p.started)}, nil
}
