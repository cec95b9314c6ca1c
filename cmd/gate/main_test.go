//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests run the real program as a process, as it is in a container and as it is
// outside of one, with real children. What it decides, and when, the tests of
// package elector/gate say; here every wait is for something to happen.

// TestMain lets the test binary be the gate itself, and what a child does that no
// shell can.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "gate":
		main()
	case "chain":
		chain()
	default:
		// Under nohup and the like signals are ignored, in children as well: but not those that are caught.
		for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
			if signal.Ignored(s) {
				signal.Notify(make(chan os.Signal, 1), s)
			}
		}
		os.Exit(m.Run())
	}
}

// chain is a process that starts the next one, in a session of its own, and ends: it
// is never where one looks. Should nobody stop it, it ends after a while.
func chain() {
	left, _ := strconv.Atoi(os.Args[1])
	if left == 0 {
		return
	}
	next := exec.CommandContext(context.Background(), os.Args[0], strconv.Itoa(left-1)) //nolint:gosec // it is this very program
	next.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	_ = next.Start()
}

// now is CLOCK_BOOTTIME.
func now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// stage is a status directory with one gate before it.
type stage struct {
	*testing.T
	dir  string // the status directory
	home string // the child's working directory
	lock *os.File
	gate *exec.Cmd
	// built is the gate to run, by default this very binary.
	built string
	// inside tells that the gate is the first process of a PID namespace.
	inside bool
	stdin  io.Reader
	mu     sync.Mutex
	stdout bytes.Buffer
	ended  chan int
}

// program links the test binary under a name in a directory.
func program(t *testing.T, dir, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{T: t, dir: t.TempDir(), home: t.TempDir()}
	s.makeLock()
	s.write("status.json", `{"role":"standby","mode":"lease"}`)
	return s
}

// makeLock makes the lock file as the elector does.
func (s *stage) makeLock() {
	s.Helper()
	lock, err := os.OpenFile(filepath.Join(s.dir, "gate.lock"), os.O_RDWR|os.O_CREATE, 0o444)
	if err != nil {
		s.Fatal(err)
	}
	s.lock = lock
	s.Cleanup(func() { _ = lock.Close() })
}

// write replaces a file in one step.
func (s *stage) write(name, text string) {
	s.Helper()
	temporary := filepath.Join(s.dir, "."+name)
	if err := errors.Join(os.WriteFile(temporary, []byte(text), 0o644), os.Rename(temporary, filepath.Join(s.dir, name))); err != nil {
		s.Fatal(err)
	}
}

// claim announces a claim with so much left of it.
func (s *stage) claim(token int, left time.Duration) {
	s.Helper()
	s.write("status.json", fmt.Sprintf(`{"role":"leader","mode":"lease","fencingToken":%d,"validUntilBoottime":%d}`, token, (now()+left).Milliseconds()))
	s.write("leader", "web-0\n")
}

// standby announces the end of a claim; the lock is held for so long, if at all.
func (s *stage) standby(held time.Duration) {
	s.Helper()
	if err := os.Remove(filepath.Join(s.dir, "leader")); err != nil {
		s.Fatal(err)
	}
	status := `{"role":"standby","mode":"lease"}`
	if held > 0 {
		status = fmt.Sprintf(`{"role":"standby","mode":"lease","heldUntilBoottime":%d}`, (now() + held).Milliseconds())
	}
	s.write("status.json", status)
}

// Write gathers what the gate and its child say.
func (s *stage) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stdout.Write(text)
}

func (s *stage) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stdout.String()
}

