//go:build integration

// Package rights does, on a real control plane, what somebody would who has taken over the manager's ServiceAccount, with its own token:
// the chart's admission policies refuse it, each with its own sentence, and they refuse nothing that the manager needs. Every request
// is a dry run: it goes through authorisation and admission, and nothing comes of it.
package rights

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/test/embedded"
)

// cluster has the manager installed as a user would.
var cluster *embedded.Cluster

const (
	system  = "elector-system"
	manager = "elector-webhook" // also its ServiceAccount's name
	shop    = "shop"
)

func TestMain(m *testing.M) {
	os.Exit(embedded.Main(m.Run, embedded.Config{Progress: os.Stdout, Install: true}, &cluster))
}

func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	cluster.Eventually(t, what, check)
}

// configOf has a token of the manager's ServiceAccount and nothing else.
func configOf(t *testing.T) *rest.Config {
	t.Helper()
	token, err := cluster.Client().CoreV1().ServiceAccounts(system).CreateToken(t.Context(), manager, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal("asking for a token:", err)
	}
	cfg := rest.AnonymousClientConfig(cluster.RESTConfig())
	cfg.BearerToken, cfg.QPS = token.Status.Token, -1
	return cfg
}

// asManager is a client with the manager's token.
func asManager(t *testing.T) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(configOf(t))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// kubectl runs a command as the administrator.
func kubectl(t *testing.T, args ...string) {
	t.Helper()
	out, err := cluster.Kubectl(t.Context(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// upgrade changes values of the installed release.
func upgrade(ctx context.Context, values ...string) error {
	args := []string{"upgrade", "elector", cluster.Chart(), "--namespace", system, "--reset-then-reuse-values", "--wait", "--timeout", "60s"}
	for _, v := range values {
		args = append(args, "--set", v)
	}
	if out, err := cluster.Helm(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("helm upgrade: %w\n%s", err, out)
	}
	return nil
}

// awaitReplicas waits until there are two pods of the manager, other than those given, and both are ready.
func awaitReplicas(t *testing.T, not []corev1.Pod) (pods []corev1.Pod) {
	t.Helper()
	eventually(t, "the manager's replicas", func(ctx context.Context) error {
		list, err := cluster.Client().CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
		if err != nil {
			return err
		}
		ready := 0
		for _, pod := range list.Items {
			for _, old := range not {
				if pod.UID == old.UID {
					return fmt.Errorf("%s is still there", pod.Name)
				}
			}
			for _, c := range pod.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if pods = list.Items; ready != 2 || len(pods) != 2 {
			return fmt.Errorf("%d pods, %d of them ready", len(pods), ready)
		}
		return nil
	})
	return pods
}
