package toolchain

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestContentHash(t *testing.T) {
	base := Config{GoMod: []byte("module a"), GoSum: []byte("sum")}
	same := contentHash(base, []string{"-trimpath"}, "go1.26.0")
	tests := map[string]struct {
		reason  string
		cfg     Config
		flags   []string
		version string
		want    bool
	}{
		"Same":       {reason: "nothing changed", cfg: Config{GoMod: []byte("module a"), GoSum: []byte("sum"), Cache: "elsewhere"}, flags: []string{"-trimpath"}, version: "go1.26.0", want: true},
		"OtherMod":   {reason: "another version pinned", cfg: Config{GoMod: []byte("module b"), GoSum: []byte("sum")}, flags: []string{"-trimpath"}, version: "go1.26.0"},
		"OtherSum":   {reason: "another checksum", cfg: Config{GoMod: []byte("module a"), GoSum: []byte("mus")}, flags: []string{"-trimpath"}, version: "go1.26.0"},
		"OtherFlags": {reason: "other flags make other programs", cfg: base, flags: nil, version: "go1.26.0"},
		"OtherGo":    {reason: "another compiler makes other programs", cfg: base, flags: []string{"-trimpath"}, version: "go1.27.0"},
		"Shifted":    {reason: "the border between two files counts", cfg: Config{GoMod: []byte("module as"), GoSum: []byte("um")}, flags: []string{"-trimpath"}, version: "go1.26.0"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := contentHash(tc.cfg, tc.flags, tc.version) == same; got != tc.want {
				t.Errorf("%s: same hash %t, want %t", tc.reason, got, tc.want)
			}
		})
	}
}

func TestKubernetesVersion(t *testing.T) {
	tests := map[string]struct{ reason, goMod, want string }{
		"Block":  {"in a block of requirements", "require (\n\tk8s.io/klog/v2 v2.1.0\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\n", "v1.36.3"},
		"Single": {"on a line of its own", "require k8s.io/kubernetes v1.40.0\n", "v1.40.0"},
		"Tool":   {"a tool's path is no requirement", "tool (\n\tk8s.io/kubernetes/cmd/kubectl\n)\n", "v0.0.0"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := kubernetesVersion([]byte(tc.goMod)); got != tc.want {
				t.Errorf("%s: got %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
}

// TestWarmBuildRunsNoCompiler: what is in the cache is used as it is, without a go command, a network, or a word.
func TestWarmBuildRunsNoCompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var progress bytes.Buffer
	cfg := Config{GoMod: []byte("module a"), Cache: t.TempDir(), Progress: &progress}
	if _, err := Build(t.Context(), cfg, ControlPlane); err == nil {
		t.Fatal("a cold build succeeded without a go command")
	}
	progress.Reset()
	homes, err := filepath.Glob(filepath.Join(cfg.Cache, "*.lock"))
	if err != nil || len(homes) != 1 {
		t.Fatalf("locks %q, error %v, want one", homes, err)
	}
	want := filepath.Join(strings.TrimSuffix(homes[0], ".lock"), "bin")
	if err := os.MkdirAll(want, 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := Build(t.Context(), cfg, ControlPlane)
	if err != nil || got != want || progress.Len() > 0 {
		t.Errorf("got %q, error %v, progress %q, want %q and silence", got, err, progress.String(), want)
	}
}

func TestSecondBuilderWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var progress bytes.Buffer
	unlock, err := lock(t.Context(), path, &progress)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path, &progress); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v while another builder holds the lock", err)
	}
	if !strings.Contains(progress.String(), "waiting") {
		t.Errorf("the second builder says %q, want why it waits", progress.String())
	}
	unlock()
	again, err := lock(t.Context(), path, &progress)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestPruneKeepsWhatIsUsed(t *testing.T) {
	cache := t.TempDir()
	old := time.Now().Add(-2 * unusedFor)
	for name, at := range map[string]time.Time{"keep": old, "used": time.Now(), "unused": old} {
		home := filepath.Join(cache, name)
		if err := errors.Join(os.MkdirAll(filepath.Join(home, "bin"), 0o755), os.Chtimes(home, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	foreign := filepath.Join(cache, "foreign")
	if err := errors.Join(os.Mkdir(foreign, 0o755), os.Chtimes(foreign, old, old)); err != nil {
		t.Fatal(err)
	}
	if err := prune(cache, filepath.Join(cache, "keep")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"keep": true, "used": true, "unused": false, "foreign": true} {
		if _, err := os.Stat(filepath.Join(cache, name)); (err == nil) != want {
			t.Errorf("%s is there: %t, want %t", name, err == nil, want)
		}
	}
}

func TestPathKnowsItsTools(t *testing.T) {
	if got, err := Path("/bin", "kubectl"); err != nil || got != "/bin/kubectl" {
		t.Errorf("got %q, error %v", got, err)
	}
	if _, err := Path("/bin", "kube-lettuce"); err == nil {
		t.Error("an unknown tool has a path")
	}
}

// TestSetsAreApart: asking for a cluster's control plane must not find, or compile, what only nodes need.
func TestSetsAreApart(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	cfg := Config{GoMod: []byte("module a"), Cache: t.TempDir(), Progress: io.Discard}
	for _, set := range []Set{ControlPlane, Node} {
		for name := range set.packages {
			if got, err := SetOf(name); err != nil || got.suffix != set.suffix {
				t.Errorf("%s is in %q, error %v, want %q", name, got, err, set)
			}
		}
	}
	home := filepath.Join(cfg.Cache, contentHash(cfg, buildFlags(cfg.GoMod), runtime.Version()))
	if err := os.MkdirAll(filepath.Join(home, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), cfg, ControlPlane); err != nil {
		t.Errorf("the control plane is there, got %v", err)
	}
	if bin, err := Build(t.Context(), cfg, Node); err == nil {
		t.Errorf("got %s for the nodes, which nobody compiled", bin)
	}
}
