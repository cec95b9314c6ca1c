package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// entry holds everything the forked child of enter needs. It is laid out beforehand, because that child may not allocate.
type entry struct {
	namespaces [4]uintptr // descriptors, in the order in which to enter them
	dir        *byte      // the working directory, inside
	paths      []*byte    // what to try to execute
	argv, env  []*byte
	mask       uint64 // the signal mask to execute with
}

// enter runs a command in the namespaces of a running container, and ends as the command does. It never returns.
//
// A process may join a user namespace only while it has a single thread, and a Go program never has. So it forks by hand, and the
// child makes bare system calls only. Joining a PID namespace counts for children alone: hence a second fork.
func enter() {
	runtime.LockOSThread()
	code, err := enterAndRun(os.Args[1:], os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code) //nolint:forbidigo // this process is not the program that main is for
}

//nolint:gosec // system calls take addresses
func enterAndRun(args, env []string) (int, error) {
	if len(args) < 3 {
		return 126, fmt.Errorf("usage: %s PID DIRECTORY COMMAND", enterName)
	}
	e, err := prepare(args[0], args[1], args[2:], env)
	if err != nil {
		return 126, err
	}
	all := ^uint64(0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&e.mask)), 8, 0, 0)
	child, errno := forkIntoContainer(e)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&e.mask)), 0, 8, 0, 0)
	runtime.KeepAlive(e)
	if errno != 0 {
		return 126, fmt.Errorf("fork: %w", errno)
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(int(child), &status, 0, nil)
		if err == nil {
			break
		}
		if err != syscall.EINTR {
			return 126, fmt.Errorf("wait for the command: %w", err)
		}
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	if status.ExitStatus() == 127 {
		return 127, fmt.Errorf("exec: %q: executable file not found in $PATH", args[2])
	}
	return status.ExitStatus(), nil
}

func prepare(pid, dir string, argv, env []string) (*entry, error) {
	e := &entry{}
	for i, kind := range []string{"user", "mnt", "uts", "pid"} {
		fd, err := unix.Open("/proc/"+pid+"/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("find the container's namespaces: %w", err)
		}
		e.namespaces[i] = uintptr(fd)
	}
	var err error
	if e.dir, err = syscall.BytePtrFromString(dir); err != nil {
		return nil, fmt.Errorf("read the directory: %w", err)
	}
	if e.argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return nil, fmt.Errorf("read the command: %w", err)
	}
	if e.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return nil, fmt.Errorf("read the environment: %w", err)
	}
	if e.paths, err = syscall.SlicePtrFromStrings(candidates(argv[0], env)); err != nil {
		return nil, fmt.Errorf("read the command: %w", err)
	}
	return e, nil
}

// forkIntoContainer forks; the child joins the namespaces, forks again, and its child executes the command. Only the parent returns.
// Everything after the fork is a bare system call: the child has one thread and a copy of a runtime that must not run.
//
//go:norace
//go:nosplit
//go:noinline
//nolint:gosec // system calls take addresses
func forkIntoContainer(e *entry) (uintptr, syscall.Errno) {
	child, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || child != 0 {
		return child, errno
	}
	for i := range e.namespaces {
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETNS, e.namespaces[i], 0, 0); errno != 0 {
			exitChild(125)
		}
	}
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	command, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		exitChild(125)
	}
	if command != 0 {
		waitAndExit(command)
	}
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&e.mask)), 0, 8, 0, 0)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(e.dir)), 0, 0); errno != 0 {
		exitChild(126)
	}
	code := uintptr(127)
	for i := range len(e.paths) - 1 {
		_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(e.paths[i])),
			uintptr(unsafe.Pointer(&e.argv[0])), uintptr(unsafe.Pointer(&e.env[0])))
		if errno != syscall.ENOENT {
			code = 126
		}
	}
	exitChild(code)
	return 0, 0
}

//go:norace
//go:nosplit
//nolint:gosec // system calls take addresses
func waitAndExit(pid uintptr) {
	var status uint32
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, pid, uintptr(unsafe.Pointer(&status)), 0, 0, 0, 0)
		if errno != syscall.EINTR {
			break
		}
	}
	if status&0x7f != 0 {
		exitChild(128 + uintptr(status&0x7f))
	}
	exitChild(uintptr(status>>8) & 0xff)
}

//go:norace
//go:nosplit
func exitChild(code uintptr) {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
	}
}
