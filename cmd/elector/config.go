package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/elector-io/elector/cmd/internal/program"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube/lock"
)

// config is what the flags and the environment say.
type config struct {
	settings      elector.Settings
	namespace     string
	identity      string
	podName       string
	podUID        string
	statusDir     string
	httpAddress   string
	healthAddress string
	aside         string // why it must not contend, if it must not
	kubeconfig    string
	unyielding    bool // never resigns
	gate          gateConfig
	logFormat     string
	verbosity     int
}

// self is the program and its flags. Other variables are names that other
// leader-electors use.
var self = program.Program{
	Name: "elector", Version: version, Prefix: "ELECTOR_", Flags: flags,
	About: "elector contends for one lock and tells the application beside it whether it leads.\n`elector ready` waits until one can be asked, see `elector ready --help`.",
}

// httpAddress is where the application asks.
var httpAddress = program.Flag{Name: "http-address", Default: "127.0.0.1:4040", Help: "address for the application: /, /status, /leader, /events, /resign"}

// resignFlag tells whether the candidate gives its lock up when somebody asks for it.
const resignFlag = "resign"

const addressAllowed = "use host:port or :port"

var flags = []program.Flag{
	{Name: elector.FieldLock, Help: "name of the Lease or ConfigMap to contend for (required)", Others: []string{"LEASE_NAME"}},
	{Name: "namespace", Help: "namespace of the lock (default: the pod's, or the kubeconfig context's)", Others: []string{"NAMESPACE", "POD_NAMESPACE"}},
	{Name: elector.FieldMode, Default: string(elector.DefaultMode), Help: "lease or leader-for-life"},
	{Name: "identity", Help: "this candidate's name in the lock (default: $POD_NAME_$POD_UID, or hostname_uuid)"},
	{Name: "status-dir", Default: "/var/run/elector", Help: "directory for the files leader and status.json"},
	httpAddress,
	{Name: "health-address", Default: ":4041", Help: "address for Prometheus and people: /healthz, /leader, /metrics"},
	{Name: elector.FieldLeaseDuration, Default: elector.DefaultLeaseDuration.String(), Help: "how long standbys wait for a sign of the leader; whole seconds"},
	{Name: elector.FieldRenewDeadline, Help: "how long a claim lasts without renewal (default: two thirds of the lease-duration, 10s)"},
	{Name: elector.FieldRetryPeriod, Help: "pause between tries after a failure (default: a fifth of the renew-deadline, 2s)"},
	{Name: "injected", Help: "what the pod says of its injection: label, enabled, status; if it is given and they are not those of an injected pod, it stands by for good"},
	{Name: resignFlag, Default: "true", Help: "false refuses POST /resign and requests for a handover: of a leader that nothing but its pod's end stops"},
	{Name: gateDirFlag, Help: "directory to copy the program gate to, which the app containers begin with; given, they are behind the gate"},
	{Name: gateGraceFlag, Default: elector.DefaultGrace.String(), Help: "how long the lock is held, when a claim ends as planned, for what runs behind the gate"},
	{Name: "kubeconfig", Help: "kubeconfig file (default: the pod's service account, $KUBECONFIG, ~/.kube/config)"},
	{Name: "log-format", Default: "text", Help: "text or json"},
	{Name: "v", Default: "0", Help: "log verbosity, 0 to 10"},
}

// parse makes a config of the flags' values. Every error is one line that names
// the flag.
func parse(v program.Values, getenv func(string) string) (config, error) {
	cfg := config{
		namespace: v.Text("namespace"), identity: v.Text("identity"), statusDir: v.Text("status-dir"),
		httpAddress: v.Text("http-address"), healthAddress: v.Text("health-address"),
		kubeconfig: v.Text("kubeconfig"), logFormat: v.Text("log-format"),
		podName: getenv(lock.PodNameEnv), podUID: getenv(lock.PodUIDEnv),
	}
	var err error
	if cfg.settings, err = elector.ParseSettings("--", v.Lookup); err != nil {
		return config{}, err
	}
	if err := cfg.check(v.Text("v")); err != nil {
		return config{}, err
	}
	resigns, err := strconv.ParseBool(v.Text(resignFlag))
	if err != nil {
		return config{}, &elector.FieldError{Field: "--" + resignFlag, Value: v.Text(resignFlag), Allowed: "use true or false"}
	}
	cfg.unyielding = !resigns
	if cfg.gate, err = parseGate(v.Text(gateDirFlag), v.Text(gateGraceFlag), getenv); err != nil {
		return config{}, err
	}
	if injected, given := v.Lookup("injected"); given && !isInjected(injected) {
		cfg.aside = notInjected
	}
	return cfg, cfg.nameCandidate()
}

