//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
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

// Where a quota counts CPU limits, the sidecar, which has none, gets its own from a LimitRange; without one the quota's sentence says
// whose is missing. A LimitRange's own minimum names nobody. What a LimitRange gives to a pod decides on its QoS class before the sidecar comes.
func TestQuotas(t *testing.T) {
	t.Parallel()
	amounts := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	tests := map[string]struct {
		limits *corev1.LimitRangeItem
		class  corev1.PodQOSClass
		err    string
	}{
		"lower requests": {&corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Default: amounts("500m", "256Mi"), DefaultRequest: amounts("100m", "128Mi")}, corev1.PodQOSBurstable, ""},
		"equal requests": {&corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Default: amounts("500m", "256Mi"), DefaultRequest: amounts("500m", "256Mi")}, corev1.PodQOSGuaranteed, ""},
		"minimum": {&corev1.LimitRangeItem{
			Type: corev1.LimitTypeContainer, Default: amounts("500m", "256Mi"), DefaultRequest: amounts("100m", "128Mi"),
			Min: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
		}, "", `pods "web" is forbidden: minimum memory usage per Container is 128Mi, but request is 16Mi`},
		"no LimitRange": {nil, "", `pods "web" is forbidden: failed quota: all: must specify limits.cpu for: elector`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			hard := corev1.ResourceList{}
			for _, counted := range []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory} {
				hard[counted] = resource.MustParse("100G")
			}
			core := cluster.Client().CoreV1()
			quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
			if _, err := core.ResourceQuotas(s.name).Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the quota to be known", func(ctx context.Context) error {
				q, err := core.ResourceQuotas(s.name).Get(ctx, "all", metav1.GetOptions{})
				if err == nil && len(q.Status.Hard) != len(hard) {
					err = errors.New("it has no status")
				}
				return err
			})
			pod := s.pod(annotations(elector.ModeLease))
			if test.limits == nil {
				pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: amounts("1", "1Gi"), Requests: amounts("100m", "64Mi")}
			} else {
				limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limits"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{*test.limits}}}
				if _, err := core.LimitRanges(s.name).Create(t.Context(), limits, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			// API servers hear of the quota and the limits when they do.
			eventually(t, "the answer", func(ctx context.Context) error {
				created, err := core.Pods(s.name).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				switch {
				case test.err != "" && err == nil:
					return errors.New("the pod is admitted")
				case test.err != "" && err.Error() == test.err:
					return nil
				case err != nil:
					return err
				}
				limit := created.Spec.InitContainers[0].Resources.Limits
				if created.Status.QOSClass != test.class || limit.Cpu().IsZero() {
					return fmt.Errorf("the class is %s, the sidecar's limit %v", created.Status.QOSClass, limit)
				}
				return nil
			})
		})
	}
}
