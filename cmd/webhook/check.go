package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/internal/program"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// checkName is the command that `helm test` runs: webhook check.
const checkName = "check"

// checkPause is between two tries.
const checkPause = time.Second

// checkCommand asks the API server, by a dry run, whether a pod that asks for the
// sidecar gets it. It may create pods in one namespace and needs no other right.
func checkCommand(args []string, getenv func(string) string, stdout, stderr io.Writer) (exitCode int) {
	p := program.Program{
		Name: "webhook " + checkName, Version: version, Prefix: "ELECTOR_WEBHOOK_",
		About: "webhook check creates, by a server-side dry run, a pod that asks for the sidecar, and fails if it does not get it.",
		Flags: []program.Flag{
			{Name: "namespace", Help: "namespace of the pod (required)", Others: []string{"POD_NAMESPACE"}},
			{Name: "timeout", Default: "30s", Help: "how long to try"},
			{Name: "kubeconfig", Help: "kubeconfig file (default: the pod's service account)"},
		},
	}
	failed := false
	exitCode = p.Main(args, getenv, stdout, stderr, func(v program.Values) (func(context.Context) error, error) {
		cfg := config{namespace: v.Text("namespace"), kubeconfig: v.Text("kubeconfig")}
		if cfg.namespace == "" {
			return nil, &elector.FieldError{Field: "--namespace", Allowed: "it is required"}
		}
		timeout, err := time.ParseDuration(v.Text("timeout"))
		if err != nil || timeout <= 0 {
			return nil, &elector.FieldError{Field: "--timeout", Value: v.Text("timeout"), Allowed: "use a duration above 0 such as 30s"}
		}
		return func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			image, err := cfg.injected(ctx)
			if err != nil {
				failed = true
				fmt.Fprintf(stderr, "%s: %v\n", p.Name, err) // for a person, not a log
				return nil
			}
			fmt.Fprintf(stdout, "A pod that asks for it gets the sidecar, with image %s.\n", image)
			return nil
		}, nil
	})
	if failed {
		return 1
	}
	return exitCode
}

// injected returns the image of the sidecar that a pod gets. It tries until ctx
// ends: just after an installation the webhook may not be reachable yet.
func (c *config) injected(ctx context.Context) (image string, err error) {
	restConfig, err := c.client()
	if err != nil {
		return "", err
	}
	api, err := client.New(restConfig, client.Options{Mapper: kinds()})
	if err != nil {
		return "", fmt.Errorf("making a client: %w", err)
	}
	last := errors.New("the API server did not answer in time")
	_ = wait.PollUntilContextCancel(ctx, checkPause, true, func(ctx context.Context) (bool, error) {
		pod := askingPod(c.namespace)
		if err := api.Create(ctx, pod, client.DryRunAll); err != nil {
			if ctx.Err() == nil {
				last = fmt.Errorf("creating a pod (dry run): %w", err)
			}
			return false, nil
		}
		i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerName })
		if i < 0 {
			last = errors.New("the API server accepts the pod without the sidecar: it does not call the webhook, see the MutatingWebhookConfiguration and its selectors")
			return false, nil
		}
		image, last = pod.Spec.InitContainers[i].Image, nil
		return true, nil
	})
	return image, last
}

// askingPod is a pod that every Pod Security level accepts.
func askingPod(namespace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "elector-check", Annotations: map[string]string{inject.AnnotationEnabled: "true"}},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "app", Image: "app",
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}
