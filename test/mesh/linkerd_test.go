package mesh

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// linkerd plays Linkerd's injector, which is no library: it puts the containers where that one puts them (linkerd2 at b24cd4059841,
// charts/patch). As native sidecar the proxy follows its init container at the head of the init containers. Else the init container is
// appended, and the proxy is the first of the app's containers, which its postStart hook holds back. Probes of others are left alone, and
// so a kubelet's reach the pod through the proxy.
func linkerd(pod *corev1.Pod, native bool) {
	if slices.ContainsFunc(append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...), isLinkerdProxy) {
		return
	}
	setup := corev1.Container{
		Name: "linkerd-init", Image: "linkerd/proxy", Command: []string{"/usr/lib/linkerd/linkerd2-proxy-init"},
		SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}}},
	}
	admin := intstr.FromInt32(4191)
	proxy := corev1.Container{
		Name: "linkerd-proxy", Image: "linkerd/proxy", Ports: []corev1.ContainerPort{{Name: "linkerd-proxy", ContainerPort: 4143}, {Name: "linkerd-admin", ContainerPort: 4191}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: admin}}},
		VolumeMounts:   []corev1.VolumeMount{{Name: "linkerd-identity-end-entity", MountPath: "/var/run/linkerd/identity/end-entity"}},
	}
	if native {
		proxy.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		proxy.StartupProbe = proxy.ReadinessProbe.DeepCopy()
		pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, 0, setup, proxy)
	} else {
		proxy.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/usr/lib/linkerd/linkerd-await", "--timeout=2m", "--port=4191"}}}}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, setup)
		pod.Spec.Containers = slices.Insert(pod.Spec.Containers, 0, proxy)
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: "linkerd-identity-end-entity", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}},
	})
}

func isLinkerdProxy(c corev1.Container) bool { return c.Name == "linkerd-proxy" }
