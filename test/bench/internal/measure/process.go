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
	Resident int64 // VmRSS
	Peak     int64 // VmHWM
	// Anonymous is what of it is nobody else's. The rest are pages of the binary, which all sidecars of a node share.
	Anonymous int64
	// FileShare is this process' part of the pages of files: what is mapped by n processes counts for an n-th (Pss_File).
	FileShare int64
	// PageTables is VmPTE.
	PageTables int64
	// Stacks is what the kernel keeps for the threads to run in it, stackSize for each.
	Stacks int64
}

// Cost is what one more such process costs a node, as a container's cgroup is charged but for its sockets and the container itself: what is
// nobody else's, and its part of what others map, too.
func (m Memory) Cost() int64 { return m.Anonymous + m.FileShare + m.PageTables + m.Stacks }

// stackSize is a thread's kernel stack on amd64 and arm64 (THREAD_SIZE).
const stackSize = 16 << 10

// ReadMemory asks the kernel what a process occupies now. RssAnon would do for what is anonymous, were it not late by up to 64 pages of
// each CPU.
func ReadMemory(pid int) (m Memory, err error) {
	var threads int64
	for file, fields := range map[string]map[string]*int64{
		"status":       {"VmRSS": &m.Resident, "VmHWM": &m.Peak, "VmPTE": &m.PageTables, "Threads": &threads},
		"smaps_rollup": {"Anonymous": &m.Anonymous, "Pss_File": &m.FileShare},
	} {
		if err := readFields(fmt.Sprintf("/proc/%d/%s", pid, file), fields); err != nil {
			return Memory{}, fmt.Errorf("reading the memory of process %d: %w", pid, err)
		}
	}
	if m.Resident == 0 {
		return Memory{}, fmt.Errorf("process %d has no resident memory, has it ended?", pid)
	}
	m.Stacks = threads * stackSize
	return m, nil
}

// readFields reads numbers of a file of lines like "VmRSS:  123 kB". What is in kB becomes bytes.
func readFields(path string, fields map[string]*int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		into, ok := fields[key]
		if !ok {
			continue
		}
		number, inKB := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if *into, err = strconv.ParseInt(number, 10, 64); err != nil {
			return err
		}
		if inKB {
			*into <<= 10
		}
	}
	return nil
}
