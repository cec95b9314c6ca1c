package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// subject is one of the injectors.
type subject struct {
	name string
	// program is its package, and where its module is, below this directory.
	module, program string
	// library is the module whose version it is. Empty: this repository.
	library string
	// sidecar is the container that it adds.
	sidecar string
}

// The subjects: elector is the first, and the usual way the second.
var subjects = []subject{
	{name: "elector", module: "ours", program: "webhook", sidecar: "elector"},
	{name: "controller-runtime", module: "ours", program: "plain", library: "sigs.k8s.io/controller-runtime", sidecar: "elector"},
	{name: "Dapr", module: "dapr", program: ".", library: "github.com/dapr/dapr", sidecar: "daprd"},
	{name: "Istio", module: "istio", program: ".", library: "istio.io/istio", sidecar: "istio-proxy"},
}

// directory is this one, from the root of the repository.
const directory = "test/bench/injectors"

func (s subject) directory(root string) string { return filepath.Join(root, directory, s.module) }

// build makes the program, with the flags of `make mesh`, so that what that compiles of Istio is compiled once.
func (s subject) build(ctx context.Context, root, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", to, "./"+s.program)
	cmd.Dir = s.directory(root)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", s.name, err, said)
	}
	return nil
}

// said is what a subject says of itself: see Report of module subject.
type said struct {
	URL, CA  string
	Versions map[string]string
	Reviews  []struct {
		CPU                    []time.Duration
		Whole                  time.Duration
		Allocations, Allocated float64
		Answer                 json.RawMessage
	}
}

// process is a subject that runs.
type process struct {
	said
	cmd   *exec.Cmd
	stdin io.Closer
	log   *os.File
}

// start runs the program, and returns when it has measured itself and serves.
func (s subject) start(ctx context.Context, root, program string, window time.Duration, files ...string) (p *process, err error) {
	log, err := os.CreateTemp(filepath.Dir(program), "log-")
	if err != nil {
		return nil, fmt.Errorf("making a file for what %s says: %w", s.name, err)
	}
	p = &process{cmd: exec.CommandContext(ctx, program, append([]string{"-for", window.String()}, files...)...), log: log}
	p.cmd.Dir, p.cmd.Stderr = s.directory(root), log // a file: to read a pipe would take time from what is measured
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.name, err)
	}
	p.stdin = stdin
	report, to, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.name, err)
	}
	defer report.Close()
	p.cmd.ExtraFiles = []*os.File{to} // file descriptor 3
	err = p.cmd.Start()
	to.Close()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.name, err)
	}
	if err := json.NewDecoder(report).Decode(&p.said); err != nil {
		return nil, errors.Join(fmt.Errorf("waiting for %s: %w", s.name, err), p.stop(), p.complaint())
	}
	return p, nil
}

// stop ends it, and waits for that.
func (p *process) stop() error {
	defer p.log.Close()
	return errors.Join(p.stdin.Close(), p.cmd.Wait())
}

// complaint is the end of what it said.
func (p *process) complaint() error {
	const most = 2 << 10
	text, err := os.ReadFile(p.log.Name())
	return errors.Join(err, fmt.Errorf("it said: %s", bytes.TrimSpace(text[max(0, len(text)-most):])))
}
