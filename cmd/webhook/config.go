package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-io/elector/cmd/webhook/internal/cert"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// config is what the flags and the environment say.
type config struct {
	namespace            string
	identity             string
	service              string
	webhookConfiguration string
	election             elector.Settings
	sidecar              inject.Options

	webhookAddress string
	healthAddress  string
	metricsAddress string
	drain          time.Duration

	certificateMode     string
	certificateSecret   string
	certificateDir      string
	caLifetime          time.Duration
	certificateLifetime time.Duration

	kubeconfig  string
	logFormat   string
	verbosity   int
	showVersion bool
}

// The certificate modes.
const (
	certificateSelf  = "self"
	certificateFiles = "files"
)

// option is one flag. Its environment twin is environmentPrefix and its name in
// capitals; others are further variables. set says what would be accepted if it
// cannot use the value.
type option struct {
	name     string
	fallback string // the default
	others   []string
	help     string
	set      func(*config, string) error
}

const environmentPrefix = "ELECTOR_WEBHOOK_"

// No flag may be called port or service-...: for a Service elector-webhook the
// kubelet sets ELECTOR_WEBHOOK_PORT, ELECTOR_WEBHOOK_SERVICE_HOST and the like.
var options = []option{
	{"namespace", "", []string{"POD_NAMESPACE"}, "namespace of the manager, its Service, Secret and lock (required)", name(func(c *config) *string { return &c.namespace })},
	{"service", "elector-webhook", nil, "name of the Service that API servers call", name(func(c *config) *string { return &c.service })},
	{"webhook-configuration", "elector-webhook", nil, "name of the MutatingWebhookConfiguration", name(func(c *config) *string { return &c.webhookConfiguration })},
	{"webhook-address", ":9443", nil, "address for API servers", address(func(c *config) *string { return &c.webhookAddress })},
	{"health-address", ":8081", nil, "address for the kubelet: /healthz, /readyz", address(func(c *config) *string { return &c.healthAddress })},
	{"metrics-address", ":8080", nil, "address for Prometheus: /metrics", address(func(c *config) *string { return &c.metricsAddress })},
	{"drain", "5s", nil, "how long to go on serving, not ready, after SIGTERM", duration(func(c *config) *time.Duration { return &c.drain })},
	{"certificate-mode", certificateSelf, nil, "self: make certificates and write the caBundle; files: read them from --certificate-dir", func(c *config, v string) error {
		c.certificateMode = v
		return oneOf(v, certificateSelf, certificateFiles)
	}},
	{"certificate-secret", "elector-webhook-ca", nil, "Secret in which replicas share their CA (mode self)", name(func(c *config) *string { return &c.certificateSecret })},
	{"certificate-dir", "/var/run/elector-webhook", nil, "directory of tls.crt and tls.key (mode files)", text(func(c *config) *string { return &c.certificateDir })},
	{"ca-lifetime", cert.DefaultCALifetime.String(), nil, "how long a CA is valid; renewed after two thirds (mode self)", duration(func(c *config) *time.Duration { return &c.caLifetime })},
	{"certificate-lifetime", cert.DefaultCertificateLifetime.String(), nil, "how long a serving certificate is valid; renewed after two thirds (mode self)", duration(func(c *config) *time.Duration { return &c.certificateLifetime })},
	{elector.FieldLock, "elector-webhook", nil, "Lease that replicas contend for", text(func(c *config) *string { return &c.election.Lock })},
	{elector.FieldLeaseDuration, elector.DefaultLeaseDuration.String(), nil, "lease-duration of the manager's own election", duration(func(c *config) *time.Duration { return &c.election.LeaseDuration })},
	{elector.FieldRenewDeadline, elector.DefaultRenewDeadline.String(), nil, "renew-deadline of the manager's own election", duration(func(c *config) *time.Duration { return &c.election.RenewDeadline })},
	{elector.FieldRetryPeriod, elector.DefaultRetryPeriod.String(), nil, "retry-period of the manager's own election", duration(func(c *config) *time.Duration { return &c.election.RetryPeriod })},
	{"leader-for-life", "true", nil, "whether workloads may use the mode leader-for-life", func(c *config, v string) error {
		allowed, err := strconv.ParseBool(v)
		c.sidecar.ForbidLeaderForLife = !allowed
		if err != nil {
			return errors.New("use true or false")
		}
		return nil
	}},
	{"sidecar-image", "", nil, "image of the sidecar (required)", text(func(c *config) *string { return &c.sidecar.Image })},
	{"sidecar-image-pull-policy", "", nil, "Always, IfNotPresent or Never (default: the API server's choice)", text(func(c *config) *string { return (*string)(&c.sidecar.ImagePullPolicy) })},
	{"sidecar-mode", string(elector.DefaultMode), nil, "mode of workloads that choose none", text(func(c *config) *string { return (*string)(&c.sidecar.Settings.Mode) })},
	{"sidecar-lease-duration", elector.DefaultLeaseDuration.String(), nil, "lease-duration of workloads that choose none", duration(func(c *config) *time.Duration { return &c.sidecar.Settings.LeaseDuration })},
	{"sidecar-renew-deadline", elector.DefaultRenewDeadline.String(), nil, "renew-deadline of workloads that choose none", duration(func(c *config) *time.Duration { return &c.sidecar.Settings.RenewDeadline })},
	{"sidecar-retry-period", elector.DefaultRetryPeriod.String(), nil, "retry-period of workloads that choose none", duration(func(c *config) *time.Duration { return &c.sidecar.Settings.RetryPeriod })},
	{"sidecar-log-level", "0", nil, "log verbosity of the sidecar, 0 to 10", level(func(c *config) *int { return &c.sidecar.LogLevel })},
	{"sidecar-cpu-request", inject.DefaultCPURequest, nil, "CPU request of the sidecar", quantity(func(c *config) *resource.Quantity { return &c.sidecar.CPURequest })},
	{"sidecar-guaranteed-cpu", inject.DefaultGuaranteedCPU, nil, "CPU request and limit of the sidecar in a pod of QoS class Guaranteed", quantity(func(c *config) *resource.Quantity { return &c.sidecar.GuaranteedCPU })},
	{"sidecar-memory-request", inject.DefaultMemoryRequest, nil, "memory request of the sidecar", quantity(func(c *config) *resource.Quantity { return &c.sidecar.MemoryRequest })},
	{"sidecar-memory-limit", inject.DefaultMemoryLimit, nil, "memory limit of the sidecar", quantity(func(c *config) *resource.Quantity { return &c.sidecar.MemoryLimit })},
	{"kubeconfig", "", nil, "kubeconfig file (default: the pod's service account)", text(func(c *config) *string { return &c.kubeconfig })},
	{"log-format", "text", nil, "text or json", func(c *config, v string) error {
		c.logFormat = v
		return oneOf(v, "text", "json")
	}},
	{"v", "0", nil, "log verbosity, 0 to 10", level(func(c *config) *int { return &c.verbosity })},
}