// start starts a gate before a command.
func (s *stage) start(flags []string, args ...string) {
	s.Helper()
	if s.built == "" {
		s.built = program(s.T, s.TempDir(), "gate")
	}
	args = append(append([]string{s.built, "run"}, flags...), append([]string{"--"}, args...)...)
	if s.inside {
		args = append([]string{"unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"}, args...)
	}
	s.gate = exec.CommandContext(s.Context(), args[0], args[1:]...)
	s.gate.Dir, s.gate.Stdin, s.gate.Stdout = s.home, s.stdin, s
	s.gate.Stderr = s.gate.Stdout // one pipe
	s.gate.Env = append(os.Environ(), "ELECTOR_STATUS_DIR="+s.dir, "TOLD=as it was")
	s.gate.WaitDelay = time.Second // a daemon may have the pipe
	if err := s.gate.Start(); err != nil {
		s.Fatal(err)
	}
	s.ended = make(chan int, 1)
	go func() {
		_ = s.gate.Wait()
		s.ended <- s.gate.ProcessState.ExitCode()
	}()
}

// shell starts a gate before a script, with a grace of a second.
func (s *stage) shell(script string) {
	s.Helper()
	s.start([]string{"--stop-grace=1s", "--least-claim=100ms"}, "/bin/sh", "-c", script)
}

// until waits for something to be so.
func (s *stage) until(what string, so func() bool) {
	s.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case code := <-s.ended:
			s.ended <- code
			if so() {
				return
			}
			s.Fatalf("the gate ended with %d before %s:\n%s", code, what, s.said())
		case <-s.Context().Done():
			s.Fatalf("never %s:\n%s", what, s.said())
		}
	}
}

// touch makes a file in the child's working directory.
func (s *stage) touch(name string) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.home, name), nil, 0o600); err != nil {
		s.Fatal(err)
	}
}

// says waits for a text from the gate or its child.
func (s *stage) says(text string) {
	s.Helper()
	s.until(fmt.Sprintf("it says %q", text), func() bool { return strings.Contains(s.said(), text) })
}

// ends waits for the end of the gate, and holds that nobody is left who has the lock.
func (s *stage) ends(want int) {
	s.Helper()
	code := <-s.ended
	if code != want {
		s.Errorf("the gate ended with %d, want %d:\n%s", code, want, s.said())
	}
	if s.held() {
		s.Errorf("the gate is over, and somebody has the lock still:\n%s", s.said())
	}
}

// held tells whether anybody has a share of the lock, as the elector finds out.
func (s *stage) held() bool {
	s.Helper()
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return true
	}
	_ = unix.Flock(int(s.lock.Fd()), unix.LOCK_UN)
	return false
}

// everywhere runs a test with a gate as it is in a container, and as it is outside of
// one.
func everywhere(t *testing.T, test func(*stage)) {
	t.Helper()
	t.Run("outside", func(t *testing.T) {
		t.Parallel()
		test(newStage(t))
	})
	t.Run("inside", func(t *testing.T) {
		t.Parallel()
		if err := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true").Run(); err != nil {
			t.Skip("this machine allows no PID namespaces of one's own:", err)
		}
		s := newStage(t)
		s.inside = true
		test(s)
	})
}

// long is a claim that no test outlives.
const long = time.Hour

func TestChild(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		s.stdin = strings.NewReader("hello\n")
		s.start([]string{"--stop-grace", "1s"}, "sh", "-c", `read line; echo "$line $TOLD $1 in $PWD $(cat /proc/self/comm)"; readlink /proc/self/fd/* | grep gate.lock; exit 7`, "sh", "two words")
		s.claim(1, long)
		s.ends(7)
		want := "hello as it was two words in " + s.home + " cat\n" + filepath.Join(s.dir, "gate.lock") + "\n"
		if got := s.said(); got != want {
			s.Errorf("the child said %q, want %q", got, want)
		}
	})
}

// A claim that is no claim any more, or of which there is not enough, starts nothing.
func TestClosed(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		s.claim(1, 5*time.Second)
		s.start([]string{"--stop-grace=1s", "--least-claim=1m"}, "echo", "started")
		s.standby(long)
		s.write("status.json", "garbage")
		s.write("leader", "web-0\n")
		s.write("status.json", strings.Repeat("huge", 1<<20))
		if err := os.Remove(filepath.Join(s.dir, "status.json")); err != nil {
			s.Fatal(err)
		}
		if s.held() {
			s.Error("a closed gate has the lock")
		}
		s.claim(2, 30*time.Second)
		if strings.Contains(s.said(), "started") {
			s.Error("the child was started on the rest of a claim")
		}
		s.claim(2, long)
		s.ends(0)
	})
}

