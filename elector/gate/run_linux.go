package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/elector-io/elector/elector/internal/boottime"
)

const (
	// lookAgain is after what went wrong with the status directory, if nothing happens
	// there before.
	lookAgain = time.Second
	// lockDescriptor is the lowest descriptor that the lock file may have in the child:
	// scripts use the first ones as they like.
	lockDescriptor = 200
	// giveBackEvery so many looks at the status directory free memory goes back to the
	// node: minutes of a leader. By itself the runtime lets the heap grow by a megabyte.
	giveBackEvery = 64
	// reapFor is how long those that were killed are waited for: a moment is all it
	// takes, and none of them comes back.
	reapFor = 100 * time.Millisecond
)

// Run is a whole gate: it waits for a claim, runs the command within it, and returns
// the exit code for the process. Signals for the process are the child's, which gets a
// process group of its own; and all child processes of this one are taken for
// the child's.
func Run(cfg Config) (exitCode int) {
	w := &wrapper{cfg: cfg, machine: NewMachine(cfg.StopGrace, cfg.LeastClaim), lock: -1, first: os.Getpid() == 1}
	if w.cfg.Say == nil {
		w.cfg.Say = func(string) {}
	}
	code, err := w.run()
	if err != nil {
		w.cfg.Say(err.Error())
	}
	return code
}

// exitFailed is the exit code of a gate that could not do its work.
const exitFailed = 1

// wrapper is one run of a gate.
type wrapper struct {
	cfg     Config
	machine *Machine
	clock   boottime.Clock
	first   bool   // the process is the first of its PID namespace, and so the parent of all orphans
	said    string // the last sentence
	looks   int    // there
	events  *watch
	ended   chan os.Signal // children's

	lock int // descriptor of the lock file, -1 if it is not open
	pid  int // the child's, 0 without any
}

func (w *wrapper) run() (exitCode int, err error) {
	if _, err := lookUp(w.cfg.Command[0]); err != nil {
		return exitOf(err), notStarted(w.cfg.Command[0], err)
	}
	w.clock, err = boottime.New()
	if err != nil {
		return exitFailed, err
	}
	alarm, err := w.clock.NewAlarm()
	if err != nil {
		return exitFailed, err
	}
	defer alarm.Close()
	w.events = newWatch(w.cfg.StatusDir)
	defer w.events.close()
	if !w.first {
		// Daemons become this process' children when their parents end.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return exitFailed, fmt.Errorf("becoming the parent of orphans: %w", err)
		}
	}
	w.sign(signClosed)
	w.ended = make(chan os.Signal, 1)
	signal.Notify(w.ended, unix.SIGCHLD)
	defer signal.Stop(w.ended)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded()...)
	defer signal.Stop(signals)
	for {
		wake, code, err := w.turn()
		if code != running {
			return code, err
		}
		alarm.Set(wake)
		select {
		case <-alarm.C():
		case <-w.events.c:
		case <-w.ended:
		case s := <-signals:
			if s, ok := s.(syscall.Signal); ok && !w.pass(s) {
				return 128 + int(s), nil
			}
		}
	}
}

// running is instead of an exit code as long as there is none.
const running = -1

// turn does what is to be done now, and returns when to look again, or how the gate
// ends.
func (w *wrapper) turn() (wake time.Duration, exitCode int, err error) {
	for {
		if code := w.reap(); code != running {
			// What the child left behind would outlive the gate; the first process of a
			// namespace takes all with it, but only after its share of the lock is free.
			w.killAll()
			return 0, w.machine.ExitCode(code), nil
		}
		again := w.see()
		now := w.clock.Now()
		action, at := w.machine.Next(now)
		switch action {
		case Wait:
			return min(at, again), running, nil
		case Lock:
			w.takeLock(now)
		case Unlock:
			w.letGo()
			w.machine.Unlocked()
		case Start:
			if err := w.start(); err != nil {
				return 0, exitOf(err), notStarted(w.cfg.Command[0], err)
			}
			w.machine.Started()
		case Terminate:
			_ = unix.Kill(w.pid, unix.SIGTERM) // it has ended, or it is heard
			w.machine.Terminated()
		case Kill:
			w.machine.Killed()
			code := w.killAll()
			if code == running {
				code = 128 + int(unix.SIGKILL)
			}
			return 0, w.machine.ExitCode(code), nil
		}
	}
}

// see lets the machine know what the status directory says, and returns when to look
// there again though nothing happens.
func (w *wrapper) see() (again time.Duration) {
	// In this order: what changes after the look is told.
	watchErr := w.events.renew()
	sight, err := Look(w.cfg.StatusDir)
	if w.looks++; w.looks%giveBackEvery == 0 {
		debug.FreeOSMemory()
	}
	now := w.clock.Now()
	if err == nil {
		w.machine.See(sight, now)
	}
	if err = errors.Join(watchErr, err); err != nil {
		w.say(fmt.Sprintf("%v; looking again every %s", err, lookAgain))
		return now + lookAgain
	}
	return forever
}

// say says a sentence, unless it was the last one.
func (w *wrapper) say(sentence string) {
	if sentence != w.said {
		w.said = sentence
		w.cfg.Say(sentence)
	}
}

