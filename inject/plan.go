package inject

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/elector-io/elector/elector"
)

// plan is what the annotations of one pod ask for, with the defaults filled in.
type plan struct {
	settings   elector.Settings
	containers []string // names; nil means all
	statusDir  string
	port       int32
	healthPort int32
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

// newPlan reads the annotations. lock is the name if they do not choose one.
func newPlan(annotations map[string]string, lock string, opts Options) (plan, error) {
	value := func(key string) (string, bool) {
		v, ok := annotations[Prefix+key]
		return v, ok
	}
	settings, err := elector.ParseSettings(Prefix, func(field string) (string, bool) {
		if v, ok := value(field); ok {
			return v, true
		}
		switch field {
		case keyLock:
			return lock, true
		case keyMode:
			return string(opts.Settings.Mode), true
		case keyLeaseDuration:
			return opts.Settings.LeaseDuration.String(), true
		case keyRenewDeadline:
			return opts.Settings.RenewDeadline.String(), true
		case keyRetryPeriod:
			return opts.Settings.RetryPeriod.String(), true
		}
		return "", false
	})
	if err != nil {
		return plan{}, err
	}
	p := plan{
		settings:   settings,
		statusDir:  statusDir,
		port:       defaultPort,
		healthPort: defaultHealthPort,
		image:      opts.Image,
		logLevel:   opts.LogLevel,
		cpu:        quantity{Quantity: opts.CPURequest},
		memory:     quantity{Quantity: opts.MemoryRequest},
		limit:      quantity{Quantity: opts.MemoryLimit},
	}
	if opts.ForbidLeaderForLife && settings.Mode == elector.ModeLeaderForLife {
		return plan{}, refuse(keyMode, string(settings.Mode), "this cluster allows %s only", elector.ModeLease)
	}
	if v, ok := value(keyContainers); ok {
		if p.containers, err = containerNames(v); err != nil {
			return plan{}, err
		}
	}
	if v, ok := value(keyStatusDir); ok {
		if p.statusDir, err = mountPath(v); err != nil {
			return plan{}, err
		}
	}
	for _, port := range []struct {
		key string
		to  *int32
	}{{keyPort, &p.port}, {keyHealthPort, &p.healthPort}} {
		if v, ok := value(port.key); ok {
			if *port.to, err = parsePort(port.key, v); err != nil {
				return plan{}, err
			}
		}
	}
	if p.port == p.healthPort {
		return plan{}, refuse(keyHealthPort, strconv.Itoa(int(p.healthPort)), "it must differ from %s (%d)", Prefix+keyPort, p.port)
	}
	if v, ok := value(keyImage); ok {
		if !imageReference.MatchString(v) {
			return plan{}, refuse(keyImage, v, "use an image reference such as registry.example/elector:v1")
		}
		p.image = v
	}
	if v, ok := value(keyLogLevel); ok {
		level, err := strconv.Atoi(v)
		if err != nil || level < 0 || level > maxLogLevel {
			return plan{}, refuse(keyLogLevel, v, "use a number from 0 to %d", maxLogLevel)
		}
		p.logLevel = level
	}
	return p.withResources(value)
}

func (p plan) withResources(value func(key string) (string, bool)) (plan, error) {
	for _, q := range []struct {
		key, example string
		to           *quantity
	}{{keyCPURequest, "10m", &p.cpu}, {keyMemoryRequest, "16Mi", &p.memory}, {keyMemoryLimit, "64Mi", &p.limit}} {
		v, ok := value(q.key)
		if !ok {
			continue
		}
		var parsed resource.Quantity
		if plainQuantity.MatchString(v) {
			// An error leaves zero, which is refused just below.
			parsed, _ = resource.ParseQuantity(v)
		}
		if parsed.Sign() <= 0 {
			return plan{}, refuse(q.key, v, "use a quantity above 0 such as %s", q.example)
		}
		*q.to = quantity{Quantity: parsed, chosen: true}
	}
	switch {
	case p.cpu.Cmp(maxCPU) > 0:
		return plan{}, refuse(keyCPURequest, p.cpu.String(), "use at most %s, such as 10m", &maxCPU)
	case p.limit.Cmp(minMemoryLimit) < 0:
		return plan{}, refuse(keyMemoryLimit, p.limit.String(), "use at least %s, which the sidecar needs to start", &minMemoryLimit)
	case p.memory.Cmp(p.limit.Quantity) <= 0:
		return p, nil
	case p.memory.chosen:
		return plan{}, refuse(keyMemoryRequest, p.memory.String(), "it must not be above %s (%s)", Prefix+keyMemoryLimit, &p.limit.Quantity)
	default:
		// The pod lowered the limit below the cluster's request.
		p.memory = p.limit
		p.memory.chosen = false
		return p, nil
	}
}

// containerNames parses a comma-separated list.
func containerNames(value string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return nil, refuse(keyContainers, value, "use the names of containers of the pod, separated by commas")
		}
		names = append(names, name)
	}
	return names, nil
}

// mountPath parses a directory for the status volume.
func mountPath(value string) (string, error) {
	dir := strings.TrimSuffix(value, "/")
	switch {
	case len(value) > maxPath || !plainPath.MatchString(value) || path.Clean(dir) != dir:
		return "", refuse(keyStatusDir, value, "use an absolute path of letters, digits, '.', '_' and '-', such as %s", statusDir)
	case within(dir, "/proc") || within(dir, "/sys"):
		return "", refuse(keyStatusDir, value, "a container cannot start with a mount below /proc or /sys, use a path such as %s", statusDir)
	}
	return dir, nil
}

// within reports whether dir is parent or below it; both are clean.
func within(dir, parent string) bool {
	rest, ok := strings.CutPrefix(dir, parent)
	return ok && (rest == "" || rest[0] == '/')
}

func parsePort(key, value string) (int32, error) {
	port, err := strconv.ParseInt(value, 10, 32)
	if err != nil || !portNumber.MatchString(value) || port < 1024 || port > 65535 {
		return 0, refuse(key, value, "use a port from 1024 to 65535, because the sidecar runs without privileges")
	}
	return int32(port), nil
}
