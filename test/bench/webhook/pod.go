package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// The annotations of pods that contend for a lock.
const (
	enabledAnnotation = inject.AnnotationEnabled
	lockAnnotation    = inject.Prefix + elector.FieldLock
)

// newPod is of a common shape: two containers with ports, probes, resources, variables and volumes. A gate keeps it from being
// scheduled, so that nothing runs.
func newPod(namespace, name, account string) *corev1.Pod {
	get := func(path string, port int32) *corev1.Probe {
		handler := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path}}
		handler.HTTPGet.Port.IntVal = port
		return &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 10}
	}
	resources := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name,
			Labels:      map[string]string{"app.kubernetes.io/name": "shop", "app.kubernetes.io/component": "worker"},
			Annotations: map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: account,
			SchedulingGates:    []corev1.PodSchedulingGate{{Name: "elector.io/benchmark"}},
			Containers: []corev1.Container{
				{
					Name: "app", Image: "registry.example.com/shop/worker:1.4.2", Args: []string{"--queue=orders", "--workers=4"},
					Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}, Resources: resources,
					Env: []corev1.EnvVar{
						{Name: "DATABASE_HOST", Value: "db.shop.svc"},
						{Name: "DATABASE_PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
							LocalObjectReference: corev1.LocalObjectReference{Name: "database"}, Key: "password",
						}}},
					},
					VolumeMounts:  []corev1.VolumeMount{{Name: "settings", MountPath: "/etc/shop"}, {Name: "scratch", MountPath: "/tmp"}},
					LivenessProbe: get("/healthz", 8080), ReadinessProbe: get("/readyz", 8080),
				},
				{
					Name: "metrics", Image: "registry.example.com/exporter:2.1.0", Resources: resources,
					Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9090}},
				},
			},
			Volumes: []corev1.Volume{
				{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "shop"},
				}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
}

// largeVariables is how many each container of a large pod has. The review is ten times that of a usual pod then.
const largeVariables = 200

// newLargePod is newPod with many variables.
func newLargePod(namespace, name, account string) *corev1.Pod {
	pod := newPod(namespace, name, account)
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		for j := range largeVariables {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", j), Value: fmt.Sprintf("https://service-%d.shop.svc.cluster.local/", j)})
		}
	}
	return pod
}

// elected makes the pod ask for the sidecar.
func elected(pod *corev1.Pod, lock string) *corev1.Pod {
	pod.Annotations[enabledAnnotation], pod.Annotations[lockAnnotation] = "true", lock
	return pod
}
