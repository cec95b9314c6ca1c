// Package sandbox runs a command the way a container runtime would, with the means an ordinary user has: new user, mount, PID and UTS
// namespaces, no images, no cgroups, and the host's network.
//
// What a command sees is the host's file system with its volumes mounted at their true paths, its image's binary at the image's
// entrypoint, an empty /run, a /proc with its own processes and its own host name. It is process 1 of its PID namespace, so it gets
// SIGTERM only if it handles it, as in a real container, and everything it started dies with it.
//
// Nothing survives this process: the kernel kills each container when its parent dies. No mount is visible outside.
// This is isolation enough to be true to life, not to hold a hostile program.
//
// A container starts by running this very program again; the package's init function recognises that by the name it is called by and
// never returns. Import paths decide the order of initialisation, so it runs before the heavy packages are set up.
package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The names by which this program is called again.
const (
	shimName  = "cluster-container"
	enterName = "cluster-exec"
)

// The descriptors a shim inherits next to its standard ones.
const (
	specFD  = 3
	errorFD = 4
)

func init() { //nolint:gochecknoinits // the only way to be early: see the package comment
	switch os.Args[0] {
	case shimName:
		shim()
	case enterName:
		enter()
	}
}

// Spec says what to run and what it sees.
type Spec struct {
	// Root is an existing empty directory on which the container's root is mounted, in its own mount namespace. Required.
	Root string
	// Binaries are programs of the host by the paths where they appear, as if the image had brought them. Optional.
	Binaries map[string]string
	// Argv is the command. Empty means to do nothing until SIGTERM.
	Argv []string
	// Env is the whole environment. The command is looked up in its PATH.
	Env []string
	// Dir is the working directory. Empty means /.
	Dir string
	// Hostname is what the command sees as the machine's name.
	Hostname string
	// Mounts are the volumes.
	Mounts []Mount
	// ReadOnlyRoot makes everything but the volumes read-only.
	ReadOnlyRoot bool
}

// Mount binds Source, a file or directory of the host, at the absolute path Target. A missing Target is made without touching the host.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// Process is a running container.
type Process struct {
	cmd  *exec.Cmd
	dir  string
	done chan struct{}
	exit Exit
}

// Exit is how a container ended.
type Exit struct {
	// Code is the exit code; 128 plus Signal if a signal ended it.
	Code int
	// Signal is the number of the signal that ended it, or 0.
	Signal int
	// At is when this process saw the end.
	At time.Time
}

// ErrForbidden means that this system does not let this user make containers.
var ErrForbidden = errors.New("this system does not let this user make namespaces and mount in them " +
	"(kernel.apparmor_restrict_unprivileged_userns, kernel.unprivileged_userns_clone, user.max_user_namespaces, or a surrounding container)")

// Check starts and ends a container in an existing empty directory. If that does not work it returns an error that wraps ErrForbidden.
func Check(dir string) error {
	p, err := Start(Spec{Root: dir, Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}}, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	<-p.Done()
	if code := p.Exit().Code; code != 0 {
		return fmt.Errorf("%w: exit code %d", ErrForbidden, code)
	}
	return nil
}

// Start runs a container with its output going to out. It returns when the command itself is running, or with the reason why it cannot.
func Start(spec Spec, out *os.File) (*Process, error) {
	specFile, err := marshalToFile(spec)
	if err != nil {
		return nil, err
	}
	defer specFile.Close()
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer errRead.Close()

	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{shimName},
		Env:         []string{"GOMAXPROCS=1", "GOGC=off"},
		Stdout:      out,
		Stderr:      out,
		ExtraFiles:  []*os.File{specFile, errWrite},
		SysProcAttr: namespaces(),
	}
	// Pdeathsig is tied to the thread that forks. Go ends a thread only when a goroutine locked to it ends, and no such goroutine starts containers.
	err = cmd.Start()
	errWrite.Close()
	if err != nil {
		return nil, fmt.Errorf("start a process in new namespaces: %w", err)
	}
	p := &Process{cmd: cmd, dir: filepath.Join("/", spec.Dir), done: make(chan struct{})}
	go p.wait()
	// The shim's end of the pipe closes at exec: nothing to read means the command runs.
	if reason, _ := io.ReadAll(errRead); len(reason) > 0 {
		<-p.done
		return nil, errors.New(string(reason))
	}
	return p, nil
}

// wait ends with the process. Whoever started the process owns this goroutine by waiting for Done.
func (p *Process) wait() {
	_ = p.cmd.Wait() // the state tells more
	p.exit.At = time.Now()
	p.exit.Code = p.cmd.ProcessState.ExitCode()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		p.exit.Signal = int(status.Signal())
		p.exit.Code = 128 + p.exit.Signal
	}
	close(p.done)
}

// Pid is the host's number of the container's first process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the container has ended, all its processes included.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit tells how it ended. Only valid after Done.
func (p *Process) Exit() Exit { return p.exit }

// Signal sends a signal to the first process. One that has ended is no error.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", p.Pid(), err)
	}
	return nil
}

// Handles tells whether the first process has a handler for a signal. One that comes before is lost: the kernel shields process 1 of a
// namespace from the default action.
func (p *Process) Handles(s syscall.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			caught, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && caught&(1<<(s-1)) != 0
		}
	}
	return false
}

// SignalAll sends a signal to every process of the container, until no new one appears.
func (p *Process) SignalAll(s syscall.Signal) error {
	if err := p.Signal(s); err != nil {
		return err
	}
	sent := map[int]bool{p.Pid(): true}
	for {
		pids, err := p.members()
		if err != nil {
			return err
		}
		more := false
		for _, pid := range pids {
			if !sent[pid] {
				sent[pid], more = true, true
				_ = unix.Kill(pid, s) // it may have ended
			}
		}
		if !more {
			return nil
		}
	}
}

// members are all processes in the container's PID namespace.
func (p *Process) members() ([]int, error) {
	mine, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.Pid()))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the container's namespace: %w", err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if theirs, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/pid")); err == nil && theirs == mine {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Command prepares a command inside the running container, in its working directory and with this environment. The caller sets standard streams and runs it.
// Ending the returned process ends the command.
func (p *Process) Command(argv, env []string) *exec.Cmd {
	return &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        append([]string{enterName, strconv.Itoa(p.Pid()), p.dir}, argv...),
		Env:         env,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
}

// namespaces maps this user to root of the container's own user namespace, which is what allows it to mount.
// Root keeps every identity it has, so that it can read what it can read outside.
func namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Pdeathsig:   syscall.SIGKILL,
		Setsid:      true,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if os.Getuid() == 0 {
		attr.UidMappings, attr.GidMappings = identity("/proc/self/uid_map"), identity("/proc/self/gid_map")
		attr.GidMappingsEnableSetgroups = true
	}
	return attr
}

// identity maps every id of this user namespace to itself.
func identity(file string) []syscall.SysProcIDMap {
	var maps []syscall.SysProcIDMap
	content, _ := os.ReadFile(file)
	for line := range strings.Lines(string(content)) {
		var inside, outside, size int
		if n, _ := fmt.Sscan(line, &inside, &outside, &size); n == 3 {
			maps = append(maps, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
		}
	}
	return maps
}

// marshalToFile puts a value into a file without a name: an environment may be longer than a pipe is deep.
func marshalToFile(v any) (*os.File, error) {
	content, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write a container's specification: %w", err)
	}
	fd, err := unix.MemfdCreate("spec", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "spec")
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write a container's specification: %w", err)
	}
	return f, nil
}
