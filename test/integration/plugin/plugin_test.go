//go:build integration

// Package plugin tests kubectl's plugin as people use it, by scripts: `kubectl elector ...` with the cluster's own kubectl, on a real
// control plane with the manager installed.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/test/embedded"
)

// cluster is the one that all tests share.
var cluster *embedded.Cluster

func TestMain(m *testing.M) {
	os.Exit(embedded.Main(m.Run, embedded.Config{Progress: os.Stdout, Install: true}, &cluster))
}

// TestScripts runs testdata/*.txt, each in a namespace of its own, $NS, which is the kubeconfig's. Beside testscript's commands there are
//
//	await REGEXP COMMAND ARGS...   waits until the command succeeds and its output matches
func TestScripts(t *testing.T) {
	t.Parallel()
	run(t, scripts(t, "testdata", "*.txt")...)
}

// TestAlone runs what breaks the installation, and mends it, one after the other, before the others begin.
func TestAlone(t *testing.T) {
	for _, file := range scripts(t, "testdata", "alone", "*.txt") {
		if !t.Run(filepath.Base(file), func(t *testing.T) { run(t, file) }) { // a script is parallel, and ends with this
			t.FailNow() // what it broke is not mended
		}
	}
}

func scripts(t *testing.T, pattern ...string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(pattern...))
	if err != nil || len(files) == 0 {
		t.Fatal("there are no scripts:", err)
	}
	return files
}

func run(t *testing.T, files ...string) {
	t.Helper()
	programs := t.TempDir()
	for name, path := range map[string]string{
		"kubectl": cluster.Kubectl(t.Context()).Path, "helm": cluster.Helm(t.Context()).Path, "kubectl-elector": cluster.Program("kubectl-elector"),
	} {
		if err := os.Symlink(path, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Files: files, UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error { return setUp(env, programs) },
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"await": await},
	})
}

// setUp makes the script's namespace and a kubeconfig for it.
func setUp(env *testscript.Env, programs string) error {
	ctx, cancel := context.WithTimeout(context.Background(), embedded.Patience)
	defer cancel()
	namespace := "script-" + strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
	namespaces := cluster.Client().CoreV1().Namespaces()
	if _, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making a namespace: %w", err)
	}
	env.Defer(func() {
		_ = namespaces.Delete(context.Background(), namespace, metav1.DeleteOptions{}) // the cluster is about to go
	})
	kubeconfig := filepath.Join(env.WorkDir, ".kubeconfig")
	data, err := os.ReadFile(cluster.Kubeconfig())
	if err != nil {
		return err
	}
	if err := os.WriteFile(kubeconfig, data, 0o600); err != nil {
		return err
	}
	set := cluster.Kubectl(ctx, "--kubeconfig", kubeconfig, "config", "set-context", "--current", "--namespace", namespace)
	if out, err := set.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	env.Setenv("KUBECONFIG", kubeconfig)
	env.Setenv("NS", namespace)
	env.Setenv("ESC", "\x1b")
	env.Setenv("PROGRAMS", programs)
	env.Setenv("PATH", programs+string(filepath.ListSeparator)+env.Getenv("PATH"))
	return nil
}

// await waits until a command succeeds and says what is wanted.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await REGEXP COMMAND ARGS...")
	}
	wanted, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), embedded.Patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last []byte
	for {
		cmd := exec.CommandContext(ctx, args[1], args[2:]...)
		if program := filepath.Join(ts.Getenv("PROGRAMS"), args[1]); exists(program) {
			cmd = exec.CommandContext(ctx, program, args[2:]...)
		}
		cmd.Env = append(os.Environ(), "KUBECONFIG="+ts.Getenv("KUBECONFIG"), "PATH="+ts.Getenv("PATH"))
		cmd.Dir = ts.Getenv("WORK")
		out, err := cmd.CombinedOutput()
		if err == nil && wanted.Match(out) {
			ts.Logf("%s", out)
			return
		}
		if ctx.Err() == nil {
			last = out
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s does not match: %v\n%s", args[0], errors.Join(err, ctx.Err()), last)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
