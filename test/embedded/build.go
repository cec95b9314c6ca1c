package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// targets are the programs that a cluster runs, as the Makefile calls them.
var targets = []string{"build", "bin/cluster", "bin/witness"}

// build makes the programs in bin what the checkout's source says, with the Makefile's own commands: what a test or a benchmark runs
// is never older than what it was compiled from. When nothing changed that takes about a second.
//
// Several processes may build at a time; they take turns. A program that somebody runs goes on as it was.
func build(ctx context.Context, root string, targets []string) error {
	unlock, err := lock(filepath.Join(root, "bin"))
	if err != nil {
		return fmt.Errorf("building the programs: %w", err)
	}
	defer unlock()
	cmd := exec.CommandContext(ctx, "make", targets...)
	cmd.Dir = root
	// Its own process group, so that the compiler ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	said, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("there is no make, so nobody knows whether the programs in bin are those of this source: %w", err)
	case err != nil:
		return fmt.Errorf("building the programs with `make %s`: %w\n%s", strings.Join(targets, " "), errors.Join(context.Cause(ctx), err), said)
	}
	return nil
}

// lock takes an flock, which the kernel frees when its holder dies. Waiting for it ends with the other's build.
func lock(bin string) (unlock func(), err error) {
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of the programs: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(bin, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the programs: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking the programs: %w", err)
		}
	}
}
