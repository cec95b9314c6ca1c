//go:build !incluster

package main

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/elector/kube/lock"
)

const readsKubeconfig = true

// outside finds the API server and the namespace of a user's kubeconfig: $KUBECONFIG,
// then ~/.kube/config, unless a path is given. The build for the image, which is
// tagged incluster, goes without: clientcmd and what it needs are a third of the
// program, and initialise themselves in each pod.
func outside(path string) (lock.Server, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil)
	client, err := loader.ClientConfig()
	if err != nil {
		return lock.Server{}, "", fmt.Errorf("--kubeconfig %q: %w", path, err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return lock.Server{}, "", fmt.Errorf("--kubeconfig %q: %w", path, err)
	}
	client.UserAgent = userAgent()
	server, err := kube.ServerOf(client)
	if err != nil {
		return lock.Server{}, "", fmt.Errorf("--kubeconfig %q: %w", path, err)
	}
	return server, namespace, nil
}
