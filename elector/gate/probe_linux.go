package gate

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/elector-io/elector/elector/internal/boottime"
)

// sign shows what the gate is. A program that is not the first of its container is not
// probed through it, and keeps its name.
func (w *wrapper) sign(name string) {
	if w.first {
		_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // without /proc, probes find no gate
	}
}

// RunProbe is for a probe in a container whose first process is a gate. It returns 0 if that
// is closed, or has been open for less than startup: a program that has just started
// does not answer yet. Else the process becomes command; RunProbe returns only if that
// fails, with a shell's exit code and the reason.
func RunProbe(startup time.Duration, command []string) (exitCode int, err error) {
	name, err := os.ReadFile("/proc/1/comm")
	if err == nil {
		clock, err := boottime.New()
		if err != nil {
			return exitFailed, err
		}
		isClosed, opened := readSign(string(name))
		if isClosed || opened > 0 && clock.Now() < opened+startup {
			return 0, nil
		}
	}
	path, err := lookUp(command[0])
	if err == nil {
		err = unix.Exec(path, command, os.Environ())
	}
	return exitOf(err), notStarted(command[0], err)
}
