package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// config is what the flags and the environment say.
type config struct {
	settings      elector.Settings
	namespace     string
	identity      string
	podName       string
	podUID        types.UID
	statusDir     string
	httpAddress   string
	healthAddress string
	kubeconfig    string
	logFormat     string
	verbosity     int
	showVersion   bool
}

// option is one flag. Its environment twin is ELECTOR_ and its name in capitals;
// others are names that other leader-electors use.
type option struct {
	name     string
	fallback string // the default
	others   []string
	help     string
}

var options = []option{
	{elector.FieldLock, "", []string{"LEASE_NAME"}, "name of the Lease or ConfigMap to contend for (required)"},
	{"namespace", "", []string{"NAMESPACE", "POD_NAMESPACE"}, "namespace of the lock (default: the pod's, or the kubeconfig context's)"},
	{elector.FieldMode, string(elector.DefaultMode), nil, "lease or leader-for-life"},
	{"identity", "", nil, "this candidate's name in the lock (default: $POD_NAME_$POD_UID, or hostname_uuid)"},
	{"status-dir", "/var/run/elector", nil, "directory for the files leader and status.json"},
	{"http-address", "127.0.0.1:4040", nil, "address for the application: /, /status, /leader, /events, /resign"},
	{"health-address", ":4041", nil, "address for kubelet and Prometheus: /healthz, /leader, /metrics"},
	{elector.FieldLeaseDuration, elector.DefaultLeaseDuration.String(), nil, "how long standbys wait for a sign of the leader; whole seconds"},
	{elector.FieldRenewDeadline, elector.DefaultRenewDeadline.String(), nil, "how long a claim lasts without renewal"},
	{elector.FieldRetryPeriod, elector.DefaultRetryPeriod.String(), nil, "pause between tries after a failure"},
	{"kubeconfig", "", nil, "kubeconfig file (default: the pod's service account, $KUBECONFIG, ~/.kube/config)"},
	{"log-format", "text", nil, "text or json"},
	{"v", "0", nil, "log verbosity, 0 to 10"},
}

var errHelp = errors.New("help is asked for")

// environmentTwin is the variable that is read when the flag is not given.
func environmentTwin(flagName string) string {
	return "ELECTOR_" + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// parse reads flags first, then the environment, then defaults. Every error is
// one line that names the flag.
func parse(args []string, getenv func(string) string) (config, error) {
	values, err := readFlags(args)
	if err != nil {
		return config{}, err
	}
	if _, ok := values["version"]; ok {
		return config{showVersion: true}, nil
	}
	lookup := func(name string) (string, bool) {
		if v, ok := values[name]; ok {
			return v, true
		}
		for _, o := range options {
			if o.name != name {
				continue
			}
			for _, variable := range append([]string{environmentTwin(name)}, o.others...) {
				if v := getenv(variable); v != "" {
					return v, true
				}
			}
			return o.fallback, o.fallback != ""
		}
		return "", false
	}
	text := func(name string) string { v, _ := lookup(name); return v }

	cfg := config{
		namespace: text("namespace"), identity: text("identity"), statusDir: text("status-dir"),
		httpAddress: text("http-address"), healthAddress: text("health-address"),
		kubeconfig: text("kubeconfig"), logFormat: text("log-format"),
		podName: getenv(kube.PodNameEnv), podUID: types.UID(getenv(kube.PodUIDEnv)),
	}
	if cfg.settings, err = elector.ParseSettings("--", lookup); err != nil {
		return config{}, err
	}
	if err := cfg.check(text("v")); err != nil {
		return config{}, err
	}
	return cfg, cfg.nameCandidate()
}

// readFlags returns the flags that are given.
func readFlags(args []string) (map[string]string, error) {
	set := flag.NewFlagSet("elector", flag.ContinueOnError)
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
	values := map[string]string{}
	set.Visit(func(f *flag.Flag) { values[f.Name] = f.Value.String() })
	return values, nil
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
			return &elector.FieldError{Field: a.name, Value: a.value, Allowed: "use host:port or :port"}
		}
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
		own := elector.Identity(cfg.podName, string(cfg.podUID))
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
		cfg.identity = elector.Identity(cfg.podName, string(cfg.podUID))
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("--identity must be given, the host has no name: %w", err)
	}
	cfg.identity = elector.Identity(host, uuid.NewString())
	return nil
}

// client finds the API server and the lock's namespace: a flag first, then the
// pod's service account, then the user's kubeconfig.
func (cfg *config) client() (*rest.Config, string, error) {
	namespace := cfg.namespace
	if cfg.kubeconfig == "" {
		client, err := rest.InClusterConfig()
		if err == nil {
			if namespace == "" {
				if namespace, err = kube.PodNamespace(); err != nil {
					return nil, "", fmt.Errorf("--namespace is not given: %w", err)
				}
			}
			client.UserAgent = userAgent()
			return client, namespace, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, "", fmt.Errorf("using the pod's service account: %w", err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules() // $KUBECONFIG, then ~/.kube/config
	rules.ExplicitPath = cfg.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil)
	client, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("--kubeconfig %q: %w", cfg.kubeconfig, err)
	}
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, "", fmt.Errorf("--kubeconfig %q: %w", cfg.kubeconfig, err)
		}
	}
	client.UserAgent = userAgent()
	return client, namespace, nil
}

func userAgent() string { return "elector/" + version }

// setUpLogging sends klog's lines to w.
func (cfg *config) setUpLogging(w io.Writer) {
	if cfg.logFormat == "json" {
		// logr's level n is slog's -n.
		klog.SetSlogLogger(slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.Level(-cfg.verbosity)})))
		return
	}
	text := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(w), textlogger.Verbosity(cfg.verbosity)))
	klog.SetLoggerWithOptions(text, klog.ContextualLogger(true)) // else klog asks its own verbosity, which is 0
}

func usage(w io.Writer) {
	fmt.Fprint(w, "elector contends for one lock and tells the application beside it whether it leads.\n\nFlags, each with an environment variable:\n")
	for _, o := range options {
		names := strings.Join(append([]string{environmentTwin(o.name)}, o.others...), ", ")
		fmt.Fprintf(w, "  --%s  (%s)\n      %s", o.name, names, o.help)
		if o.fallback != "" {
			fmt.Fprintf(w, " (default %s)", o.fallback)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "  --version\n      print the version and exit\n")
}