// The directory may come late, and be another one later.
func TestDirectoryReplaced(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.dir = filepath.Join(s.dir, "status")
	s.shell("echo started; exec sleep 1000")
	s.says("no such file or directory; looking again")
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.claim(1, long) // it may be one that knows no gates
	s.says("is the elector beside it one that knows gates?")
	s.makeLock()
	s.says("started")
	if err := os.Rename(s.dir, s.dir+".old"); err != nil {
		t.Fatal(err)
	}
	s.ends(143)
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		s.claim(1, long)
		s.shell("kill -USR1 $$")
		s.ends(128 + 10)
	})
	broken := filepath.Join(t.TempDir(), "broken")
	script := filepath.Join(t.TempDir(), "script")
	if err := errors.Join(os.WriteFile(broken, []byte("text"), 0o600), os.WriteFile(script, []byte("#!/no/such/shell\n"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		command string
		code    int
		says    string
	}{
		"not found":       {"/no/such/program", 127, "gate: /no/such/program: no such file or directory\n"},
		"not in PATH":     {"no-such-program", 127, "gate: no-such-program: no such program in $PATH\n"},
		"below a file":    {broken + "/program", 127, "gate: " + broken + "/program: not a directory\n"},
		"not executable":  {broken, 126, "gate: " + broken + ": permission denied\n"},
		"a directory":     {"/", 126, "gate: /: is a directory\n"},
		"no interpreter":  {script, 127, "gate: " + script + ": no such file or directory\n"},
		"no status there": {"", 2, "gate: no program: give it after --\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.claim(1, long)
			s.start(nil, tc.command)
			s.ends(tc.code)
			if got := s.said(); got != tc.says {
				t.Errorf("it says %q, want %q", got, tc.says)
			}
		})
	}
}

// A claim that is given up: the child has as long as the lock is held.
func TestPlannedEnd(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		s.claim(1, 3*time.Second)
		s.shell(`trap 'echo told' TERM; echo started; until [ -e end ]; do sleep 0.01; done; exit 0`)
		s.says("started")
		s.standby(long)
		s.says("told")
		if !s.held() {
			s.Error("the child lives, and nobody has the lock")
		}
		s.touch("end")
		s.ends(143) // it ended well, and is to be started again
	})
}

// A claim that could not be renewed: the child is told in time, and a renewal that comes
// late leaves it more.
func TestLateRenewal(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		s.claim(1, 2*time.Second)
		s.shell(`trap 'echo told' TERM; echo started; until [ -e end ]; do sleep 0.01; done; exit 0`)
		s.says("told")
		s.claim(1, long)
		s.touch("end")
		s.ends(143)
		if n := strings.Count(s.said(), "told"); n != 1 {
			s.Errorf("the child was told %d times to end", n)
		}
	})
}

