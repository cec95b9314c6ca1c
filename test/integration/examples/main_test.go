//go:build integration

// Package examples applies what examples/ and docs/active-passive.md give to people in a hurry, as it stands there: on a real control
// plane, with the manager installed with Helm. Images are not pulled: the embedded cluster runs a pod's commands with this machine's
// busybox and Python.
package examples

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

// cluster is the one that all tests share.
var cluster *embedded.Cluster

func TestMain(m *testing.M) {
	tests := func() int {
		code := m.Run()
		if err := stopPostgres(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}
	os.Exit(embedded.Main(tests, embedded.Config{Progress: os.Stdout, Install: true}, &cluster))
}

// lookFor skips a test whose program is not there, which does not happen in CI.
func lookFor(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("not tested without it:", err)
			}
			t.Skip("not tested without it:", err)
		}
	}
}

// root is the top of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := embedded.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{root(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// space is a test's own namespace.
type space struct {
	t    *testing.T
	name string
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{t: t, name: strings.ToLower(strings.NewReplacer("Test", "", "/", "-", "_", "-", ".yaml", "").Replace(t.Name()))}
	namespaces := cluster.Client().CoreV1().Namespaces()
	if _, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal("making a namespace:", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.describe()
		}
		if err := namespaces.Delete(context.WithoutCancel(t.Context()), s.name, metav1.DeleteOptions{}); err != nil {
			t.Error("removing the namespace:", err)
		}
	})
	return s
}

// shell runs a script at the top of the repository, with kubectl, its plugin and helm as a person has them who works in the namespace.
func (s *space) shell(script string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	config, err := os.ReadFile(cluster.Kubeconfig())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kubeconfig"), config, 0o600); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), embedded.Patience)
	defer cancel()
	for name, path := range map[string]string{
		"kubectl": cluster.Kubectl(ctx).Path, "helm": cluster.Helm(ctx).Path, "kubectl-elector": cluster.Program("kubectl-elector"),
	} {
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			s.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", "kubectl config set-context --current --namespace="+s.name+" >/dev/null\n"+script)
	cmd.Dir = root(s.t)
	cmd.Env = slices.Concat(cluster.Helm(ctx).Env, []string{"KUBECONFIG=" + filepath.Join(dir, "kubeconfig"), "PATH=" + dir + ":" + os.Getenv("PATH")})
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// kubectl runs a command in the namespace, at the top of the repository.
func (s *space) kubectl(args ...string) string {
	s.t.Helper()
	cmd := cluster.Kubectl(s.t.Context(), append([]string{"-n", s.name}, args...)...)
	cmd.Dir = root(s.t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// describe shows what a person would look at after a failure.
func (s *space) describe() {
	s.t.Helper()
	cluster.Show(s.t, s.name,
		[]string{"get", "pods,leases,configmaps,services,endpointslices", "-o", "wide"},
		[]string{"get", "events", "--sort-by=.lastTimestamp"},
		[]string{"logs", "-l", "elector.io/injected=true", "--all-containers", "--prefix", "--tail", "30"},
	)
}

// apply applies a file of examples/. Nothing in it may bring a warning.
func (s *space) apply(file string) {
	s.t.Helper()
	if out := s.kubectl("apply", "-f", filepath.Join("examples", file)); strings.Contains(out, "Warning") {
		s.t.Errorf("applying %s says\n%s", file, out)
	}
}

func (s *space) eventually(what string, check func(context.Context) error) {
	s.t.Helper()
	cluster.Eventually(s.t, what, check)
}

// leader waits until exactly one pod of an app is labelled leader, another than the one named.
func (s *space) leader(app, not string) (name string) {
	s.t.Helper()
	s.eventually("a leader of "+app, func(ctx context.Context) error {
		pods, err := cluster.Client().CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app + "," + inject.LabelRole + "=leader"})
		if err != nil {
			return err
		}
		if len(pods.Items) != 1 || pods.Items[0].Name == not {
			return fmt.Errorf("%d pods are labelled", len(pods.Items))
		}
		name = pods.Items[0].Name
		return nil
	})
	return name
}

// says waits until the log of a pod's app has a line.
func (s *space) says(pod, line string) {
	s.t.Helper()
	s.eventually(pod+" to say "+line, func(ctx context.Context) error {
		log, err := cluster.Client().CoreV1().Pods(s.name).GetLogs(pod, &corev1.PodLogOptions{Container: strings.SplitN(pod, "-", 2)[0]}).DoRaw(ctx)
		if err != nil {
			return err
		}
		if !strings.Contains("\n"+string(log), "\n"+line+"\n") {
			return errors.New("it says " + string(log))
		}
		return nil
	})
}
