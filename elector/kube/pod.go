package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/elector"
)

// The variables in which the downward API tells a Pod who it is.
const (
	// PodNameEnv holds the Pod's name; the webhook sets it in app containers too.
	PodNameEnv = "POD_NAME"
	// PodUIDEnv holds the Pod's UID.
	PodUIDEnv = "POD_UID"
)

// ServiceAccountDir is where the kubelet puts a pod's credentials.
const ServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// PodNamespace reads the namespace of the Pod that this process runs in.
func PodNamespace() (string, error) { return namespaceIn(ServiceAccountDir) }

func namespaceIn(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "namespace"))
	if err != nil {
		return "", fmt.Errorf("reading the pod's namespace: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// ForPod returns a lock in this Pod's namespace, with this Pod as the candidate,
// for elector.Become and elector.Run; nil without an error outside a cluster. The
// Pod's name comes from PodNameEnv, its UID from PodUIDEnv; without the latter
// the Pod is read, which needs the permission to get pods. settings need the
// lock's name; what else they leave out is elector's default.
func ForPod(ctx context.Context, settings elector.Settings) (elector.Lock, error) {
	client, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, nil //nolint:nilnil // what elector.Become takes for "outside a cluster"
	}
	if err != nil {
		return nil, fmt.Errorf("using the pod's service account: %w", err)
	}
	namespace, err := PodNamespace()
	if err != nil {
		return nil, err
	}
	return forPodIn(ctx, client, namespace, settings)
}

// forPodIn returns the lock of the Pod that the environment names.
func forPodIn(ctx context.Context, client *rest.Config, namespace string, settings elector.Settings) (_ elector.Lock, err error) {
	name := os.Getenv(PodNameEnv)
	if name == "" {
		return nil, fmt.Errorf("%s is not set: set it to metadata.name by the downward API", PodNameEnv)
	}
	uid := os.Getenv(PodUIDEnv)
	if uid == "" {
		if uid, err = podUID(ctx, client, namespace, name); err != nil {
			return nil, err
		}
	}
	return New(client, Config{Candidate: elector.Description{
		Settings: settings, Namespace: namespace, Identity: elector.Identity(name, uid),
	}})
}

func podUID(ctx context.Context, client *rest.Config, namespace, name string) (string, error) {
	rc, err := restClient(client, coreVersion, nil)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var pod metav1.PartialObjectMetadata
	if err := rc.Get().Namespace(namespace).Resource("pods").Name(name).Do(ctx).Into(&pod); err != nil {
		return "", fmt.Errorf("reading the pod for its UID (or set %s by the downward API): %w", PodUIDEnv, err)
	}
	return string(pod.UID), nil
}
