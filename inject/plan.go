package inject

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
)

// plan is what the annotations of one pod ask for, with the defaults filled in.
type plan struct {
	given      map[string]string // the annotations
	settings   elector.Settings
	containers []string // names; nil means all
	statusDir  string
	port       int32
	healthPort int32
	failover   Failover
	gate       []string            // as they were given; nil is none
	commands   map[string][]string // of images
	stopGrace  time.Duration
	gated      []string // the app containers behind the wrapper, sorted
	leastClaim time.Duration
	image      string
	logLevel   int
	cpu        quantity
	memory     quantity
	limit      quantity // of memory
}

// quantity remembers whether the pod chose it.
type quantity struct {
	resource.Quantity
	chosen bool
}

// refuse says why the value of an annotation cannot be used and what can.
func refuse(key, value, allowed string, args ...any) error {
	return &elector.FieldError{Field: Prefix + key, Value: value, Allowed: fmt.Sprintf(allowed, args...)}
}

// refusePod says what about the pod, not about a value, is in the way.
func refusePod(reason string, args ...any) error {
	return refuse(keyEnabled, "true", reason, args...)
}

// asks reports whether the annotations ask for the sidecar.
func asks(annotations map[string]string) (bool, error) {
	switch v, ok := annotations[Prefix+keyEnabled]; {
	case !ok, v == "false":
		return false, nil
	case v == "true":
		return true, nil
	default:
		return false, refuse(keyEnabled, v, `use "true" or "false"`)
	}
}

var (
	portNumber = regexp.MustCompile(`^[1-9][0-9]{3,4}$`)
	// plainQuantity leaves out exponents: 1e1000000000 is a quantity that takes
	// minutes to compare.
	plainQuantity = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,9})?(m|k|M|G|Ki|Mi|Gi)?$`)
	// plainPath has no $(VAR), no spaces and nothing a log could break on.
	plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+/?$`)
)

const maxPath = 255

// maxValue is the length of any value in bytes. The status repeats them all: in an
// annotation, where an object has 256 KiB for these, and in one argument of the
// sidecar, of which the kernel takes 128 KiB.
const maxValue = 4 << 10

// newPlan reads the annotations. lock is the name if they do not choose one; for
// a pod that has no sidecar yet it is empty, and follows from the workload's name
// and the mode.
func newPlan(meta *metav1.ObjectMeta, lock string, opts Options) (plan, error) {
	given := meta.Annotations
	lock, err := lockOf(meta, lock, opts)
	if err != nil {
		return plan{}, err
	}
	defaults := opts.Settings
	defaults.Lock = lock
	settings, err := defaults.Parse(Prefix, func(field string) (string, bool) {
		v, ok := given[Prefix+field]
		return v, ok
	})
	if err != nil {
		return plan{}, err
	}
	for _, a := range annotations {
		if v := given[a.Key]; len(v) > maxValue {
			return plan{}, refuse(strings.TrimPrefix(a.Key, Prefix), v, "a value has at most %d bytes, this one has %d", maxValue, len(v))
		}
	}
	if opts.ForbidLeaderForLife && settings.Mode == elector.ModeLeaderForLife {
		return plan{}, refuse(keyMode, string(settings.Mode), "this cluster allows %s only", elector.ModeLease)
	}
	p := plan{
		given:      given,
		settings:   settings,
		statusDir:  statusDir,
		port:       defaultPort,
		healthPort: defaultHealthPort,
		failover:   defaultFailover,
		stopGrace:  defaultStopGrace,
		image:      opts.Image,
		logLevel:   opts.LogLevel,
		cpu:        quantity{Quantity: opts.CPURequest},
		memory:     quantity{Quantity: opts.MemoryRequest},
		limit:      quantity{Quantity: opts.MemoryLimit},
	}
	for _, a := range annotations {
		if v, ok := given[a.Key]; ok && a.read != nil {
			if err := a.read(&p, v); err != nil {
				return plan{}, err
			}
		}
	}
	if err := checkGateTogether(&p, opts.Settings); err != nil {
		return plan{}, err
	}
	return p, checkTogether(&p)
}

// modeOf returns the mode that the annotations ask for, whether it exists or not.
func modeOf(given map[string]string, opts Options) elector.Mode {
	if v, ok := given[Prefix+keyMode]; ok {
		return elector.Mode(v)
	}
	return opts.Settings.Mode
}

