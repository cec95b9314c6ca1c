// Command dapr is Dapr's sidecar injector, version 1.14.0, as a subject of test/bench/injectors: configured as Dapr's chart does by default.
//
// It asks the API server for Dapr's configuration for each review, unless that is in memory, as here: a subject has no API server.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"unsafe"

	configurations "github.com/dapr/dapr/pkg/apis/configuration/v1alpha1"
	"github.com/dapr/dapr/pkg/client/clientset/versioned"
	"github.com/dapr/dapr/pkg/client/clientset/versioned/typed/configuration/v1alpha1"
	"github.com/dapr/dapr/pkg/healthz"
	"github.com/dapr/dapr/pkg/injector/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/elector-io/elector/test/bench/injectors/subject"
)

// controllerUID is the replicaset controller's in the reviews: the injector answers known users alone.
const controllerUID = "5f0f3c57-6a5c-4d0e-9a43-0c8f6f0c7d51"

// controlPlane is the namespace of Dapr's chart, and trustDomain its default.
const controlPlane, trustDomain = "dapr-system", "cluster.local"

func main() { os.Exit(subject.Main("/mutate", prepare)) }

// environment is what the chart's Deployment has.
var environment = map[string]string{
	"NAMESPACE": controlPlane, "KUBE_CLUSTER_DOMAIN": "cluster.local",
	"SIDECAR_IMAGE": "ghcr.io/dapr/daprd:1.14.0", "SIDECAR_IMAGE_PULL_POLICY": "IfNotPresent",
	"SIDECAR_RUN_AS_NON_ROOT": "true", "ENABLE_K8S_DOWNWARD_APIS": "false", "SIDECAR_DROP_ALL_CAPABILITIES": "false", "SIDECAR_READ_ONLY_ROOT_FILESYSTEM": "true",
	"IGNORE_ENTRYPOINT_TOLERATIONS": `[{"effect":"NoSchedule","key":"alibabacloud.com/eci"},{"effect":"NoSchedule","key":"azure.com/aci"},{"effect":"NoSchedule","key":"aws"},{"effect":"NoSchedule","key":"huawei.com/cci"}]`,
	"ACTORS_ENABLED":                "true", "ACTORS_SERVICE_NAME": "placement", "ACTORS_SERVICE_ADDRESS": "dapr-placement-server:50005",
	"DAPR_CONTROL_PLANE_TRUST_DOMAIN": trustDomain,
}

func prepare(ctx context.Context) (http.Handler, error) {
	for name, value := range environment {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	config, err := service.GetConfig()
	if err != nil {
		return nil, err
	}
	if err := service.InitMetrics(); err != nil {
		return nil, err
	}
	replicas := int32(1)
	scheduler := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: controlPlane, Name: "dapr-scheduler-server"}, Spec: appsv1.StatefulSetSpec{Replicas: &replicas},
	}
	health := healthz.New()
	injector, err := service.NewInjector(service.Options{
		ListenAddress: "127.0.0.1", AuthUIDs: []string{controllerUID}, Config: config, DaprClient: client{}, KubeClient: fake.NewSimpleClientset(scheduler),
		ControlPlaneNamespace: controlPlane, ControlPlaneTrustDomain: trustDomain, Healthz: health,
	})
	if err != nil {
		return nil, err
	}
	domain, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, err
	}
	sentry, err := spiffeid.FromSegments(domain, "ns", controlPlane, "dapr-sentry")
	if err != nil {
		return nil, err
	}
	// Only Run tells it whom to trust. What it listens on is not used, and has no certificate: module subject serves all handlers alike.
	unused := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errUnused }}
	ended := make(chan error, 1)
	go func() {
		ended <- injector.Run(ctx, unused, sentry, func(context.Context) ([]byte, error) { return trustAnchors, nil })
	}()
	for !health.IsReady() {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("running it: %w", err)
		default:
		}
	}
	return handler(injector), nil
}

// handler takes the handler out of an injector, which shows it to nobody.
func handler(injector service.Injector) http.Handler {
	field := reflect.ValueOf(injector).Elem().FieldByName("server")
	return (*http.Server)(unsafe.Pointer(field.Pointer())).Handler
}

var errUnused = errors.New("nothing is served here")

// trustAnchors has the length of a certificate in PEM, and its letters.
var trustAnchors = bytes.Repeat([]byte("MIIBtzCCAV2gAwIBAgIQXb3k0Zr7\n"), 24)

// client knows one thing: the configuration that the chart makes.
type client struct{ versioned.Interface }

func (client) ConfigurationV1alpha1() v1alpha1.ConfigurationV1alpha1Interface { return group{} }

type group struct {
	v1alpha1.ConfigurationV1alpha1Interface
}

func (group) Configurations(string) v1alpha1.ConfigurationInterface { return configuration{} }

type configuration struct {
	v1alpha1.ConfigurationInterface
}

func (configuration) Get(string, metav1.GetOptions) (*configurations.Configuration, error) {
	enabled := true
	return &configurations.Configuration{Spec: configurations.ConfigurationSpec{MTLSSpec: &configurations.MTLSSpec{Enabled: &enabled}}}, nil
}
