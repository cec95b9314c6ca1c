package measure

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// Machine is where a run took place.
type Machine struct {
	CPU        string
	Cores      int
	Kernel     string
	Go         string
	Kubernetes string
	ClientGo   string
	// Load is how many threads wanted to run in the minute before.
	Load float64
}

// busy is the load from which on a machine is not quiet.
const busy = 0.5

// Busy tells whether something else was going on.
func (m Machine) Busy() bool { return m.Load >= busy }

// Inspect describes this machine, as far as it tells.
func Inspect() Machine {
	m := Machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go"), Kernel: firstWord("/proc/sys/kernel/osrelease")}
	m.Load, _ = strconv.ParseFloat(firstWord("/proc/loadavg"), 64)
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == "k8s.io/client-go" {
				m.ClientGo = strings.TrimPrefix(module.Version, "v")
			}
		}
	}
	return m
}

func firstWord(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	word, _, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	return word
}

func (m Machine) String() string {
	return fmt.Sprintf("%d cores (%s), Linux %s, Go %s, Kubernetes %s, client-go %s", m.Cores, m.CPU, m.Kernel, m.Go, m.Kubernetes, m.ClientGo)
}