// Whatever a child does, it and all that it started is dead when its claim is over.
func TestKilled(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"ignores SIGTERM":   `trap '' TERM; echo started; while :; do sleep 1000; done`,
		"stopped":           `echo started; kill -STOP $$; echo "went on"`,
		"in other sessions": `trap '' TERM; for i in 1 2 3; do setsid sh -c 'setsid sleep 1000 & sleep 1000' & done; echo started; wait`,
		"fork storm":        `trap '' TERM; echo started; storm() { while :; do sleep 0.1 & sleep 0.02; done; }; storm & storm & storm & storm & wait`,
		"many orphans":      `trap '' TERM; for i in 1 2 3 4 5 6 7 8; do (setsid sh -c 'sleep 1000' &); done; echo started; sleep 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			everywhere(t, func(s *stage) {
				s.claim(1, 4*time.Second)
				s.shell(script)
				s.says("started")
				s.ends(137)
				if strings.Contains(s.said(), "went on") {
					s.Error("a child that was stopped went on")
				}
			})
		})
	}
}

// TestChain has a child that nobody can catch by its number: only the end of the PID
// namespace is quick enough.
func TestChain(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		if !s.inside {
			s.Skip("outside a PID namespace it can get away, and has the lock then")
		}
		s.claim(1, long)
		s.start([]string{"--stop-grace=1s"}, program(s.T, s.TempDir(), "chain"), "5000")
		s.ends(0) // its first process ends at once
	})
}

// A child that ends leaves nothing behind.
func TestDaemons(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		s.claim(1, long)
		s.shell(`setsid sh -c 'trap "" TERM HUP; echo daemon; while :; do sleep 1000; done' & until [ -e end ]; do sleep 0.01; done; exit 5`)
		s.says("daemon")
		s.touch("end")
		s.ends(5)
	})
}

// Orphans do not stay as zombies.
func TestZombies(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		s.claim(1, long)
		s.shell(`for i in 1 2 3 4 5 6 7 8; do sh -c 'sleep 0 & echo $!'; done > pids; until ! grep -q . pids; do for p in $(cat pids); do [ -e /proc/$p ] && echo $p; done > left; mv left pids; done; exit 6`)
		s.ends(6)
	})
}

// Another claim is not the child's.
func TestAnotherToken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.claim(1, long)
	s.shell(`echo started; exec sleep 1000`)
	s.says("started")
	s.claim(2, long)
	s.ends(143)
}

func TestSignals(t *testing.T) {
	t.Parallel()
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		for _, signal := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
			s := newStage(t)
			s.dir += "/not/there"
			s.start(nil, "echo", "started")
			s.says("looking again") // so it listens
			_ = s.gate.Process.Signal(unix.SIGUSR1)
			_ = s.gate.Process.Signal(signal)
			if code := <-s.ended; code != 128+int(signal) {
				t.Errorf("%v: the gate ended with %d:\n%s", signal, code, s.said())
			}
		}
	})
	t.Run("open", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		s.claim(1, long)
		s.shell(`for s in HUP INT QUIT USR1 USR2 WINCH ALRM; do trap "echo got $s." $s; done; trap 'echo got TERM.; exit 0' TERM; echo started; while :; do sleep 0.01; done`)
		s.says("started")
		for name, signal := range map[string]syscall.Signal{
			"HUP": unix.SIGHUP, "INT": unix.SIGINT, "QUIT": unix.SIGQUIT, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2, "WINCH": unix.SIGWINCH, "ALRM": unix.SIGALRM,
		} {
			_ = s.gate.Process.Signal(signal)
			s.says("got " + name + ".")
		}
		_ = s.gate.Process.Signal(unix.SIGTERM)
		s.ends(0) // it was not the claim that ended
	})
	t.Run("stop and continue", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		s.claim(1, long)
		s.shell(`echo pid $$.; exec sleep 1000`)
		s.says(".")
		pid, _, _ := strings.Cut(strings.TrimPrefix(s.said(), "pid "), ".")
		state := func() string {
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			return string(stat[bytes.LastIndexByte(stat, ')')+2:][:1])
		}
		_ = s.gate.Process.Signal(unix.SIGTSTP)
		s.until("the child is stopped", func() bool { return state() == "T" })
		_ = s.gate.Process.Signal(unix.SIGCONT)
		s.until("the child goes on", func() bool { return state() == "S" })
		_ = s.gate.Process.Kill()
		<-s.ended
	})
}

// A gate that is killed can stop nothing any more: what the kernel does not end has the
// lock.
func TestGateKilled(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.claim(1, long)
	s.shell(`setsid sh -c 'echo daemon $$.; exec sleep 1000' & echo pid $$; exec sleep 1000`)
	s.says(".")
	s.says("pid")
	_, text, _ := strings.Cut(s.said(), "daemon ")
	text, _, _ = strings.Cut(text, ".")
	daemon, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = strings.Cut(s.said(), "pid ")
	text, _, _ = strings.Cut(text, "\n")
	_ = s.gate.Process.Kill()
	<-s.ended
	s.ended = nil
	s.until("the child is dead", func() bool {
		stat, err := os.ReadFile("/proc/" + text + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	if !s.held() {
		t.Error("a daemon lives, and nobody has the lock")
	}
	_ = unix.Kill(daemon, unix.SIGKILL)
	s.until("the lock is free", func() bool { return !s.held() })
}

// Several gates share the lock, and none has it while the elector looks.
func TestLockShared(t *testing.T) {
	t.Parallel()
	s, other := newStage(t), newStage(t)
	other.dir = s.dir
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	s.claim(1, long)
	s.shell(`echo started; exec sleep 1000`)
	other.shell(`echo started; exec sleep 1000`)
	s.standby(0)
	s.claim(2, long)
	if strings.Contains(s.said(), "started") {
		t.Error("the child was started without the lock")
	}
	_ = unix.Flock(int(s.lock.Fd()), unix.LOCK_UN)
	s.says("started")
	other.says("started")
	s.standby(long)
	<-s.ended
	<-other.ended
	if s.held() {
		t.Error("both are over, and somebody has the lock")
	}
}

// Probes of a container ask the gate that is its first process.
func TestProbe(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stage) {
		if !s.inside {
			s.Skip("there the first process is another's")
		}
		s.claim(1, long)
		gate := program(s.T, s.TempDir(), "gate")
		s.shell(gate + ` probe -- sh -c 'exit 3'; echo open $?; ` + gate + ` probe --startup=1h -- false; echo starting $?; ` + gate + ` probe -- no-such-program; echo absent $?`)
		s.ends(0)
		want := "open 3\nstarting 0\ngate: no-such-program: no such program in $PATH\nabsent 127\n"
		if got := s.said(); got != want {
			s.Errorf("the probes say %q, want %q", got, want)
		}
	})
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":       {nil, 2, "gate: no command: use run or probe, see --help\n"},
		"another":       {[]string{"walk"}, 2, "gate: command \"walk\" is not allowed: use run or probe, see --help\n"},
		"version":       {[]string{"--version"}, 0, "gate dev\n"},
		"help":          {[]string{"--help"}, 0, usage},
		"no program":    {[]string{"run", "--"}, 2, "gate: no program: give it after --\n"},
		"no dashes":     {[]string{"run", "true"}, 2, "gate: argument \"true\" is not allowed before --: see --help\n"},
		"unknown flag":  {[]string{"run", "--grace=1s", "--", "true"}, 2, "gate: argument \"--grace=1s\" is not allowed before --: see --help\n"},
		"no duration":   {[]string{"run", "--stop-grace=2", "--", "true"}, 2, "gate: --stop-grace \"2\" is not allowed: use a duration such as 2s or 0s\n"},
		"below zero":    {[]string{"probe", "--startup", "-2s", "--", "true"}, 2, "gate: --startup \"-2s\" is not allowed: use a duration such as 2s or 0s\n"},
		"no directory":  {[]string{"run", "--", "true"}, 2, "gate: no status directory: give --status-dir or $ELECTOR_STATUS_DIR\n"},
		"flag alone":    {[]string{"run", "--stop-grace"}, 2, "gate: --stop-grace \"\" is not allowed: use a duration such as 2s or 0s\n"},
		"empty program": {[]string{"probe", "--", ""}, 2, "gate: no program: give it after --\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := exec.CommandContext(t.Context(), program(t, t.TempDir(), "gate"), tc.args...)
			gate.Env = []string{}
			said, _ := gate.CombinedOutput()
			if gate.ProcessState.ExitCode() != tc.code || string(said) != tc.says {
				t.Errorf("exit code %d and %q, want %d and %q", gate.ProcessState.ExitCode(), said, tc.code, tc.says)
			}
		})
	}
}
