//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// A pod that hangs in an init container is no candidate, and one whose init container asks whether its pod leads gets an answer.
func testInitContainers(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "Init containers", mode)
		more := append([]string{elector.FieldLock, lock}, defaults...)
		s.deploy("web", 2, nil, more...)
		leader := s.leader(lock, 2)
		s.awaitApp(leader)
		s.deploy("next", 1, func(t *corev1.PodTemplateSpec) {
			t.Spec.InitContainers = []corev1.Container{{Name: "wait-for-db", Image: appImage, Args: []string{"-address", ""}}}
		}, more...)
		hanging := s.hanging("next", "wait-for-db")
		s.remove(leader)
		_, after, _ := s.succession(lock, leader)
		if after.UID == string(hanging.UID) {
			t.Errorf("%s leads in its init containers", hanging.Name)
		}
		if sidecar := s.containerStatus(hanging, inject.ContainerName); sidecar.State.Waiting == nil {
			t.Errorf("the sidecar of a pod that hangs is %+v", sidecar.State)
		}
		s.deploy("asks", 1, func(t *corev1.PodTemplateSpec) {
			t.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: appImage, Args: []string{"-address", "", "-lead-for", "1s"}}}
		}, append([]string{elector.FieldLock, "asks", "containers", "app, migrate"}, defaults...)...)
		begun := boot()
		s.await("the init container to have led and ended, and the app to start", func() error {
			for _, pod := range s.pods {
				if pod.Labels["app"] == "asks" && isReady(pod) {
					return nil
				}
			}
			return errors.New("its pod is not ready")
		})
		s.figure("pod with an init container that ends when it has led for 1 s: created until ready", seconds(boot()-begun))
	})
}

// hanging waits for the init container of the workload's pod to run.
func (s *scene) hanging(app, container string) (hanging *corev1.Pod) {
	s.t.Helper()
	s.await("the init container to hang", func() error {
		for _, pod := range s.pods {
			for i := range pod.Status.InitContainerStatuses {
				if c := &pod.Status.InitContainerStatuses[i]; pod.Labels["app"] == app && c.Name == container && c.State.Running != nil {
					hanging = pod
					return nil
				}
			}
		}
		return errors.New("it does not run")
	})
	return hanging
}

// containerStatus is what the API server has of one of the pod's init containers.
func (s *scene) containerStatus(pod *corev1.Pod, name string) corev1.ContainerStatus {
	s.t.Helper()
	now, err := world.client.CoreV1().Pods(s.ns).Get(s.t.Context(), pod.Name, metav1.GetOptions{})
	s.ok(err)
	i := slices.IndexFunc(now.Status.InitContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == name })
	if i < 0 {
		s.t.Fatalf("%s has no container %s", pod.Name, name)
	}
	return now.Status.InitContainerStatuses[i]
}

// statusPort is where a stand-in for Istio's proxy answers for all probes.
const statusPort = 15020

// Probes are pointed to a proxy, as Istio does it: one that starts with the app, and one that starts before.
func testMesh(t *testing.T) {
	proxy := corev1.Container{Name: "istio-proxy", Image: appImage, Args: []string{"-address", fmt.Sprintf(":%d", statusPort)}}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromString("http")}}, PeriodSeconds: 1}
	for _, tc := range []struct {
		mode   string
		change func(*corev1.PodTemplateSpec)
	}{
		{"classic", func(t *corev1.PodTemplateSpec) { t.Spec.Containers = append(t.Spec.Containers, proxy) }},
		{"native", func(t *corev1.PodTemplateSpec) {
			native := proxy
			native.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
			t.Spec.InitContainers = append(t.Spec.InitContainers, native)
		}},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, "Probes rewritten as by a mesh, "+tc.mode, modeLease)
			s.rewriteProbes()
			s.deploy("web", 2, func(t *corev1.PodTemplateSpec) {
				tc.change(t)
				t.Spec.Containers[0].ReadinessProbe = probe
			}, append([]string{"containers", "app"}, defaults...)...)
			leader := s.leader("web", 2)
			if get := leader.Spec.Containers[0].ReadinessProbe.HTTPGet; get.Port.IntValue() != statusPort {
				t.Fatalf("the stand-in has not rewritten the app's probe: %v", get)
			}
			s.awaitApp(leader)
			s.remove(leader)
			before, after, _ := s.succession("web", leader)
			s.figure("claim ends until the next begins", seconds(after.Begin-before.End))
			// By the clock of both logs, as the lock is seen free later than it is.
			if stops := s.stopped(leader, proxy.Name); tc.mode == "native" && stops < before.End {
				t.Errorf("the proxy had stopped %s before the claim ended", before.End-stops)
			}
		})
	}
}

