//go:build integration

// Package integration tests elector whole: the real manager, installed with Helm, the real sidecar binary, and a real control plane
// with its admission, RBAC and garbage collection. Pods are processes of the embedded cluster, so kubelets, images and network
// namespaces are not what is tested here.
//
// The tests share one cluster and have a namespace each. The app in their pods is a witness, which writes down what it sees of
// leadership in every way that elector offers; a standby's costs next to no CPU while nothing changes. The judge decides at the end
// of each test whether two led at a time.
package integration

import (
	"context"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/test/embedded"
)

// cluster is the one that all tests share.
var cluster *embedded.Cluster

func TestMain(m *testing.M) {
	os.Exit(embedded.Main(m.Run, embedded.Config{Progress: os.Stdout, Install: true}, &cluster))
}

func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	cluster.Eventually(t, what, check)
}

// space is a test's own namespace.
type space struct {
	t    *testing.T
	name string
}

// newSpace makes the namespace. When the test has failed, its pods' state and logs are shown.
func newSpace(t *testing.T) *space {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("Test", "", "/", "-", "_", "-").Replace(t.Name()))
	s := &space{t: t, name: name}
	namespaces := cluster.Client().CoreV1().Namespaces()
	if _, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal("making a namespace:", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.describe()
		}
		if err := namespaces.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error("removing the namespace:", err)
		}
	})
	eventually(t, "the namespace's ServiceAccount", func(ctx context.Context) error {
		_, err := cluster.Client().CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return s
}

// describe shows what a person would look at after a failure.
func (s *space) describe() {
	s.t.Helper()
	cluster.Show(s.t, s.name,
		[]string{"get", "pods,leases,configmaps,roles,rolebindings", "-o", "wide"},
		[]string{"get", "events", "--sort-by=.lastTimestamp"},
		[]string{"logs", "-l", "elector.io/injected=true", "-c", "elector", "--prefix", "--tail", "40"},
	)
}

// kubectl runs a command as a person would, in the namespace.
func (s *space) kubectl(args ...string) string {
	s.t.Helper()
	out, err := cluster.Kubectl(s.t.Context(), append([]string{"-n", s.name}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
