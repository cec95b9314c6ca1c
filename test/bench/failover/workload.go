package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/witness"
)

const (
	account   = "app" // whose pods may touch Leases: client-go's, and elector's where there is no manager
	statusDir = "/var/run/elector"
	appLabel  = "app"
)

// elected is a pod template that asks for elector's sidecar, by annotations; more are name, value pairs.
func (l *lab) elected(name string, more ...string) (corev1.PodTemplateSpec, error) {
	t := l.template(name)
	t.Annotations = map[string]string{inject.AnnotationEnabled: "true", inject.Prefix + elector.FieldLock: name}
	for pair := range slices.Chunk(more, 2) {
		t.Annotations[inject.Prefix+pair[0]] = pair[1]
	}
	if l.managed {
		return t, nil
	}
	pod, err := inject.Pod(&corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}, inject.Options{Image: "elector"})
	if err != nil {
		return t, fmt.Errorf("injecting a template: %w", err)
	}
	return corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}, nil
}

// rival is a pod template with client-go's sidecar.
func (l *lab) rival(name string) corev1.PodTemplateSpec {
	t := l.template(name)
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	mount := corev1.VolumeMount{Name: "status", MountPath: statusDir}
	t.Spec.Volumes = []corev1.Volume{{Name: "status", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	t.Spec.InitContainers = []corev1.Container{{
		Name: "sidecar", Image: "host", Command: []string{l.programs.Of(measure.Peer)}, Args: []string{"-lease=" + name, "-file=" + statusDir + "/leader"},
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways), VolumeMounts: []corev1.VolumeMount{mount},
		Env: []corev1.EnvVar{
			{Name: "POD_NAME", ValueFrom: field("metadata.name")}, {Name: "POD_UID", ValueFrom: field("metadata.uid")}, {Name: "POD_NAMESPACE", ValueFrom: field("metadata.namespace")},
		},
	}}
	app := &t.Spec.Containers[0]
	mount.ReadOnly = true // the application tries whether it can write there
	app.VolumeMounts = []corev1.VolumeMount{mount}
	app.Env = append(app.Env, corev1.EnvVar{Name: "ELECTOR_STATUS_DIR", Value: statusDir})
	return t
}

// template is of a pod with the application. What ails it is said by files in a directory of its pod's name.
func (l *lab) template(name string) corev1.PodTemplateSpec {
	health := l.healthDir("$(POD_NAME)")
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{appLabel: name}},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, TerminationGracePeriodSeconds: new(int64(5)),
			Containers: []corev1.Container{{
				Name: "app", Image: "host", Command: []string{l.witness}, Args: []string{"-address=", "-health=" + health},
				Env: []corev1.EnvVar{{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}},
			}},
		},
	}
}

// startTime is how long pods take to start that are made slow: as long as images and applications often do.
const startTime = 5 * time.Second

// slow makes a pod take its time to start, before its sidecar does: otherwise who follows a deleted leader would often be its replacement, which
// takes milliseconds here.
func slow(t corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	wait := corev1.Container{Name: "wait", Image: "host", Command: []string{"sleep", strconv.Itoa(int(startTime.Seconds()))}}
	t.Spec.InitContainers = append([]corev1.Container{wait}, t.Spec.InitContainers...)
	return t
}

// probed gives the application a readiness probe, which finds out within a second.
func (l *lab) probed(t corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	t.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "test ! -e " + l.healthDir("$POD_NAME") + "/unready"}}},
		PeriodSeconds: 1, FailureThreshold: 1,
	}
	return t
}

func (l *lab) healthDir(pod string) string { return filepath.Join(l.programs.Dir, "health", pod) }

// ails makes a pod's application unwell and returns when.
func (l *lab) ails(pod, how string) (at time.Duration, err error) {
	if err := os.MkdirAll(l.healthDir(pod), 0o755); err != nil {
		return 0, fmt.Errorf("making a pod's directory: %w", err)
	}
	at = witness.Now()
	if err := os.WriteFile(filepath.Join(l.healthDir(pod), how), nil, 0o644); err != nil {
		return 0, fmt.Errorf("making a pod unwell: %w", err)
	}
	return at, nil
}

// deploy makes a Deployment. Its Lease has its name.
func (l *lab) deploy(ctx context.Context, name string, replicas int, t corev1.PodTemplateSpec) error {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(replicas)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{appLabel: name}}, Template: t,
		},
	}
	if _, err := l.client.AppsV1().Deployments(namespace).Create(ctx, d, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating deployment %s: %w", name, err)
	}
	return nil
}

