//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// enforce makes Pod Security admission hold the namespace to a level, and warn of the strictest.
func (s *space) enforce(level string) {
	s.t.Helper()
	labels := fmt.Sprintf(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":%q,"pod-security.kubernetes.io/warn":"restricted"}}}`, level)
	if _, err := cluster.Client().CoreV1().Namespaces().Patch(s.t.Context(), s.name, types.MergePatchType, []byte(labels), metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// restrict makes the pod one that the level restricted admits.
func restrict(spec *corev1.PodSpec) {
	spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
}

// In a namespace that is held to a Pod Security level, pods that satisfy it do so with the sidecar, run and elect.
func TestPodSecurity(t *testing.T) {
	t.Parallel()
	for level, mode := range map[string]elector.Mode{"restricted": elector.ModeLease, "baseline": elector.ModeLeaderForLife} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.enforce(level)
			client, w := warned(t)
			d := s.deployment("web", annotations(mode))
			restrict(&d.Spec.Template.Spec)
			e := s.follow(d.Name)
			if _, err := client.AppsV1().Deployments(s.name).Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			e.awaitReady()
			e.awaitLeader("")

			pod := s.pod(annotations(mode))
			restrict(&pod.Spec)
			pod, err := client.CoreV1().Pods(s.name).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil || !injected(pod) {
				t.Errorf("a bare pod: %v", err)
			}
			if said := strings.Join(w.said, "\n"); strings.Contains(said, "PodSecurity") {
				t.Errorf("the level restricted would be violated:\n%s", said)
			}
		})
	}
}

// Whether a pod of any shape satisfies a Pod Security level does not depend on the sidecar, nor do the reasons why it does not.
func TestPodSecurityOfTemplates(t *testing.T) {
	t.Parallel()
	all := templates(t)
	client := dynamicClient(t)
	for _, level := range []string{"restricted", "baseline"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.enforce(level)
			s.prepare(all)
			create := func(pod object) string {
				t.Helper()
				_, err := client.Resource(podsResource).Namespace(s.name).Create(t.Context(), &unstructured.Unstructured{Object: pod}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				if err != nil && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `violates PodSecurity "`+level+":latest\": ")) {
					t.Errorf("refused, but not for its security: %v", err)
				}
				return fmt.Sprint(err)
			}
			admitted := 0
			for name, pod := range all {
				plain := create(clone(pod))
				elected := clone(pod)
				at(elected, "metadata", "annotations")[inject.Prefix+"enabled"] = "true"
				got := create(elected)
				if plain == fmt.Sprint(nil) {
					admitted++
				}
				if at(pod, "spec")["hostNetwork"] == true {
					// Forbidden either way, and the sidecar's ports are the node's, too.
					got = strings.ReplaceAll(got, `containers "elector", "agent" use hostPorts 4040, 4041, 8053, 9100`, `container "agent" uses hostPorts 8053, 9100`)
				}
				if got != plain {
					t.Errorf("%s is answered with\n%s\nand without elector with\n%s", name, got, plain)
				}
			}
			if admitted == 0 || admitted == len(all) {
				t.Errorf("%d of %d pods are admitted, so this shows nothing", admitted, len(all))
			}
		})
	}
}
