// Package house holds the rules of the house that a compiler does not: which way imports point, and how big the sidecar may be.
package house

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLook looks at every file of the repository: the other tests depend on them through programs that they run, and this way
// `go test` knows when what it has cached is out of date.
func TestLook(t *testing.T) {
	t.Parallel()
	if err := filepath.WalkDir(root(t), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "bin" || entry.Name() == ".cluster" || entry.Name() == ".e2e"):
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		}
		_, err = os.Stat(path)
		return err
	}); err != nil {
		t.Fatal("looking at the repository:", err)
	}
}

const module = "github.com/elector-io/elector/"

// dependencies are all packages that a package is built from.
func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

// Imports point one way: cmd -> internal -> inject -> elector, and elector/kube -> elector.
func TestImports(t *testing.T) {
	t.Parallel()
	client := []string{"k8s.io/client-go", "k8s.io/apimachinery", "k8s.io/api", "sigs.k8s.io", "net/http/httptest", "testing"}
	tests := map[string]struct {
		// own are the packages of this module that may be linked, beside the package's internal ones.
		own []string
		// not are prefixes of what must not be.
		not    []string
		reason string
	}{
		"elector": {
			not:    client,
			reason: "the engine elects over anything; what it knows of Kubernetes is a lock's record",
		},
		"elector/kube": {
			own:    []string{"elector", "elector/kube/lock"},
			not:    []string{"k8s.io/client-go/kubernetes", "k8s.io/client-go/informers", "k8s.io/client-go/tools/leaderelection", "k8s.io/api/core/v1"},
			reason: "locks need no client but that of package lock",
		},
		"elector/kube/lock": {
			own:    []string{"elector", "elector/kube/internal/record"},
			not:    []string{"k8s.io/client-go", "k8s.io/api", "k8s.io/apimachinery", "golang.org/x/net"},
			reason: "the sidecar is tiny: Kubernetes' libraries cost it 4 MB, and memory in each pod",
		},
		"inject": {
			own:    []string{"elector", "elector/gate"},
			not:    []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"},
			reason: "injection is a pure function of the pod",
		},
		"cmd/elector": {
			own:    []string{"elector", "elector/gate", "elector/kube", "elector/kube/lock", "elector/kube/internal/record", "cmd/internal/listen", "cmd/internal/program"},
			not:    []string{"k8s.io/client-go/kubernetes", "k8s.io/client-go/informers", "k8s.io/api/core/v1", "sigs.k8s.io/controller-runtime"},
			reason: "the sidecar is tiny: it runs once per pod",
		},
		"elector/gate": {
			own:    []string{"elector/internal/boottime"},
			not:    []string{"k8s.io", "net", "os/exec"},
			reason: "the gate is in every gated container, and is all that one is given",
		},
		"cmd/webhook": {
			own:    []string{"elector", "elector/gate", "elector/kube", "elector/kube/lock", "elector/kube/internal/record", "inject", "cmd/internal/fitness", "cmd/internal/listen", "cmd/internal/object", "cmd/internal/program", "cmd/internal/rights"},
			not:    []string{"k8s.io/kubernetes"},
			reason: "the manager's packages are its own",
		},
		"cmd/kubectl-elector": {
			own:    []string{"elector", "elector/gate", "elector/kube", "elector/kube/lock", "elector/kube/internal/record", "inject", "cmd/internal/fitness", "cmd/internal/object", "cmd/internal/rights"},
			not:    []string{"sigs.k8s.io/controller-runtime", "k8s.io/kubectl"},
			reason: "the plugin is downloaded by people, and shares with the manager what is pure",
		},
		"test/judge": {
			not:    []string{"k8s.io", "sigs.k8s.io", "golang.org", "net", "testing"},
			reason: "every kind of test asks the judge, also those inside package elector and those in virtual time",
		},
	}
	for pkg, test := range tests {
		t.Run(pkg, func(t *testing.T) {
			t.Parallel()
			for _, dep := range dependencies(t, module+pkg) {
				own, ok := strings.CutPrefix(dep, module)
				// What is internal to a package comes with it.
				parent, _, _ := strings.Cut(own, "/internal/")
				if ok && own != pkg && parent != pkg && !slices.Contains(test.own, own) && !slices.Contains(test.own, parent) {
					t.Errorf("%s links %s: %s", pkg, own, test.reason)
				}
				for _, prefix := range test.not {
					if dep == prefix || strings.HasPrefix(dep, prefix+"/") {
						t.Errorf("%s links %s: %s", pkg, dep, test.reason)
					}
				}
			}
		})
	}
}

// The embedded cluster is a module of its own, so that users of the library do not get Kubernetes whole.
func TestNoKubernetesInModule(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "all").Output()
	if err != nil {
		t.Fatal("go list -m all:", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "k8s.io/kubernetes ") {
			t.Errorf("go.mod requires %s", line)
		}
	}
}

// maxSidecar is what the sidecar may weigh: one copy of it is pulled and kept by every node.
const maxSidecar = 8_000_000

func TestSidecarIsSmall(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "elector")
	// As `make image` builds it.
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "incluster", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=v0.0.0", "-o", program, "./cmd/elector")
	build.Dir = root(t)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the sidecar: %v\n%s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxSidecar {
		t.Errorf("the sidecar has %d bytes, %d are allowed", info.Size(), maxSidecar)
	}
}