func text(to func(*config) *string) func(*config, string) error {
	return func(c *config, v string) error {
		*to(c) = v
		return nil
	}
}

func name(to func(*config) *string) func(*config, string) error {
	return func(c *config, v string) error {
		*to(c) = v
		if len(validation.IsDNS1123Subdomain(v)) > 0 {
			return errors.New("use the name of a Kubernetes object")
		}
		return nil
	}
}

func address(to func(*config) *string) func(*config, string) error {
	return func(c *config, v string) error {
		*to(c) = v
		if _, port, err := net.SplitHostPort(v); err != nil || len(validation.IsValidPortNum(number(port))) > 0 {
			return errors.New("use host:port or :port, with a port from 1 to 65535")
		}
		return nil
	}
}

// number returns 0 for what is none.
func number(v string) int {
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0
	}
	return n
}

func duration(to func(*config) *time.Duration) func(*config, string) error {
	return func(c *config, v string) error {
		d, err := time.ParseDuration(v)
		*to(c) = d
		if err != nil || d < 0 {
			return errors.New("use a duration such as 15s, 1m or 500ms")
		}
		return nil
	}
}

func quantity(to func(*config) *resource.Quantity) func(*config, string) error {
	return func(c *config, v string) error {
		q, err := resource.ParseQuantity(v)
		*to(c) = q
		if err != nil {
			return errors.New("use a quantity such as 10m or 64Mi")
		}
		return nil
	}
}

func level(to func(*config) *int) func(*config, string) error {
	return func(c *config, v string) error {
		n, err := strconv.Atoi(v)
		*to(c) = n
		if err != nil || n < 0 || n > 10 {
			return errors.New("use a number from 0 to 10")
		}
		return nil
	}
}

func oneOf(v string, allowed ...string) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	return errors.New("use " + strings.Join(allowed, " or "))
}

