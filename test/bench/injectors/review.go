package main

import (
	"encoding/json"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// shape is how large a pod is.
type shape struct{ containers, variables int }

// The pods: one that is usual, and one with ten times as much to read.
var shapes = []shape{{containers: 2, variables: 5}, {containers: 13, variables: 24}}

// controllerUID is the replicaset controller's, whom Dapr has to know (see dapr/main.go).
const controllerUID = "5f0f3c57-6a5c-4d0e-9a43-0c8f6f0c7d51"

// newPod is what a ReplicaSet makes, with what the API server has filled in before it asks webhooks. It asks each of the injectors for its
// sidecar.
func newPod(s shape) *corev1.Pod {
	const image = "registry.example.com/shop/worker@sha256:5e8d9c0b1a2f3e4d5c6b7a8990e1234567890abcdef12345e6789abc0def1234"
	probe := func(path string, port int) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(port), Scheme: corev1.URISchemeHTTP}},
			TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
		}
	}
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "worker-7d4b9c8f6d-", Namespace: "shop",
			Labels: map[string]string{"app.kubernetes.io/name": "shop", "app.kubernetes.io/component": "worker", "pod-template-hash": "7d4b9c8f6d", "sidecar.istio.io/inject": "true"},
			Annotations: map[string]string{
				"elector.io/enabled": "true", "elector.io/lock": "worker", "dapr.io/enabled": "true", "dapr.io/app-id": "worker", "dapr.io/app-port": "8080",
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "worker-7d4b9c8f6d", UID: "9c1c4c9e-5e1f-4b39-9d0a-6d1d0a2f1e11", Controller: new(true), BlockOwnerDeletion: new(true),
			}},
		},
		Spec: corev1.PodSpec{
			Volumes: []corev1.Volume{
				{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "shop"}, DefaultMode: new(int32(0o644))}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "kube-api-access-x2v9k", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: new(int32(0o644)), Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: new(int64(3607)), Path: "token"}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
				}}}},
			},
			RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: new(int64(30)), DNSPolicy: corev1.DNSClusterFirst, SchedulerName: corev1.DefaultSchedulerName,
			ServiceAccountName: "worker", DeprecatedServiceAccount: "worker", SecurityContext: &corev1.PodSecurityContext{}, Priority: new(int32(0)), EnableServiceLinks: new(true),
			PreemptionPolicy: new(corev1.PreemptLowerPriority),
			Tolerations: []corev1.Toleration{
				{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))},
				{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))},
			},
		},
	}
	var managed []string
	for i := range s.containers {
		name, port := fmt.Sprintf("app-%d", i), 8080+i
		c := corev1.Container{
			Name: name, Image: image, ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"--queue=orders", "--workers=4"},
			Ports: []corev1.ContainerPort{{Name: fmt.Sprintf("http-%d", i), ContainerPort: int32(port), Protocol: corev1.ProtocolTCP}},
			Env:   []corev1.EnvVar{{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "database"}, Key: "password"}}}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
			},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "settings", MountPath: "/etc/shop"}, {Name: "scratch", MountPath: "/tmp"},
				{Name: "kube-api-access-x2v9k", ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"},
			},
			LivenessProbe: probe("/healthz", port), ReadinessProbe: probe("/readyz", port),
			TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		}
		var variables []string
		for j := range s.variables {
			setting := fmt.Sprintf("SETTING_%d", j)
			c.Env = append(c.Env, corev1.EnvVar{Name: setting, Value: fmt.Sprintf("https://service-%d.shop.svc.cluster.local/", j)})
			variables = append(variables, fmt.Sprintf(`"k:{\"name\":\"%s\"}":{".":{},"f:name":{},"f:value":{}}`, setting))
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
		managed = append(managed, fmt.Sprintf(`"k:{\"name\":\"%s\"}":{".":{},"f:args":{},"f:env":{".":{},%s},"f:image":{},"f:name":{},"f:resources":{}}`, name, strings.Join(variables, ",")))
	}
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:containers":{` + strings.Join(managed, ",") + `}}}`),
	}}
	return pod
}

// newReview is what an API server sends when a controller creates the pod.
func newReview(pod []byte) ([]byte, error) {
	kind := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	resource := metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	review, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Kind: kind, Resource: resource, RequestKind: &kind, RequestResource: &resource,
			Namespace: "shop", Operation: admissionv1.Create, DryRun: new(false),
			UserInfo: authenticationv1.UserInfo{
				Username: "system:serviceaccount:kube-system:replicaset-controller", UID: controllerUID, Groups: []string{"system:serviceaccounts", "system:authenticated"},
			},
			Object:  runtime.RawExtension{Raw: pod},
			Options: runtime.RawExtension{Raw: []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}`)},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("writing a review: %w", err)
	}
	return review, nil
}
