package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// verdict is what became of a mutant.
type verdict string

const (
	killed     verdict = "killed"
	survived   verdict = "survived"
	timedOut   verdict = "timed out"       // killed, too
	uncompiled verdict = "did not compile" // not counted
	listedAs   verdict = "equivalent"      // not counted
)

// result is a mutant that was tried.
type result struct {
	mutant
	verdict verdict
	// by is the step that killed it, and the test if that is known; or what the compiler said.
	by            string
	building, run time.Duration
}

// laboratory runs tests of a module with mutants in the place of files. It never writes into the module's tree.
type laboratory struct {
	root string
	// dir is for what is built.
	dir string
	// timeout is for one step of one mutant; a step that takes longer than half of it without a mutant gets twice what it takes. It is
	// processor time, so that what else the machine does kills no mutant.
	timeout time.Duration
	// took is how much of it each step takes without a mutant; steps without tests are not in it.
	took map[step]time.Duration
}

// maxMemory is the address space of a test's process, in KiB: a mutant may well fill whatever it gets.
const maxMemory = 8 << 20

// measure runs the steps of all plans without a mutant. All of them must pass.
func (l *laboratory) measure(ctx context.Context, plans []plan) error {
	l.took = map[step]time.Duration{}
	programs := map[string]string{}
	for _, p := range plans {
		for _, s := range p.steps {
			if _, done := l.took[s]; done {
				continue
			}
			program, ok := programs[s.pkg]
			if !ok {
				var err error
				if program, err = l.build(ctx, l.dir, "", s.pkg); err != nil {
					return err
				}
				programs[s.pkg] = program
			}
			if err := l.measureStep(ctx, program, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *laboratory) measureStep(ctx context.Context, program string, s step) error {
	if program == "" {
		return nil // a package without test files
	}
	list := exec.CommandContext(ctx, program, "-test.list", or(s.run, "."))
	list.Dir = filepath.Join(l.root, s.pkg)
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("listing the tests of %s: %w", s, err)
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return nil
	}
	text, took, err := l.test(ctx, program, s, time.Hour)
	if err != nil {
		return fmt.Errorf("the tests fail without a mutant: go test %s: %w\n%s", s, err, text)
	}
	l.took[s] = took
	return nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// compileError is the answer to a mutant that is no program.
type compileError struct{ output string }

func (e compileError) Error() string { return "compiling: " + e.output }

// build compiles the tests of a package into dir; the name that it returns is empty if there are none. Linking takes most of the time,
// and half of that with a table of symbols. The vet that `go test` does first would judge the mutant, which is not its job.
func (l *laboratory) build(ctx context.Context, dir, overlay, pkg string) (string, error) {
	program := filepath.Join(dir, strings.ReplaceAll(pkg, "/", "-")+".test")
	args := []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", program}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	command := exec.CommandContext(ctx, "go", append(args, "./"+pkg)...)
	command.Dir = l.root
	out, err := command.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", compileError{string(out)}
	}
	if _, err := os.Stat(program); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return program, nil
}

// patience is how many times its limit of processor time a step may take by the clock: what waits for ever takes no processor time.
const patience = 6

// test runs one step with a limit of processor time, and returns what it wrote and took. context.DeadlineExceeded says that it took more.
func (l *laboratory) test(ctx context.Context, program string, s step, limit time.Duration) (string, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience*limit)
	defer cancel()
	seconds := strconv.Itoa(int((limit + time.Second - 1) / time.Second)) // as the shell counts
	args := []string{"-c", `ulimit -v "$0" && ulimit -t "$1" && shift && exec "$@"`, strconv.Itoa(maxMemory), seconds, program,
		"-test.failfast", "-test.paniconexit0", "-test.timeout", "0", "-test.run", s.run}
	if s.skip != "" {
		args = append(args, "-test.skip", s.skip)
	}
	command := exec.CommandContext(ctx, "sh", args...)
	command.Dir = filepath.Join(l.root, s.pkg) // where `go test` runs it
	command.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(program))
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = time.Second
	err := command.Run()
	var took time.Duration
	if command.ProcessState != nil {
		took = command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	}
	switch {
	case command.ProcessState == nil: // it did not start
		return "", 0, err
	case err == nil:
		return out.String(), took, nil
	case ctx.Err() != nil:
		return out.String(), took, ctx.Err()
	case !command.ProcessState.Exited() && took >= limit/2: // the kernel killed it; on a busy machine it does not count as it reports
		return out.String(), took, context.DeadlineExceeded
	}
	return out.String(), took, err
}

// limit is how much processor time a step may take with a mutant.
func (l *laboratory) limit(s step) time.Duration { return max(l.timeout, 2*l.took[s]) }

// try finds out whether one of the steps notices a mutant, whose file is src.
func (l *laboratory) try(ctx context.Context, m mutant, src []byte, steps []step) (result, error) {
	r := result{mutant: m, verdict: survived}
	dir, err := os.MkdirTemp(l.dir, "")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // all of it goes with l.dir
	overlay, err := overlay(dir, filepath.Join(l.root, filepath.FromSlash(m.file)), src)
	if err != nil {
		return r, err
	}
	programs := map[string]string{}
	for _, s := range steps {
		program, ok := programs[s.pkg]
		if !ok {
			began := time.Now()
			program, err = l.build(ctx, dir, overlay, s.pkg)
			r.building += time.Since(began)
			if broken := (compileError{}); errors.As(err, &broken) {
				r.verdict, r.by = uncompiled, broken.output
				return r, nil
			} else if err != nil {
				return r, err
			}
			programs[s.pkg] = program
		}
		began := time.Now()
		out, took, err := l.test(ctx, program, s, l.limit(s))
		r.run += time.Since(began)
		switch {
		case ctx.Err() != nil:
			return r, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			r.verdict, r.by = timedOut, s.String()
			if took < l.limit(s)/2 {
				r.by += ", by the clock alone" // it waited for ever, or the machine was busy
			}
			return r, nil
		case err != nil:
			r.verdict, r.by = killed, s.String()
			if test := failedTest.FindStringSubmatch(out); test != nil {
				r.by += ": " + test[1]
			}
			return r, nil
		}
	}
	return r, nil
}

var failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// overlay writes src into dir, and the file that tells the go command to read it in path's place.
func overlay(dir, path string, src []byte) (string, error) {
	mutated := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(mutated, src, 0o600); err != nil {
		return "", err
	}
	data, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, data, 0o600)
}