// checkTogether checks what several annotations say together, and lets a default
// give way to what was chosen.
func checkTogether(p *plan) error {
	if p.port == p.healthPort {
		if v, ok := p.given[Prefix+keyHealthPort]; ok {
			return refuse(keyHealthPort, v, "it must differ from %s (%d)", Prefix+keyPort, p.port)
		}
		return refuse(keyPort, p.given[Prefix+keyPort], "it must differ from %s (%d)", Prefix+keyHealthPort, p.healthPort)
	}
	if p.memory.Cmp(p.limit.Quantity) <= 0 {
		return nil
	}
	if p.memory.chosen {
		return refuse(keyMemoryRequest, p.given[Prefix+keyMemoryRequest], "it must not be above %s (%s)", Prefix+keyMemoryLimit, &p.limit.Quantity)
	}
	// The pod lowered the limit below the cluster's request.
	p.memory.Quantity = p.limit.Quantity
	return nil
}

// readContainers takes a comma-separated list.
func readContainers(p *plan, value string) error {
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return refuse(keyContainers, value, "use the names of containers of the pod, separated by commas")
		}
		p.containers = append(p.containers, name)
	}
	return nil
}

// readStatusDir takes a directory for the status volume.
func readStatusDir(p *plan, value string) error {
	dir := strings.TrimSuffix(value, "/")
	switch {
	case len(value) > maxPath || !plainPath.MatchString(value) || path.Clean(dir) != dir:
		return refuse(keyStatusDir, value, "use an absolute path of letters, digits, '.', '_' and '-', such as %s", statusDir)
	case within(dir, "/proc") || within(dir, "/sys"):
		return refuse(keyStatusDir, value, "a container cannot start with a mount below /proc or /sys, use a path such as %s", statusDir)
	case hidesRuntimes(dir):
		return refuse(keyStatusDir, value, "it would be in the way of /dev, /etc/hosts, /etc/hostname or /etc/resolv.conf, which every container has, use a path such as %s", statusDir)
	}
	p.statusDir = dir
	return nil
}

// hidesRuntimes reports whether the directory is, has in it, or is below something
// that kubelet and container runtime put into every container. Shared memory is
// a file system that more can be mounted in.
func hidesRuntimes(dir string) bool {
	if within(dir, "/dev") {
		return !below(dir, "/dev/shm")
	}
	return slices.ContainsFunc([]string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}, func(file string) bool {
		return within(file, dir) || within(dir, file)
	})
}

// within reports whether dir is parent or below it; both are clean.
func within(dir, parent string) bool {
	rest, ok := strings.CutPrefix(dir, parent)
	return ok && (rest == "" || rest[0] == '/')
}

func below(dir, parent string) bool { return dir != parent && within(dir, parent) }

func readPort(p *plan, value string) (err error) {
	p.port, err = parsePort(keyPort, value)
	return err
}

func readHealthPort(p *plan, value string) (err error) {
	p.healthPort, err = parsePort(keyHealthPort, value)
	return err
}

func parsePort(key, value string) (int32, error) {
	port, err := strconv.ParseInt(value, 10, 32)
	if err != nil || !portNumber.MatchString(value) || port < 1024 || port > 65535 {
		return 0, refuse(key, value, "use a port from 1024 to 65535, because the sidecar runs without privileges")
	}
	return int32(port), nil
}

func readImage(p *plan, value string) error {
	if !imageReference.MatchString(value) {
		return refuse(keyImage, value, "use an image reference such as registry.example/elector:v1")
	}
	p.image = value
	return nil
}

func readLogLevel(p *plan, value string) error {
	level, err := strconv.Atoi(value)
	if err != nil || level < 0 || level > maxLogLevel {
		return refuse(keyLogLevel, value, "use a number from 0 to %d", maxLogLevel)
	}
	p.logLevel = level
	return nil
}

func readCPURequest(p *plan, value string) (err error) {
	if p.cpu, err = parseQuantity(keyCPURequest, value, DefaultCPURequest); err == nil && p.cpu.Cmp(maxCPU) > 0 {
		err = refuse(keyCPURequest, value, "use at most %s, such as %s", &maxCPU, DefaultCPURequest)
	}
	return err
}

func readMemoryRequest(p *plan, value string) (err error) {
	p.memory, err = parseQuantity(keyMemoryRequest, value, DefaultMemoryRequest)
	return err
}

func readMemoryLimit(p *plan, value string) (err error) {
	if p.limit, err = parseQuantity(keyMemoryLimit, value, DefaultMemoryLimit); err == nil && p.limit.Cmp(minMemoryLimit) < 0 {
		err = refuse(keyMemoryLimit, value, "use at least %s, which the sidecar needs to start", &minMemoryLimit)
	}
	return err
}

func parseQuantity(key, value, example string) (quantity, error) {
	var parsed resource.Quantity
	if plainQuantity.MatchString(value) {
		// An error leaves zero, which is refused just below.
		parsed, _ = resource.ParseQuantity(value)
	}
	if parsed.Sign() <= 0 {
		return quantity{}, refuse(key, value, "use a quantity above 0 such as %s", example)
	}
	return quantity{Quantity: parsed, chosen: true}, nil
}
