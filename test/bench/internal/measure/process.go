package measure

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// containerScheme is how the embedded cluster writes a process id into containerID.
const containerScheme = "process://"

// PID is the process of a container of the embedded cluster, by its containerID.
func PID(containerID string) (int, error) {
	pid, err := strconv.Atoi(strings.TrimPrefix(containerID, containerScheme))
	if err != nil {
		return 0, fmt.Errorf("reading a container's process id: %w", err)
	}
	return pid, nil
}

// CPUTime is the user and system time that a process has used, exactly: /proc/PID/stat counts in hundredths of a second, more than a
// standby uses in a minute. A process' clock is its inverted id and CPUCLOCK_SCHED (clock_getcpuclockid(3)).
func CPUTime(pid int) (time.Duration, error) {
	const cpuClockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuClockSched), &ts); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of process %d, has it ended? %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Memory is what a process occupies, in bytes.
type Memory struct {
	Resident  int64 // VmRSS
	Anonymous int64 // RssAnon: what is left of it without the binary's pages, which all sidecars of a node share
	Peak      int64 // VmHWM
}

// ReadMemory asks the kernel what a process occupies now.
func ReadMemory(pid int) (m Memory, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, fmt.Errorf("reading the memory of a process: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		into, ok := map[string]*int64{"VmRSS": &m.Resident, "RssAnon": &m.Anonymous, "VmHWM": &m.Peak}[key]
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("reading the memory of process %d: %w", pid, err)
		}
		*into = kib << 10
	}
	if m.Resident == 0 {
		return m, fmt.Errorf("process %d has no resident memory, has it ended?", pid)
	}
	return m, nil
}
