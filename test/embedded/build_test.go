package embedded

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestBuild(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("there is no make")
	}
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Two at a time would find the other's mark.
	write("Makefile", "build:\n\t@mkdir busy && cp source bin/program && rmdir busy\n")
	for _, source := range []string{"first", "second"} {
		write("source", source)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if err := build(t.Context(), root, []string{"build"}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if program, err := os.ReadFile(filepath.Join(root, "bin", "program")); err != nil || string(program) != source {
			t.Errorf("the program is of the source %q, want %q: %v", program, source, err)
		}
	}
	write("Makefile", "build:\n\t@echo it does not compile; exit 1\n")
	err := build(t.Context(), root, []string{"build"})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(err.Error(), "it does not compile") {
		t.Errorf("a build that failed: %v", err)
	}
}

// The targets are what the Makefile has, and what is run is among what they make.
func TestTargets(t *testing.T) {
	t.Parallel()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), "make", append([]string{"-n", "-C", root}, targets...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, pkg := range []string{"./cmd/elector", "./cmd/webhook", "bin/cluster", "./test/witness/app"} {
		if !strings.Contains(string(said), pkg) {
			t.Errorf("%s is not built by\n%s", pkg, said)
		}
	}
}
