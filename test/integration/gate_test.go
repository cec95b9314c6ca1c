//go:build integration

package integration

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// The API server takes what a gate makes of every kind of probe and hook, in both modes, and taken back it is the pod without elector.
func TestGate(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	http := &corev1.HTTPGetAction{Port: intstr.FromString("http"), Path: "/$(POD)", HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "$(NAME)"}}}
	all := map[string]func(*corev1.Container){
		"http": func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: http}, TerminationGracePeriodSeconds: new(int64(3))}
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: http}}
		},
		"tcp": func(c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
		},
		"grpc": func(c *corev1.Container) {
			c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}, FailureThreshold: 100}
		},
		"exec": func(c *corev1.Container) {
			do := &corev1.ExecAction{Command: []string{"cat", "$(FILE)"}}
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: do}}
			c.StartupProbe = c.LivenessProbe
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: do}}
		},
		"sleep": func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}}}
		},
	}
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for _, mode := range []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife} {
		for name, probe := range all {
			t.Run(string(mode)+" "+name, func(t *testing.T) {
				t.Parallel()
				plain := s.pod(nil)
				plain.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
				probe(&plain.Spec.Containers[0])
				gated := plain.DeepCopy()
				gated.Annotations = annotations(mode, "gate", "true")
				want, err := cluster.Client().CoreV1().Pods(s.name).Create(t.Context(), plain, dryRun)
				if err != nil {
					t.Fatal(err)
				}
				got, err := cluster.Client().CoreV1().Pods(s.name).Create(t.Context(), gated, dryRun)
				if err != nil {
					t.Fatal(err)
				}
				wrapped := got.Spec.Containers[0].Command[0] == "/elector/gate"
				if wrapped != (mode == elector.ModeLease) {
					t.Errorf("the command is %q", got.Spec.Containers[0].Command)
				}
				undone, err := inject.Undo(got)
				if err != nil {
					t.Fatal(err)
				}
				is := undone.(*corev1.Pod).Spec
				if slices.ContainsFunc(is.Volumes, func(v corev1.Volume) bool { return v.Name == inject.VolumeGate }) || !equality.Semantic.DeepEqual(want.Spec.Containers, is.Containers) {
					t.Errorf("there and back it is something else (-without +undone):\n%s", cmp.Diff(want.Spec, is))
				}
			})
		}
	}
}
