//go:build integration

// Package chart tests the Helm chart on a real control plane: that the API server accepts all that it renders, with the real definitions
// of cert-manager's and the Prometheus operator's resources; that its pods satisfy Pod Security's level restricted; and that to
// install, upgrade, roll back and uninstall it leaves elected workloads alone. What it renders and refuses without a cluster is tested
// in test/chart, whose goldens are used here.
package chart

import (
	"context"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/test/embedded"
)

// cluster is the one that all tests share. Nothing is installed in it.
var cluster *embedded.Cluster

func TestMain(m *testing.M) {
	os.Exit(embedded.Main(m.Run, embedded.Config{Progress: os.Stdout}, &cluster))
}

func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	cluster.Eventually(t, what, check)
}

// helm runs Helm as a person would and returns what it says.
func helm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := cluster.Helm(t.Context(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// kubectl runs a command, with input, as a person would.
func kubectl(t *testing.T, input string, args ...string) string {
	t.Helper()
	cmd := cluster.Kubectl(t.Context(), args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newNamespace makes a namespace and waits until pods can be created in it.
func newNamespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := cluster.Client().CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal("making a namespace:", err)
	}
	eventually(t, "the namespace's ServiceAccount", func(ctx context.Context) error {
		_, err := cluster.Client().CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// restricted are the labels of a namespace where Pod Security is strict, and says so for workloads, too.
var restricted = map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
