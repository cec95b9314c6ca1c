package gatekeeper

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wrapped starts a process that inherits the gate's lock, as a wrapper's program does, and lets the wrapper's own descriptor go.
func wrapped(t *testing.T, l *Lock) *exec.Cmd {
	t.Helper()
	file, err := os.Open(l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "600")
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(child) })
	return child
}

func end(child *exec.Cmd) {
	_ = child.Process.Kill()
	_ = child.Wait()
}

func opened(t *testing.T) *Lock {
	t.Helper()
	l, err := OpenLock(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// patience is more than anything here takes.
const patience = time.Minute

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
	}
}

// awaitWaiters waits until so many of this process' threads wait for the lock, as the kernel says.
func awaitWaiters(t *testing.T, l *Lock, n int) {
	t.Helper()
	info, err := l.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range int(patience / time.Millisecond) {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		waiters := 0
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "-> FLOCK") && strings.Contains(line, ours) {
				waiters++
			}
		}
		if waiters == n {
			return
		}
		<-tick.C
	}
	t.Fatalf("%d threads do not wait for the lock", n)
}

// TestHeld holds that the lock is held as long as any process lives that inherited it, and that to look does not take it away.
func TestHeld(t *testing.T) {
	l := opened(t)
	if l.Held() {
		t.Error("held by nobody")
	}
	first := wrapped(t, l)
	second := wrapped(t, l) // of another container
	for range 3 {
		if !l.Held() {
			t.Error("not held by two")
		}
	}
	end(first)
	if !l.Held() {
		t.Error("not held by one")
	}
	free := l.whenFree()
	end(second)
	await(t, "the lock to be free", free)
	if l.Held() {
		t.Error("held by the dead")
	}
}

// TestHeldInDoubt holds that what cannot be found out counts as held.
func TestHeldInDoubt(t *testing.T) {
	l := opened(t)
	l.file.Close()
	if !l.Held() {
		t.Error("nothing can be known of it, and it is free")
	}
}

// TestGuard holds when OnStartedLeading returns: after the claim and after all that was started in it; and that it tells of an end
// before the claim's, each time.
func TestGuard(t *testing.T) {
	l := opened(t)
	ctx, lose := context.WithCancel(t.Context())
	defer lose()
	ends, returned := make(chan struct{}, 8), make(chan struct{})
	go func() {
		defer close(returned)
		l.Guard(ctx, func() { ends <- struct{}{} })
	}()
	for range 2 {
		child := wrapped(t, l)
		awaitWaiters(t, l, 1) // what it has not seen it cannot tell of
		end(child)
		await(t, "the end of what was started", ends)
	}
	child := wrapped(t, l)
	awaitWaiters(t, l, 1)
	lose()
	awaitWaiters(t, l, 2) // that for an end before the claim's stays until there is one
	select {
	case <-returned:
		t.Fatal("it returns while what was started lives")
	default:
	}
	end(child)
	await(t, "the guard to return", returned)
	if len(ends) != 0 {
		t.Error("an end after the claim's is told of")
	}
}

// TestAwaitFreeEnds holds that a wait ends with its context.
func TestAwaitFreeEnds(t *testing.T) {
	l := opened(t)
	wrapped(t, l)
	ctx, stop := context.WithCancel(t.Context())
	returned := make(chan struct{})
	go func() { defer close(returned); l.AwaitFree(ctx) }()
	stop()
	await(t, "the wait to end", returned)
}

// TestInstall holds that a whole file that everybody may run is there, also over an older one.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(t.TempDir(), "gate")
	for _, content := range []string{"one", "another"} {
		if err := os.WriteFile(from, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := install(from, dir); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, wrapperFile))
		if err != nil || string(got) != content {
			t.Errorf("installed %q: %v", got, err)
		}
		if info, err := os.Stat(filepath.Join(dir, wrapperFile)); err != nil || info.Mode() != 0o555 {
			t.Errorf("installed as %v: %v", info.Mode(), err)
		}
	}
	if err := install(filepath.Join(dir, "none"), dir); err == nil {
		t.Error("nothing is installed without an error")
	}
	if err := install(from, filepath.Join(dir, "none")); err == nil {
		t.Error("installed into no directory")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
