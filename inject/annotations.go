package inject

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/elector"
)

// Annotation is one that a user may set on a workload or on its pod template.
type Annotation struct {
	// Key is the whole key, Prefix included.
	Key string
	// Value says in Markdown what may be given.
	Value string
	// Default says in Markdown what counts if it is not given, by this package and
	// the chart as they are shipped.
	Default string

	// read notes the value in the plan. It is nil for enabled, which decides
	// whether there is a plan, and for the election's settings, which are read
	// together.
	read func(p *plan, value string) error
	// of returns what a sidecar has of it. It is nil for what shows elsewhere.
	of func(*corev1.Container) string
	// managers tells that the manager reads it from the pod when it matters: it may
	// change after the pod got its sidecar, and is obeyed as it is then.
	managers bool
	// gates tells that it shows in the containers behind the gate.
	gates bool
}

// Annotations returns every annotation that a user may set, in the order in which
// they are documented and read.
func Annotations() []Annotation { return slices.Clone(annotations) }

// annotations is the one list of them: what is not here is unknown.
var annotations = []Annotation{
	{Key: Prefix + keyEnabled, Value: "`\"true\"` or `\"false\"`", Default: "absent: the workload is not touched"},
	{Key: Prefix + keyMode, Value: "`lease` or `leader-for-life`", Default: "`lease`"},
	{Key: Prefix + keyLock, Value: "name of the Lease or ConfigMap, in the pod's namespace", Default: "[follows from the workload](#the-locks-name)"},
	{Key: Prefix + keyLeaseDuration, Value: "whole seconds, 1s to 24h: how long standbys wait for a sign of the leader", Default: "`15s`", of: flagOf(keyLeaseDuration)},
	{Key: Prefix + keyRenewDeadline, Value: "below lease-duration: how long a claim lasts without renewal", Default: "`10s`, or two thirds of the lease-duration that is given", of: flagOf(keyRenewDeadline)},
	{Key: Prefix + keyRetryPeriod, Value: "at least 100ms, 1.2 times it below renew-deadline: pause between tries after a failure, less towards the end of a claim", Default: "`2s`, or a fifth of the renew-deadline that is given or follows", of: flagOf(keyRetryPeriod)},
	{Key: Prefix + keyContainers, Value: "names of the app containers that get mount and environment, comma-separated", Default: "all", read: readContainers},
	{Key: Prefix + keyStatusDir, Value: "where the status volume is mounted in app containers", Default: "`" + statusDir + "`", read: readStatusDir},
	{Key: Prefix + keyPort, Value: "1024 to 65535: HTTP for the app", Default: "`" + strconv.Itoa(defaultPort) + "`", read: readPort, of: portOf("http-address")},
	{Key: Prefix + keyHealthPort, Value: "1024 to 65535: HTTP for Prometheus and people", Default: "`" + strconv.Itoa(defaultHealthPort) + "`", read: readHealthPort, of: portOf("health-address")},
	{Key: Prefix + keyHandoverWhen, Value: "`broken`, `unready` or `never`: what must be wrong with the leader's app for [another to lead](failover.md)", Default: "`broken`", read: readHandoverWhen, managers: true},
	{Key: Prefix + keyUnreadyFor, Value: "5s to 1h: for how long without a break", Default: "`30s`", read: readUnreadyFor, managers: true},
	{Key: Prefix + keyGate, Value: "`\"true\"` for all app containers, or names of some, comma-separated: they [run on the leader alone](gate.md)", Default: "absent: all run in every pod", read: readGate, gates: true},
	{Key: Prefix + keyCommand, Value: "JSON object of gated containers that have no command, and what their images run", Default: "absent: each has a command", read: readCommand, gates: true},
	{Key: Prefix + keyStopGrace, Value: "500ms to 1h: how long before the claim's end a gated app is told to stop, if the stop was not planned", Default: "behind a gate `2s`", read: readStopGrace, gates: true},
	{Key: Prefix + keyImage, Value: "the sidecar's image, which has the program at `/elector` and is not older than the manager", Default: "chart value", read: readImage, of: imageOf},
	{Key: Prefix + keyLogLevel, Value: "0 to 10", Default: "`0`", read: readLogLevel, of: flagOf("v")},
	{Key: Prefix + keyCPURequest, Value: "at most 1", Default: "`" + DefaultCPURequest + "`", read: readCPURequest, of: requestOf(corev1.ResourceCPU)},
	{Key: Prefix + keyMemoryRequest, Value: "at most the limit", Default: "`" + DefaultMemoryRequest + "`", read: readMemoryRequest, of: requestOf(corev1.ResourceMemory)},
	{Key: Prefix + keyMemoryLimit, Value: "at least 16Mi", Default: "`" + DefaultMemoryLimit + "`", read: readMemoryLimit, of: limitOf(corev1.ResourceMemory)},
}

// The names of those that the code speaks of, after Prefix. The election's own
// are the fields of elector.Settings.
const (
	keyEnabled       = "enabled"
	keyLock          = elector.FieldLock
	keyMode          = elector.FieldMode
	keyLeaseDuration = elector.FieldLeaseDuration
	keyRenewDeadline = elector.FieldRenewDeadline
	keyRetryPeriod   = elector.FieldRetryPeriod
	keyContainers    = "containers"
	keyStatusDir     = "status-dir"
	keyPort          = "port"
	keyHealthPort    = "health-port"
	keyHandoverWhen  = "handover-when"
	keyUnreadyFor    = "unready-for"
	keyGate          = "gate"
	keyCommand       = "command"
	keyStopGrace     = "stop-grace"
	keyImage         = "image"
	keyLogLevel      = "log-level"
	keyCPURequest    = "cpu-request"
	keyMemoryRequest = "memory-request"
	keyMemoryLimit   = "memory-limit"
)

// isKnown reports whether a user may set the annotation.
func isKnown(key string) bool {
	return slices.ContainsFunc(annotations, func(a Annotation) bool { return a.Key == key })
}

// notForUsers are names under Prefix that are no annotation of a workload, with
// what to tell somebody who sets them there.
var notForUsers = map[string]string{
	"adopt":     "it belongs on a Lease or ConfigMap that elector did not make and shall use",
	"injected":  "it is a label that elector sets on pods itself",
	"role":      "it is a label that elector sets on pods itself",
	"status":    "elector sets it on pods itself",
	"carried":   "elector sets it on workloads itself",
	"claim":     "elector sets it on locks itself",
	"handover":  "it belongs on a lock, and asks its holder for a handover",
	"next":      "elector sets it on locks itself",
	"write":     "it is a label that elector sets on locks itself",
	"cpu-limit": "there is no such limit, because a throttled renewal loses the lease",
}