// notInjected is what people read in a copy's status.json and log.
const notInjected = "the pod lacks the label elector.io/injected, elector.io/enabled \"true\" or the annotation elector.io/status, so it is a copy, and neither Services nor the manager would find it as the leader"

// isInjected reports whether a pod is one that asks to be elected, and whose
// leadership others would see: `kubectl debug --copy-to` keeps the sidecar, but drops
// labels and annotations. The value is those of elector.io/injected, enabled and
// status with a space between them, each empty if it is missing. An older manager
// left out enabled; a status is a JSON object, which enabled never is.
func isInjected(value string) bool {
	label, rest, _ := strings.Cut(value, " ")
	if strings.HasPrefix(rest, "{") {
		return label == "true"
	}
	enabled, status, _ := strings.Cut(rest, " ")
	return label == "true" && enabled == "true" && status != ""
}

// check validates what is not a setting of the election.
func (cfg *config) check(verbosity string) error {
	var err error
	if cfg.verbosity, err = strconv.Atoi(verbosity); err != nil || cfg.verbosity < 0 || cfg.verbosity > 10 {
		return &elector.FieldError{Field: "--v", Value: verbosity, Allowed: "use a number from 0 to 10"}
	}
	if cfg.logFormat != "text" && cfg.logFormat != "json" {
		return &elector.FieldError{Field: "--log-format", Value: cfg.logFormat, Allowed: "use text or json"}
	}
	for _, a := range []struct{ name, value string }{{"--http-address", cfg.httpAddress}, {"--health-address", cfg.healthAddress}} {
		if _, _, err := net.SplitHostPort(a.value); err != nil {
			return &elector.FieldError{Field: a.name, Value: a.value, Allowed: addressAllowed}
		}
	}
	if cfg.kubeconfig != "" && !readsKubeconfig {
		return &elector.FieldError{Field: "--kubeconfig", Value: cfg.kubeconfig, Allowed: onlyInPods}
	}
	if cfg.statusDir == "" {
		return &elector.FieldError{Field: "--status-dir", Allowed: "use the path of a directory"}
	}
	return nil
}

// nameCandidate fills in the identity.
func (cfg *config) nameCandidate() error {
	inPod := cfg.podName != "" && cfg.podUID != ""
	if cfg.settings.Mode == elector.ModeLeaderForLife {
		own := elector.Identity(cfg.podName, cfg.podUID)
		switch {
		case !inPod:
			return &elector.FieldError{Field: "--mode", Value: string(cfg.settings.Mode), Allowed: "it needs a Pod to own the lock: set POD_NAME and POD_UID by the downward API, or use lease"}
		case cfg.identity != "" && cfg.identity != own:
			return &elector.FieldError{Field: "--identity", Value: cfg.identity, Allowed: "in leader-for-life it is $POD_NAME_$POD_UID, leave it out"}
		}
	}
	if cfg.identity != "" {
		return nil
	}
	if inPod {
		cfg.identity = elector.Identity(cfg.podName, cfg.podUID)
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("--identity must be given, the host has no name: %w", err)
	}
	cfg.identity = elector.Identity(host, uuid.NewString())
	return nil
}

// server finds the API server and the lock's namespace: a flag first, then the
// pod's service account, then the user's kubeconfig.
func (cfg *config) server() (server lock.Server, namespace string, err error) {
	if cfg.kubeconfig == "" {
		server, err = lock.InPod(userAgent())
	} else {
		err = lock.ErrNotInPod
	}
	switch {
	case errors.Is(err, lock.ErrNotInPod):
		server, namespace, err = outside(cfg.kubeconfig)
	case err == nil && cfg.namespace == "":
		if namespace, err = lock.PodNamespace(); err != nil {
			err = fmt.Errorf("--namespace is not given: %w", err)
		}
	}
	if err != nil {
		return lock.Server{}, "", err
	}
	return server, cmp.Or(cfg.namespace, namespace), nil
}

// onlyInPods is said by the build that reads no kubeconfig.
const onlyInPods = "this build of elector is the image's and runs in pods only, outside use the one that `make build` makes"

func userAgent() string { return "elector/" + version }
