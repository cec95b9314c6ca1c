//go:build integration

package integration

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// pod is a plain one, whose app is the witness.
func (s *space) pod(annotations map[string]string) *corev1.Pod {
	s.t.Helper()
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: s.name, Annotations: annotations}, Spec: s.podSpec()}
}

// A dry run shows the sidecar and writes nothing, neither the pod nor a grant for it.
func TestDryRun(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	pod, err := cluster.Client().CoreV1().Pods(s.name).Create(t.Context(), s.pod(annotations(elector.ModeLease)), dryRun)
	if err != nil {
		t.Fatal(err)
	}
	if status, ok := inject.StatusOf(pod); !ok || status.Lock != "web" || !injected(pod) {
		t.Errorf("the pod is not injected: %v, %v", pod.Annotations, pod.Labels)
	}
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerName })
	if i != 0 || len(pod.Spec.InitContainers) != 1 || pod.Spec.InitContainers[0].RestartPolicy == nil || *pod.Spec.InitContainers[0].RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("there is more or less than one native sidecar: %v", pod.Spec.InitContainers)
	}
	// A real pod in the same namespace: when its grant is there, one for the dry run would be there, too.
	s.elect(s.deployment("real", annotations(elector.ModeLease)))
	if out := s.kubectl("get", "pods,leases,roles,rolebindings", "-o", "name"); strings.Contains(out, "web") || !strings.Contains(out, "role.rbac.authorization.k8s.io/elector:lease:real") {
		t.Errorf("after the dry run there are\n%s", out)
	}
}

// A pod that does not ask is left alone.
func TestUnasked(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	pod, err := cluster.Client().CoreV1().Pods(s.name).Create(t.Context(), s.pod(nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.InitContainers) > 0 || injected(pod) || len(pod.Spec.Volumes) > 0 {
		t.Errorf("the pod was changed: %v", pod.Spec)
	}
}

// The same words as by the binary, see cmd/elector.
func TestDenied(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		annotations []string
		want        string
	}{
		"unknown mode": {
			[]string{"mode", "raft"},
			`elector.io/mode "raft" is not allowed: use lease or leader-for-life`,
		},
		"capital in the lock's name": {
			[]string{"lock", "Web"},
			`elector.io/lock "Web" is not allowed: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
		},
		"fraction of a second": {
			[]string{"lease-duration", "1.5s"},
			`elector.io/lease-duration "1.5s" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`,
		},
		"renew-deadline above lease-duration": {
			[]string{"renew-deadline", "20s"},
			`elector.io/renew-deadline "20s" is not allowed: it must be above 0s and below elector.io/lease-duration (15s)`,
		},
	}
	s := newSpace(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := annotations(elector.ModeLease, test.annotations...)
			_, err := cluster.Client().CoreV1().Pods(s.name).Create(t.Context(), s.pod(bad), metav1.CreateOptions{})
			checkDenial(t, "a pod", err, `admission webhook "pods.elector.io" denied the request: `+test.want)

			template := s.deployment("web", bad)
			_, err = cluster.Client().AppsV1().Deployments(s.name).Create(t.Context(), template, metav1.CreateOptions{})
			checkDenial(t, "a pod template", err, `admission webhook "workloads.elector.io" denied the request: `+test.want)

			workload := s.deployment("web", nil)
			workload.Annotations = bad
			_, err = cluster.Client().AppsV1().Deployments(s.name).Create(t.Context(), workload, metav1.CreateOptions{})
			checkDenial(t, "a Deployment", err, `admission webhook "workloads.elector.io" denied the request: `+test.want)
		})
	}
}

func checkDenial(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%s was admitted", what)
	case err.Error() != want:
		t.Errorf("%s was refused with\n%s\nwant\n%s", what, err, want)
	case !apierrors.IsInvalid(err):
		t.Errorf("%s was refused with reason %s, want Invalid", what, apierrors.ReasonForError(err))
	}
}