// takeLock tries to take a share of the lock.
func (w *wrapper) takeLock(now time.Duration) {
	path := filepath.Join(w.cfg.StatusDir, LockFile)
	// No other process of the container can follow a name here: the elector's alone is
	// writable.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		w.say(fmt.Sprintf("opening %s: %v: is the elector beside it one that knows gates?", path, err))
		w.machine.LockRefused(now + lookAgain)
		return
	}
	switch err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		w.machine.LockRefused(now + LockPause)
	case err != nil:
		w.say(fmt.Sprintf("locking %s: %v", path, err))
		w.machine.LockRefused(now + lookAgain)
	default:
		w.lock = fd
		w.machine.Locked()
		return
	}
	_ = unix.Close(fd)
}

func (w *wrapper) letGo() {
	_ = unix.Close(w.lock)
	w.lock = -1
}

// start starts the child, with the lock.
func (w *wrapper) start() error {
	path, err := lookUp(w.cfg.Command[0])
	if err != nil {
		return err
	}
	inherited, err := unix.FcntlInt(uintptr(w.lock), unix.F_DUPFD, lockDescriptor)
	if err != nil { // so few files are allowed
		inherited, err = unix.FcntlInt(uintptr(w.lock), unix.F_DUPFD, 3)
	}
	if err != nil {
		return err
	}
	defer unix.Close(inherited) //nolint:errcheck // it is one of two
	w.sign(signOpen(w.clock.Now()))
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		// What a terminal sends goes to the child alone, not to it and to the gate, which
		// would pass it on.
		Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: inForeground()},
	}
	if !w.first {
		attr.Sys.Pdeathsig = syscall.SIGKILL // a killed gate can't stop it any more
	}
	w.pid, err = syscall.ForkExec(path, w.cfg.Command, attr) //nolint:gosec // to run what it is told is what a gate is for
	return err
}

// inForeground tells whether standard input is the terminal that has this process in
// its foreground.
func inForeground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// pass passes a signal on to the child. Without one, false tells that the gate is to
// end by it.
func (w *wrapper) pass(s syscall.Signal) bool {
	if w.pid == 0 {
		return s != unix.SIGTERM && s != unix.SIGINT && s != unix.SIGQUIT && s != unix.SIGHUP
	}
	if s == unix.SIGTERM {
		w.machine.Signalled()
	}
	_ = unix.Kill(w.pid, s) // it has ended, or it is heard
	return true
}

// forwarded are the signals that are passed on: all but those that the runtime of Go
// sends itself, or that tell of a fault of this very process. Nor those that whoever
// started the gate had it ignore: the child inherits that.
func forwarded() (signals []os.Signal) {
	for s := syscall.Signal(1); s <= 64; s++ {
		switch s {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, // can't be caught, or is not for the child
			unix.SIGURG, unix.SIGPIPE, unix.SIGPROF,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGSTKFLT,
			32, 33, 34: // the C library's
		default:
			if !signal.Ignored(s) {
				signals = append(signals, s)
			}
		}
	}
	return signals
}

// reap takes note of processes that have ended. It returns the child's exit code if
// that is among them.
func (w *wrapper) reap() (exitCode int) {
	exitCode = running
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || pid <= 0:
			return exitCode
		case pid == w.pid && status.Signaled():
			exitCode = 128 + int(status.Signal())
		case pid == w.pid:
			exitCode = status.ExitStatus()
		}
	}
}

// killAll kills all that the child has started, and waits for their end for reapFor.
// It returns the child's exit code if it ended meanwhile.
func (w *wrapper) killAll() (exitCode int) {
	exitCode = running
	until := time.NewTimer(reapFor)
	defer until.Stop()
	for {
		if w.first {
			_ = unix.Kill(-1, unix.SIGKILL) // all but this one; without any, there is nothing to do
		} else {
			killDescendants()
		}
		if code := w.reap(); code != running {
			exitCode = code
		}
		if !hasChildren() {
			return exitCode
		}
		select {
		case <-w.ended:
		case <-time.After(time.Millisecond): // somebody's child has become this one's
		case <-until.C:
			return exitCode
		}
	}
}

// hasChildren tells whether any are left.
func hasChildren() bool {
	return !errors.Is(unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil), unix.ECHILD)
}

// lookUp finds a program as a container runtime does.
func lookUp(name string) (path string, err error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	err = fs.ErrNotExist
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if !strings.Contains(path, "/") {
			path = "./" + path // an empty element of PATH is the current directory
		}
		found := executable(path)
		if found == nil {
			return path, nil
		}
		if !errors.Is(found, fs.ErrNotExist) {
			err = found
		}
	}
	return "", err
}

func executable(path string) error {
	switch info, err := os.Stat(path); {
	case err != nil:
		return err
	case info.IsDir():
		return unix.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// notStarted says why a program could not be started.
func notStarted(name string, err error) error {
	if path := new(fs.PathError); errors.As(err, &path) {
		err = path.Err
	}
	if errors.Is(err, fs.ErrNotExist) && !strings.Contains(name, "/") {
		return fmt.Errorf("%s: no such program in $PATH", name)
	}
	return fmt.Errorf("%s: %w", name, err)
}

func exitOf(err error) int {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return ExitNotFound
	}
	return ExitNotExecutable
}
