package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// podWebhook is the name of the webhook for pods in the chart's MutatingWebhookConfiguration.
const podWebhook = "pods.elector.io"

// endpoint is where API servers send reviews of pods.
type endpoint struct {
	namespace, service string
	url                string
	address            string // of the Service's cluster IP
	caBundle           []byte
}

// findEndpoint reads what API servers read.
func (l *lab) findEndpoint(ctx context.Context) (endpoint, error) {
	list, err := l.client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{})
	if err != nil {
		return endpoint{}, fmt.Errorf("listing webhook configurations: %w", err)
	}
	for _, configuration := range list.Items {
		for _, webhook := range configuration.Webhooks {
			if webhook.Name == podWebhook && webhook.ClientConfig.Service != nil {
				return l.endpointOf(ctx, webhook.ClientConfig)
			}
		}
	}
	return endpoint{}, errors.New("no webhook for pods is configured, is the manager installed?")
}

func (l *lab) endpointOf(ctx context.Context, config admissionregistrationv1.WebhookClientConfig) (endpoint, error) {
	to := config.Service
	service, err := l.client.CoreV1().Services(to.Namespace).Get(ctx, to.Name, metav1.GetOptions{})
	if err != nil {
		return endpoint{}, fmt.Errorf("reading the manager's service: %w", err)
	}
	port := strconv.Itoa(int(ptr.Deref(to.Port, 443)))
	return endpoint{
		namespace: to.Namespace, service: to.Name, caBundle: config.CABundle,
		url:     fmt.Sprintf("https://%s%s?timeout=10s", net.JoinHostPort(to.Name+"."+to.Namespace+".svc", port), ptr.Deref(to.Path, "/")),
		address: net.JoinHostPort(service.Spec.ClusterIP, port),
	}, nil
}

// caller returns one with so many connections at most; 0 is no limit.
func (e endpoint) caller(connections int) (*measure.Caller, error) {
	return measure.NewCaller(e.url, e.caBundle, e.address, connections)
}

// review is what an API server sends when such a pod is created that asks for the sidecar. It also returns that pod.
func (l *lab) review(ctx context.Context, plain *corev1.Pod) ([]byte, *corev1.Pod, error) {
	// A dry run fills in what comes before webhooks: defaults, and what other admission plugins add.
	pod, err := l.client.CoreV1().Pods(plain.Namespace).Create(ctx, plain, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return nil, nil, fmt.Errorf("creating a pod (dry run): %w", err)
	}
	pod.UID, pod.ResourceVersion, pod.CreationTimestamp, pod.Generation = "", "", metav1.Time{}, 0
	pod.APIVersion, pod.Kind = "v1", "Pod"
	elected(pod, "worker")
	object, err := json.Marshal(pod)
	if err != nil {
		return nil, nil, fmt.Errorf("writing a pod: %w", err)
	}
	kind := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	resource := metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	review, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Kind: kind, Resource: resource, RequestKind: &kind, RequestResource: &resource,
			Name: pod.Name, Namespace: pod.Namespace, Operation: admissionv1.Create,
			UserInfo: authenticationv1.UserInfo{Username: "system:serviceaccount:kube-system:replicaset-controller", Groups: []string{"system:serviceaccounts"}},
			Object:   runtime.RawExtension{Raw: object}, DryRun: new(false),
			Options: runtime.RawExtension{Raw: []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}`)},
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("writing a review: %w", err)
	}
	return review, pod, nil
}

// checkAnswer makes sure that the pod would get the sidecar.
func checkAnswer(answer []byte) error {
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer, &review); err != nil {
		return fmt.Errorf("reading the answer to a review: %w", err)
	}
	if review.Response == nil || !review.Response.Allowed || len(review.Response.Patch) == 0 {
		return fmt.Errorf("the pod does not get the sidecar: %s", answer)
	}
	return nil
}
