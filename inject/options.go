package inject

import (
	"errors"
	"fmt"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/elector-io/elector/elector"
)

// The defaults of Options. The sidecar needs about 10 MiB and next to no CPU;
// the limit leaves room for the garbage collector.
const (
	DefaultCPURequest    = "10m"
	DefaultMemoryRequest = "16Mi"
	DefaultMemoryLimit   = "64Mi"
	DefaultGuaranteedCPU = "50m"
)

// Options is what the administrator of the cluster decides for all workloads.
// A field at its zero value means its default.
type Options struct {
	// Image is the sidecar's image reference. Required. A pod overrides it with
	// elector.io/image.
	Image string
	// ImagePullPolicy of the sidecar. Default: empty, the API server's choice
	// (IfNotPresent, or Always for the tag latest).
	ImagePullPolicy corev1.PullPolicy
	// Version is noted in the annotation elector.io/status. Default: empty.
	Version string
	// Settings are the mode and durations of pods that do not choose their own.
	// Lock must be empty, because a lock belongs to one workload. Default:
	// elector.DefaultSettings, field by field.
	Settings elector.Settings
	// ForbidLeaderForLife refuses elector.io/mode leader-for-life. Default: both
	// modes are allowed.
	ForbidLeaderForLife bool
	// LogLevel is klog's verbosity of the sidecar, from 0 to 10. Default 0.
	LogLevel int
	// CPURequest of the sidecar, above 0 and at most 1. Default 10m. There is no
	// CPU limit, because a throttled renewal loses the lease.
	CPURequest resource.Quantity
	// GuaranteedCPU is the CPU request and limit of the sidecar in a pod of QoS
	// class Guaranteed, which needs a limit to stay one. Above 0 and at most 1.
	// Default 50m: a TLS handshake is done within three periods of 100ms.
	GuaranteedCPU resource.Quantity
	// MemoryRequest of the sidecar, above 0 and at most MemoryLimit. Default 16Mi.
	MemoryRequest resource.Quantity
	// MemoryLimit of the sidecar, at least 16Mi. Default 64Mi.
	MemoryLimit resource.Quantity
}

// maxCPU catches 100 written for 100m.
var maxCPU = resource.MustParse("1")

// minMemoryLimit catches 32 written for 32Mi; with less the sidecar is killed
// while it starts.
var minMemoryLimit = resource.MustParse("16Mi")

// imageReference accepts every reference a registry can serve, and nothing that
// a shell, a log or the kubelet's $(VAR) expansion could read as something else.
var imageReference = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,511}$`)

const maxLogLevel = 10

// Validate reports the first field that cannot be used.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch {
	case !imageReference.MatchString(o.Image):
		return fmt.Errorf("image %q is not an image reference", o.Image)
	case o.ImagePullPolicy != "" && o.ImagePullPolicy != corev1.PullAlways && o.ImagePullPolicy != corev1.PullIfNotPresent && o.ImagePullPolicy != corev1.PullNever:
		return fmt.Errorf("image pull policy %q is not one of Always, IfNotPresent, Never", o.ImagePullPolicy)
	case o.Settings.Lock != "":
		return errors.New("settings must not name a lock: a lock belongs to one workload")
	case o.ForbidLeaderForLife && o.Settings.Mode == elector.ModeLeaderForLife:
		return fmt.Errorf("the default mode is %s, which is forbidden", o.Settings.Mode)
	case o.LogLevel < 0 || o.LogLevel > maxLogLevel:
		return fmt.Errorf("log level %d is not between 0 and %d", o.LogLevel, maxLogLevel)
	case o.CPURequest.Sign() < 0 || o.CPURequest.Cmp(maxCPU) > 0:
		return fmt.Errorf("CPU request %s is not above 0 and at most %s", &o.CPURequest, &maxCPU)
	case o.GuaranteedCPU.Sign() < 0 || o.GuaranteedCPU.Cmp(maxCPU) > 0:
		return fmt.Errorf("guaranteed CPU %s is not above 0 and at most %s", &o.GuaranteedCPU, &maxCPU)
	case o.MemoryLimit.Cmp(minMemoryLimit) < 0:
		return fmt.Errorf("memory limit %s is below %s", &o.MemoryLimit, &minMemoryLimit)
	case o.MemoryRequest.Sign() < 0 || o.MemoryRequest.Cmp(o.MemoryLimit) > 0:
		return fmt.Errorf("memory request %s is not above 0 and at most the limit %s", &o.MemoryRequest, &o.MemoryLimit)
	}
	s := o.Settings
	s.Lock = "any"
	if err := s.Validate(""); err != nil {
		return fmt.Errorf("default settings: %w", err)
	}
	return nil
}

func (o Options) withDefaults() Options {
	defaults := elector.DefaultSettings()
	if o.Settings.Mode == "" {
		o.Settings.Mode = defaults.Mode
	}
	if o.Settings.LeaseDuration == 0 {
		o.Settings.LeaseDuration = defaults.LeaseDuration
	}
	if o.Settings.RenewDeadline == 0 {
		o.Settings.RenewDeadline = defaults.RenewDeadline
	}
	if o.Settings.RetryPeriod == 0 {
		o.Settings.RetryPeriod = defaults.RetryPeriod
	}
	for _, q := range []struct {
		to    *resource.Quantity
		value resource.Quantity
	}{
		{&o.CPURequest, defaultCPURequest},
		{&o.MemoryRequest, defaultMemoryRequest},
		{&o.MemoryLimit, defaultMemoryLimit},
		{&o.GuaranteedCPU, defaultGuaranteedCPU},
	} {
		if q.to.IsZero() {
			*q.to = q.value
		}
	}
	return o
}

var (
	defaultCPURequest    = resource.MustParse(DefaultCPURequest)
	defaultMemoryRequest = resource.MustParse(DefaultMemoryRequest)
	defaultMemoryLimit   = resource.MustParse(DefaultMemoryLimit)
	defaultGuaranteedCPU = resource.MustParse(DefaultGuaranteedCPU)
)
