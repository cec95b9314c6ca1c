package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Peer is the package of the sidecar with client-go that elector's is compared with.
const Peer = "./test/bench/peer"

// Programs are built for one run.
type Programs struct {
	// Dir is theirs alone at first. Pods may read it, whoever they run as.
	Dir string
}

// Build builds packages of the repository, ./cmd/elector or the like, as those of the images are. The programs have to be removed.
func Build(ctx context.Context, root string, packages ...string) (Programs, error) {
	dir, err := os.MkdirTemp("", "elector-bench-")
	if err != nil {
		return Programs{}, fmt.Errorf("making a directory for programs: %w", err)
	}
	p := Programs{Dir: dir}
	for _, pkg := range packages {
		cmd := exec.CommandContext(ctx, "go", "build", "-tags", "incluster", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", p.Of(pkg), pkg)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if said, err := cmd.CombinedOutput(); err != nil {
			return p, errors.Join(fmt.Errorf("building %s: %w\n%s", pkg, err, said), p.Remove())
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return p, errors.Join(fmt.Errorf("letting pods run programs: %w", err), p.Remove())
	}
	return p, nil
}

// Of is the path of the program of a package.
func (p Programs) Of(pkg string) string { return filepath.Join(p.Dir, filepath.Base(pkg)) }

// Remove removes them.
func (p Programs) Remove() error {
	if err := os.RemoveAll(p.Dir); err != nil {
		return fmt.Errorf("removing programs: %w", err)
	}
	return nil
}
