package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-io/elector/cmd/internal/program"
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
	statusDir            string
	sidecar              inject.Options
	// namespaceSelector is a label selector as kubectl takes it.
	namespaceSelector string

	webhookAddress string
	healthAddress  string
	metricsAddress string
	drain          time.Duration

	certificateMode     string
	certificateSecret   string
	certificateDir      string
	caLifetime          time.Duration
	certificateLifetime time.Duration

	kubeconfig string
	// memoryLimit is the container's; 0 if unknown.
	memoryLimit resource.Quantity
	logFormat   string
	verbosity   int
}

// The certificate modes.
const (
	certificateSelf  = "self"
	certificateFiles = "files"
)

// option is one flag. set says what would be accepted if it cannot use the value.
type option struct {
	program.Flag
	set func(*config, string) error
}

// No flag may be called port or service-...: for a Service elector-webhook the
// kubelet sets ELECTOR_WEBHOOK_PORT, ELECTOR_WEBHOOK_SERVICE_HOST and the like.
var options = []option{
	{program.Flag{Name: "namespace", Help: "namespace of the manager, its Service, Secret and lock (required)", Others: []string{"POD_NAMESPACE"}}, name(func(c *config) *string { return &c.namespace })},
	{program.Flag{Name: "service", Default: "elector-webhook", Help: "name of the Service that API servers call"}, name(func(c *config) *string { return &c.service })},
	{program.Flag{Name: "webhook-configuration", Default: "elector-webhook", Help: "name of the MutatingWebhookConfiguration"}, name(func(c *config) *string { return &c.webhookConfiguration })},
	{program.Flag{Name: "webhook-address", Default: ":9443", Help: "address for API servers"}, address(func(c *config) *string { return &c.webhookAddress })},
	{program.Flag{Name: "health-address", Default: ":8081", Help: "address for the kubelet: /healthz, /readyz"}, address(func(c *config) *string { return &c.healthAddress })},
	{program.Flag{Name: "metrics-address", Default: ":8080", Help: "address for Prometheus: /metrics"}, address(func(c *config) *string { return &c.metricsAddress })},
	{program.Flag{Name: "drain", Default: "5s", Help: "how long to go on serving, not ready, after SIGTERM"}, duration(func(c *config) *time.Duration { return &c.drain })},
	{program.Flag{Name: "certificate-mode", Default: certificateSelf, Help: "self: make certificates and write the caBundle; files: read them from --certificate-dir"}, func(c *config, v string) error {
		c.certificateMode = v
		return oneOf(v, certificateSelf, certificateFiles)
	}},
	{program.Flag{Name: "certificate-secret", Default: "elector-webhook-ca", Help: "Secret in which replicas share their CA (mode self)"}, name(func(c *config) *string { return &c.certificateSecret })},
	{program.Flag{Name: "certificate-dir", Default: "/var/run/elector-webhook", Help: "directory of tls.crt and tls.key (mode files)"}, text(func(c *config) *string { return &c.certificateDir })},
	{program.Flag{Name: "ca-lifetime", Default: cert.DefaultCALifetime.String(), Help: "how long a CA is valid; renewed after two thirds (mode self)"}, duration(func(c *config) *time.Duration { return &c.caLifetime })},
	{program.Flag{Name: "certificate-lifetime", Default: cert.DefaultCertificateLifetime.String(), Help: "how long a serving certificate is valid; renewed after two thirds (mode self)"}, duration(func(c *config) *time.Duration { return &c.certificateLifetime })},
	{program.Flag{Name: elector.FieldLock, Default: "elector-webhook", Help: "Lease that replicas contend for"}, text(func(c *config) *string { return &c.election.Lock })},
	{program.Flag{Name: elector.FieldLeaseDuration, Default: elector.DefaultLeaseDuration.String(), Help: "lease-duration of the manager's own election"}, duration(func(c *config) *time.Duration { return &c.election.LeaseDuration })},
	{program.Flag{Name: elector.FieldRenewDeadline, Default: elector.DefaultRenewDeadline.String(), Help: "renew-deadline of the manager's own election"}, duration(func(c *config) *time.Duration { return &c.election.RenewDeadline })},
	{program.Flag{Name: elector.FieldRetryPeriod, Default: elector.DefaultRetryPeriod.String(), Help: "retry-period of the manager's own election"}, duration(func(c *config) *time.Duration { return &c.election.RetryPeriod })},
	{program.Flag{Name: "status-dir", Help: "directory that outlives the container, by which a restarted one resumes its lease (default: none; it waits until the lease has run out)"}, text(func(c *config) *string { return &c.statusDir })},
	{program.Flag{Name: "leader-for-life", Default: "true", Help: "whether workloads may use the mode leader-for-life"}, func(c *config, v string) error {
		allowed, err := strconv.ParseBool(v)
		c.sidecar.ForbidLeaderForLife = !allowed
		if err != nil {
			return errors.New("use true or false")
		}
		return nil
	}},
	{program.Flag{Name: "namespace-selector", Help: "label selector of the namespaces in which elector grants, frees and labels, as kubectl takes it; give the webhook configuration the same (default: all)"}, func(c *config, v string) error {
		c.namespaceSelector = v
		if _, err := labels.Parse(v); err != nil {
			return errors.New("use a label selector such as team=shop,stage in (test,live)")
		}
		return nil
	}},
	{program.Flag{Name: "sidecar-image", Help: "image of the sidecar (required)"}, text(func(c *config) *string { return &c.sidecar.Image })},
	{program.Flag{Name: "sidecar-image-pull-policy", Help: "Always, IfNotPresent or Never (default: the API server's choice)"}, text(func(c *config) *string { return (*string)(&c.sidecar.ImagePullPolicy) })},
	{program.Flag{Name: "sidecar-mode", Default: string(elector.DefaultMode), Help: "mode of workloads that choose none"}, text(func(c *config) *string { return (*string)(&c.sidecar.Settings.Mode) })},
	{program.Flag{Name: "sidecar-lease-duration", Default: elector.DefaultLeaseDuration.String(), Help: "lease-duration of workloads that choose none"}, duration(func(c *config) *time.Duration { return &c.sidecar.Settings.LeaseDuration })},
	{program.Flag{Name: "sidecar-renew-deadline", Default: elector.DefaultRenewDeadline.String(), Help: "renew-deadline of workloads that choose none"}, duration(func(c *config) *time.Duration { return &c.sidecar.Settings.RenewDeadline })},
	{program.Flag{Name: "sidecar-retry-period", Default: elector.DefaultRetryPeriod.String(), Help: "retry-period of workloads that choose none"}, duration(func(c *config) *time.Duration { return &c.sidecar.Settings.RetryPeriod })},
	{program.Flag{Name: "sidecar-log-level", Default: "0", Help: "log verbosity of the sidecar, 0 to 10"}, level(func(c *config) *int { return &c.sidecar.LogLevel })},
	{program.Flag{Name: "sidecar-cpu-request", Default: inject.DefaultCPURequest, Help: "CPU request of the sidecar"}, quantity(func(c *config) *resource.Quantity { return &c.sidecar.CPURequest })},
	{program.Flag{Name: "sidecar-guaranteed-cpu", Default: inject.DefaultGuaranteedCPU, Help: "CPU request and limit of the sidecar in a pod of QoS class Guaranteed"}, quantity(func(c *config) *resource.Quantity { return &c.sidecar.GuaranteedCPU })},
	{program.Flag{Name: "sidecar-memory-request", Default: inject.DefaultMemoryRequest, Help: "memory request of the sidecar"}, quantity(func(c *config) *resource.Quantity { return &c.sidecar.MemoryRequest })},
	{program.Flag{Name: "sidecar-memory-limit", Default: inject.DefaultMemoryLimit, Help: "memory limit of the sidecar"}, quantity(func(c *config) *resource.Quantity { return &c.sidecar.MemoryLimit })},
	{program.Flag{Name: "kubeconfig", Help: "kubeconfig file (default: the pod's service account)"}, text(func(c *config) *string { return &c.kubeconfig })},
	{program.Flag{Name: "memory-limit", Help: "memory that the container may have; the garbage collector keeps to four fifths of it (default: it does not)"}, quantity(func(c *config) *resource.Quantity { return &c.memoryLimit })},
	{program.Flag{Name: "log-format", Default: "text", Help: "text or json"}, func(c *config, v string) error {
		c.logFormat = v
		return oneOf(v, "text", "json")
	}},
	{program.Flag{Name: "v", Default: "0", Help: "log verbosity, 0 to 10"}, level(func(c *config) *int { return &c.verbosity })},
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

// self is the program and its flags.
func self() program.Program {
	p := program.Program{
		Name: "webhook", Version: version, Prefix: "ELECTOR_WEBHOOK_",
		About: "webhook adds the elector sidecar to pods that ask for it and grants them their locks.",
	}
	for _, o := range options {
		p.Flags = append(p.Flags, o.Flag)
	}
	return p
}

// parse makes a config of the flags' values. Every error is one line that names
// the flag.
func parse(values program.Values, getenv func(string) string) (config, error) {
	cfg := config{election: elector.Settings{Mode: elector.ModeLease}}
	for _, o := range options {
		v, ok := values.Lookup(o.Name)
		if !ok {
			continue
		}
		if err := o.set(&cfg, v); err != nil {
			return config{}, &elector.FieldError{Field: "--" + o.Name, Value: v, Allowed: err.Error()}
		}
	}
	return cfg, cfg.check(getenv)
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
		return nil, fmt.Errorf("finding the API server (--kubeconfig %q): %w", c.kubeconfig, err)
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
