//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// maxProgram is what the program may weigh, in bytes: every gated pod has a copy.
	maxProgram = 3_000_000
	// maxMemory is what it may have of its own, in KiB: it is in every gated container.
	maxMemory = 2048
)

// field is the number behind a name in a file of /proc.
func field(t *testing.T, path, name string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		return 0 // a thread that has ended
	}
	_, value, _ := strings.Cut(string(text), "\n"+name+":")
	value, _, _ = strings.Cut(value, "\n")
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
	if err != nil {
		t.Fatalf("%s has no %s", path, name)
	}
	return n
}

// wakeups is how often all threads of a process have gone to sleep.
func wakeups(t *testing.T, pid string) (n int) {
	t.Helper()
	threads, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		n += field(t, thread, "voluntary_ctxt_switches")
	}
	return n
}

// TestSmall holds what the gate costs in each container, as it is built for the image.
func TestSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program, and watches it idle")
	}
	t.Parallel()
	s := newStage(t)
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=v0.0.0", "-o", filepath.Join(s.home, "gate"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the gate: %v\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(s.home, "gate"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxProgram {
		t.Errorf("the gate has %d bytes, %d are allowed", info.Size(), maxProgram)
	}
	s.built = filepath.Join(s.home, "gate")
	s.claim(1, long)
	s.shell(`echo started; exec sleep 1000`)
	s.says("started")
	for range 3000 { // so many renewals are of some hours
		s.claim(1, long)
	}
	pid := strconv.Itoa(s.gate.Process.Pid)
	memory := field(t, "/proc/"+pid+"/status", "RssAnon")
	if memory > maxMemory {
		t.Errorf("the gate has %d KiB of memory of its own, %d are allowed", memory, maxMemory)
	}
	// Here time has to pass in which nothing happens.
	settled, idle := time.After(time.Second), time.After(6*time.Second)
	<-settled
	before := wakeups(t, pid)
	<-idle
	after := wakeups(t, pid)
	t.Logf("%d bytes, %d KiB, %d wakeups in 5 s", info.Size(), memory, after-before)
	if after-before > 4 {
		t.Errorf("the gate woke %d times in 5 s in which nothing happened", after-before)
	}
	s.standby(0)
	s.ends(143)
}