// rewriteProbes has the API server point the HTTP probes of the scene's pods to the stand-in, after elector's webhook has added its
// container. This is what Istio's injector does with them (rewriteAppHTTPProbers), init containers included.
func (s *scene) rewriteProbes() {
	s.t.Helper()
	var rewrites []string
	for _, list := range []string{"initContainers", "containers"} {
		for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
			rewrites = append(rewrites, strings.NewReplacer("LIST", list, "PROBE", probe, "PORT", strconv.Itoa(statusPort)).Replace(
				`object.spec.?LIST.orValue([]).filter(c, c.name != "istio-proxy" && has(c.PROBE) && has(c.PROBE.httpGet)).map(c, `+
					`JSONPatch{op: "replace", path: "/spec/LIST/" + string(object.spec.LIST.map(i, i.name).indexOf(c.name)) + "/PROBE/httpGet/port", value: PORT})`))
		}
	}
	ifNeeded, scope := admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.NamespacedScope
	policy := &admissionregistrationv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: s.ns},
		Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
			ReinvocationPolicy: ifNeeded,
			MatchConstraints: &admissionregistrationv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: s.ns}},
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}, Scope: &scope},
				}}},
			},
			Mutations: []admissionregistrationv1.Mutation{{
				PatchType: admissionregistrationv1.PatchTypeJSONPatch, JSONPatch: &admissionregistrationv1.JSONPatch{Expression: strings.Join(rewrites, " + ")},
			}},
		},
	}
	binding := &admissionregistrationv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: s.ns},
	}
	api := world.client.AdmissionregistrationV1()
	_, err := api.MutatingAdmissionPolicies().Create(s.t.Context(), policy, metav1.CreateOptions{})
	s.ok(err)
	_, err = api.MutatingAdmissionPolicyBindings().Create(s.t.Context(), binding, metav1.CreateOptions{})
	s.ok(err)
	s.t.Cleanup(func() {
		ctx := context.WithoutCancel(s.t.Context())
		if err := errors.Join(api.MutatingAdmissionPolicyBindings().Delete(ctx, s.ns, metav1.DeleteOptions{}), api.MutatingAdmissionPolicies().Delete(ctx, s.ns, metav1.DeleteOptions{})); err != nil {
			s.t.Error(err)
		}
	})
	// An API server hears of a policy a moment later.
	s.poll("the stand-in to rewrite", func() error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "asks"}, Spec: podTemplate("asks").Spec}
		pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080)}}}
		created, err := world.client.CoreV1().Pods(s.ns).Create(s.t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && created.Spec.Containers[0].ReadinessProbe.HTTPGet.Port.IntValue() != statusPort {
			err = errors.New("the probe is as it was")
		}
		return err
	})
}

// A copy that kubectl makes for debugging keeps the sidecar. It never leads, though the lock is free.
func testDebugCopy(t *testing.T) {
	both(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, "`kubectl debug --copy-to`", mode)
		s.deploy("web", 1, nil, defaults...)
		leader := s.leader("web", 1)
		s.awaitApp(leader)
		s.kubectl("debug", leader.Name, "--copy-to", "copy", "--container", "app", "--", appPath)
		var debugged *corev1.Pod
		s.await("the copy to run", func() error {
			for _, pod := range s.pods {
				if pod.Name == "copy" && isReady(pod) {
					debugged = pod
					return nil
				}
			}
			return errors.New("it is not ready")
		})
		if i := slices.IndexFunc(debugged.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerName }); i < 0 {
			t.Fatal("the copy has no sidecar")
		}
		s.kubectl("scale", "deployment", "web", "--replicas", "0")
		s.await("the lock to be free", func() error {
			if all := s.holders["web"]; len(all) == 0 || all[len(all)-1].identity != "" {
				return fmt.Errorf("it was held by %v", all)
			}
			return nil
		})
		s.stays("the lock to be free while there is but a copy", 2*leaseDuration, func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if all := s.holders["web"]; all[len(all)-1].identity != "" {
				return fmt.Errorf("it was held by %v", all)
			}
			return nil
		})
		var status elector.Status
		out, err := s.get(debugged, "http://127.0.0.1:4040/status")
		s.ok(err)
		if err := json.Unmarshal([]byte(out), &status); err != nil || status.Role != elector.RoleStandby || !strings.Contains(status.Reason, "copy") {
			t.Errorf("the copy says of itself: %s, %v", out, err)
		}
		s.kubectl("scale", "deployment", "web", "--replicas", "1")
		s.succession("web", leader)
		s.figure("a copy beside a free lock", "stands aside")
	})
}