// remove deletes Deployments and waits for the end of their pods, so that they do not disturb what comes next.
func (l *lab) remove(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := l.client.AppsV1().Deployments(namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return fmt.Errorf("removing deployment %s: %w", name, err)
		}
	}
	return l.gone(ctx, names...)
}

// removePods deletes pods that no Deployment made.
func (l *lab) removePods(ctx context.Context, names ...string) error {
	err := l.client.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: anyOf(names)})
	if err != nil {
		return fmt.Errorf("removing pods: %w", err)
	}
	return l.gone(ctx, names...)
}

// gone waits for the end of the pods of the given names' workloads.
func (l *lab) gone(ctx context.Context, names ...string) error {
	return eventually(ctx, "the pods' end", func(ctx context.Context) (bool, error) {
		pods, err := l.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: anyOf(names)})
		return err == nil && len(pods.Items) == 0, err
	})
}

// anyOf selects the pods of the given names' workloads.
func anyOf(names []string) string { return appLabel + " in (" + strings.Join(names, ",") + ")" }

// leader waits until so many pods of a lock are ready and one of them leads, and its application knows.
func (l *lab) leader(ctx context.Context, lock string, replicas int) (leader corev1.Pod, known witness.Line, others []corev1.Pod, err error) {
	err = eventually(ctx, fmt.Sprintf("a leader of %s among %d", lock, replicas), func(ctx context.Context) (bool, error) {
		holder, err := l.holder(ctx, lock)
		if err != nil {
			return false, err
		}
		pods, err := l.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: appLabel + "=" + lock})
		if err != nil {
			return false, err
		}
		leader, others = corev1.Pod{}, nil
		for _, pod := range pods.Items {
			switch {
			case pod.DeletionTimestamp != nil || !ready(&pod):
			case elector.Identity(pod.Name, string(pod.UID)) == holder:
				leader = pod
			default:
				others = append(others, pod)
			}
		}
		if leader.Name == "" || len(others) != replicas-1 {
			return false, nil
		}
		known = l.knows(ctx, leader.Name)
		return known.Clock > 0, nil
	})
	return leader, known, others, err
}

// settled is the leader a while after there is one. On a machine that is busy it may be another by then.
func (l *lab) settled(ctx context.Context, lock string, replicas int) (leader corev1.Pod, known witness.Line, others []corev1.Pod, err error) {
	if _, _, _, err = l.leader(ctx, lock, replicas); err != nil {
		return leader, known, others, err
	}
	if err = pause(ctx); err != nil {
		return leader, known, others, err
	}
	return l.leader(ctx, lock, replicas)
}

// successor waits until the application of another pod than the leader knows that it leads, after the given time, and returns when that was.
func (l *lab) successor(ctx context.Context, lock string, leader corev1.Pod, after time.Duration) (at time.Duration, err error) {
	old, holder := elector.Identity(leader.Name, string(leader.UID)), ""
	err = eventually(ctx, "a successor of "+leader.Name, func(ctx context.Context) (_ bool, err error) {
		if holder, err = l.holder(ctx, lock); err != nil || holder == "" || holder == old {
			return false, err
		}
		at = l.knows(ctx, elector.NameOf(holder)).Clock
		return at > after, nil
	})
	if err != nil {
		err = fmt.Errorf("%w; the holder is %q", err, holder)
	}
	return at, err
}

func (l *lab) holder(ctx context.Context, lock string) (string, error) {
	leases, err := l.client.CoordinationV1().Leases(namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + lock})
	if err != nil || len(leases.Items) == 0 {
		return "", err
	}
	return ptr.Deref(leases.Items[0].Spec.HolderIdentity, ""), nil
}

// knows is the last line in which a pod's application has said that it leads. It is the zero Line if it never has, or cannot be asked because
// the pod is gone or just starts. With client-go there is but the file to go by.
func (l *lab) knows(ctx context.Context, pod string) (known witness.Line) {
	text, err := l.client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: "app"}).DoRaw(ctx)
	if err != nil {
		return known
	}
	for line := range bytes.Lines(text) {
		var said witness.Line
		if err := json.Unmarshal(line, &said); err != nil {
			continue // the last one may be half written
		}
		if said.Event == witness.EventLeads && (said.By == witness.ByStatus || said.By == witness.ByFile && said.Token == 0) {
			known = said
		}
	}
	return known
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// names are prefix-0, prefix-1 and so on.
func names(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return all
}

// The manager, and who its replicas are for the API server.
const (
	managerNamespace = "elector-system"
	managerName      = "elector-webhook"
	managerUser      = "system:serviceaccount:" + managerNamespace + ":" + managerName
)