var errHelp = errors.New("help is asked for")

// environmentTwin is the variable that is read when the flag is not given.
func environmentTwin(flagName string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// parse reads flags first, then the environment, then defaults. Every error is
// one line that names the flag.
func parse(args []string, getenv func(string) string) (config, error) {
	given, err := readFlags(args)
	if err != nil {
		return config{}, err
	}
	if _, ok := given["version"]; ok {
		return config{showVersion: true}, nil
	}
	cfg := config{election: elector.Settings{Mode: elector.ModeLease}}
	for _, o := range options {
		v, ok := given[o.name]
		for _, variable := range append([]string{environmentTwin(o.name)}, o.others...) {
			if !ok {
				v = getenv(variable)
				ok = v != ""
			}
		}
		if !ok {
			v = o.fallback
		}
		if !ok && v == "" {
			continue
		}
		if err := o.set(&cfg, v); err != nil {
			return config{}, &elector.FieldError{Field: "--" + o.name, Value: v, Allowed: err.Error()}
		}
	}
	return cfg, cfg.check(getenv)
}

// readFlags returns the flags that are given.
func readFlags(args []string) (map[string]string, error) {
	set := flag.NewFlagSet("webhook", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, o := range options {
		set.String(o.name, "", o.help)
	}
	set.Bool("version", false, "print the version and exit")
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil, errHelp
	} else if err != nil {
		return nil, fmt.Errorf("%w: see --help", err)
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("argument %q is not allowed: only flags are, see --help", set.Arg(0))
	}
	given := map[string]string{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = f.Value.String() })
	return given, nil
}

// check validates what several flags say together, and fills in the identity.
func (c *config) check(getenv func(string) string) error {
	switch {
	case c.namespace == "":
		return &elector.FieldError{Field: "--namespace", Allowed: "it is required; in a pod set POD_NAMESPACE by the downward API"}
	case c.sidecar.Image == "":
		return &elector.FieldError{Field: "--sidecar-image", Allowed: "it is required"}
	case c.certificateMode == certificateFiles && c.certificateDir == "":
		return &elector.FieldError{Field: "--certificate-dir", Allowed: "mode files needs a directory"}
	}
	if err := c.election.Validate("--"); err != nil {
		return err
	}
	defaults := c.sidecar.Settings
	defaults.Lock = "any" // which one is the workload's business
	if err := defaults.Validate("--sidecar-"); err != nil {
		return err
	}
	c.sidecar.Version = version
	if err := c.sidecar.Validate(); err != nil {
		return fmt.Errorf("--sidecar-...: %w", err)
	}
	if c.certificateMode == certificateSelf {
		if err := cert.ValidateLifetimes(c.caLifetime, c.certificateLifetime); err != nil {
			return fmt.Errorf("--ca-lifetime and --certificate-lifetime: %w", err)
		}
	}
	podName, podUID := getenv("POD_NAME"), getenv("POD_UID")
	if podName == "" || podUID == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("POD_NAME and POD_UID are not set and the host has no name: %w", err)
		}
		podName, podUID = host, uuid.NewString()
	}
	c.identity = elector.Identity(podName, podUID)
	return nil
}

// client finds the API server. Its requests are not limited here: API priority
// and fairness does that where it is known how much is too much.
func (c *config) client() (client *rest.Config, err error) {
	if c.kubeconfig != "" {
		client, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	} else {
		client, err = rest.InClusterConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("find the API server (--kubeconfig %q): %w", c.kubeconfig, err)
	}
	client.QPS = -1
	client.UserAgent = "elector-webhook/" + version
	return client, nil
}

// dnsNames are the names by which the Service is called; the first is the one
// that API servers use.
func (c *config) dnsNames() []string {
	name := c.service + "." + c.namespace + ".svc"
	return []string{name, name + ".cluster.local", c.service + "." + c.namespace}
}

func usage(w io.Writer) {
	fmt.Fprint(w, "webhook adds the elector sidecar to pods that ask for it and grants them their locks.\n\nFlags, each with an environment variable:\n")
	for _, o := range options {
		variables := strings.Join(append([]string{environmentTwin(o.name)}, o.others...), ", ")
		fmt.Fprintf(w, "  --%s  (%s)\n      %s", o.name, variables, o.help)
		if o.fallback != "" {
			fmt.Fprintf(w, " (default %s)", o.fallback)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "  --version\n      print the version and exit\n")
}
