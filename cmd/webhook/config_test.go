package main

import (
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// required is what has no default.
var required = []string{"--namespace=elector-system", "--sidecar-image=elector:v1"}

func TestParse(t *testing.T) {
	defaults := func() config {
		return config{ //nolint:gosec // G101: the name of a Secret gives nothing away.
			namespace: "elector-system", identity: "web-0_1234", service: "elector-webhook", webhookConfiguration: "elector-webhook",
			election: elector.Settings{Lock: "elector-webhook", Mode: elector.ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second},
			sidecar: inject.Options{
				Image: "elector:v1", Version: "dev",
				Settings:   elector.Settings{Mode: elector.ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second},
				CPURequest: resource.MustParse("10m"), GuaranteedCPU: resource.MustParse("50m"),
				MemoryRequest: resource.MustParse("16Mi"), MemoryLimit: resource.MustParse("64Mi"),
			},
			webhookAddress: ":9443", healthAddress: ":8081", metricsAddress: ":8080", drain: 5 * time.Second,
			certificateMode: "self", certificateSecret: "elector-webhook-ca", certificateDir: "/var/run/elector-webhook",
			caLifetime: 8760 * time.Hour, certificateLifetime: 168 * time.Hour,
			logFormat: "text",
		}
	}
	tests := map[string]struct {
		reason string
		args   []string
		env    map[string]string
		want   func(*config)
		err    string
	}{
		"defaults": {
			reason: "two flags are enough",
			args:   required,
		},
		"environment": {
			reason: "each flag has a twin, the namespace also the downward API's usual name",
			env: map[string]string{
				"POD_NAMESPACE": "elector-system", "ELECTOR_WEBHOOK_SIDECAR_IMAGE": "elector:v1",
				"ELECTOR_WEBHOOK_SIDECAR_IMAGE_PULL_POLICY": "Never", "ELECTOR_WEBHOOK_LEADER_FOR_LIFE": "false", "ELECTOR_WEBHOOK_V": "4",
			},
			want: func(c *config) {
				c.sidecar.ImagePullPolicy, c.sidecar.ForbidLeaderForLife, c.verbosity = corev1.PullNever, true, 4
			},
		},
		"flag before environment": {
			reason: "who types a flag means it",
			args:   append([]string{"--drain=1s", "--sidecar-log-level=3"}, required...),
			env:    map[string]string{"ELECTOR_WEBHOOK_DRAIN": "9s", "POD_NAMESPACE": "other"},
			want:   func(c *config) { c.drain, c.sidecar.LogLevel = time.Second, 3 },
		},
		"a Service's variables": {
			reason: "the kubelet sets them for a Service of our name",
			args:   required,
			env: map[string]string{
				"ELECTOR_WEBHOOK_PORT": "tcp://10.0.0.1:443", "ELECTOR_WEBHOOK_SERVICE_HOST": "10.0.0.1", "ELECTOR_WEBHOOK_SERVICE_PORT": "443",
			},
		},
		"no namespace": {
			reason: "it is required",
			args:   []string{"--sidecar-image=elector:v1"},
			err:    `--namespace "" is not allowed: it is required; in a pod set POD_NAMESPACE by the downward API`,
		},
		"no image": {
			reason: "it is required",
			args:   []string{"--namespace=elector-system"},
			err:    `--sidecar-image "" is not allowed: it is required`,
		},
		"bad variable": {
			reason: "a value is refused in the flag's name, wherever it came from",
			args:   required,
			env:    map[string]string{"ELECTOR_WEBHOOK_DRAIN": "5"},
			err:    `--drain "5" is not allowed: use a duration such as 15s, 1m or 500ms`,
		},
		"bad address":             {args: []string{"--webhook-address=9443"}, err: `--webhook-address "9443" is not allowed: use host:port or :port, with a port from 1 to 65535`},
		"bad port":                {args: []string{"--health-address=:http"}, err: `--health-address ":http" is not allowed: use host:port or :port, with a port from 1 to 65535`},
		"bad mode":                {args: []string{"--certificate-mode=cert-manager"}, err: `--certificate-mode "cert-manager" is not allowed: use self or files`},
		"bad name":                {args: []string{"--service=Webhook"}, err: `--service "Webhook" is not allowed: use the name of a Kubernetes object`},
		"bad quantity":            {args: []string{"--sidecar-memory-limit=lots"}, err: `--sidecar-memory-limit "lots" is not allowed: use a quantity such as 10m or 64Mi`},
		"bad boolean":             {args: []string{"--leader-for-life=maybe"}, err: `--leader-for-life "maybe" is not allowed: use true or false`},
		"bad selector":            {args: []string{"--namespace-selector=team in shop"}, err: `--namespace-selector "team in shop" is not allowed: use a label selector such as team=shop,stage in (test,live)`},
		"bad level":               {args: []string{"--v=11"}, err: `--v "11" is not allowed: use a number from 0 to 10`},
		"bad format":              {args: []string{"--log-format=xml"}, err: `--log-format "xml" is not allowed: use text or json`},
		"bad election":            {args: append([]string{"--lease-duration=1.5s"}, required...), err: `--lease-duration "1.5s" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`},
		"bad sidecar settings":    {args: append([]string{"--sidecar-renew-deadline=15s"}, required...), err: `--sidecar-renew-deadline "15s" is not allowed: it must be above 0s and below --sidecar-lease-duration (15s)`},
		"bad sidecar":             {args: append([]string{"--sidecar-memory-limit=1Mi"}, required...), err: `--sidecar-...: memory limit 1Mi is below 16Mi`},
		"forbidden default":       {args: append([]string{"--leader-for-life=false", "--sidecar-mode=leader-for-life"}, required...), err: `--sidecar-...: the default mode is leader-for-life, which is forbidden`},
		"short lifetimes":         {args: append([]string{"--ca-lifetime=1h"}, required...), err: `--ca-lifetime and --certificate-lifetime: CA lifetime 1h0m0s is below three times the certificate lifetime 168h0m0s`},
		"lifetimes without use":   {args: append([]string{"--ca-lifetime=1h", "--certificate-mode=files"}, required...), want: func(c *config) { c.caLifetime, c.certificateMode = time.Hour, "files" }},
		"files without directory": {args: append([]string{"--certificate-dir=", "--certificate-mode=files"}, required...), err: `--certificate-dir "" is not allowed: mode files needs a directory`},
		"unknown flag":            {args: []string{"--image=x"}, err: `flag provided but not defined: -image: see --help`},
		"argument":                {args: []string{"start"}, err: `argument "start" is not allowed: only flags are, see --help`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{"POD_NAME": "web-0", "POD_UID": "1234"}
			maps.Copy(env, tc.env)
			got, err := parseArgs(tc.args, func(k string) string { return env[k] })
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Errorf("%s:\n got %v\nwant %s", tc.reason, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			want := defaults()
			if tc.want != nil {
				tc.want(&want)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(config{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// parseArgs is parse with a command line.
func parseArgs(args []string, getenv func(string) string) (config, error) {
	v, err := self().Parse(args, getenv)
	if err != nil {
		return config{}, err
	}
	return parse(v, getenv)
}

func TestCommand(t *testing.T) {
	tests := map[string]struct {
		args   []string
		exit   int
		stdout string
		stderr string
	}{
		"version":            {[]string{"--version"}, 0, "webhook dev\n", ""},
		"help":               {[]string{"--help"}, 0, "--sidecar-image  (ELECTOR_WEBHOOK_SIDECAR_IMAGE)", ""},
		"bad usage":          {[]string{"--v=x"}, 2, "", "webhook: --v \"x\" is not allowed: use a number from 0 to 10\n"},
		"check help":         {[]string{"check", "--help"}, 0, "--timeout  (ELECTOR_WEBHOOK_TIMEOUT)", ""},
		"check nowhere":      {[]string{"check"}, 2, "", "webhook check: --namespace \"\" is not allowed: it is required\n"},
		"check never":        {[]string{"check", "--namespace=a", "--timeout=0s"}, 2, "", "webhook check: --timeout \"0s\" is not allowed: use a duration above 0 such as 30s\n"},
		"check without file": {[]string{"check", "--namespace=a", "--kubeconfig=none"}, 1, "", "webhook check: finding the API server (--kubeconfig \"none\"): stat none: no such file or directory\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if exit := command(tc.args, func(string) string { return "" }, &stdout, &stderr); exit != tc.exit {
				t.Errorf("exit code %d, want %d", exit, tc.exit)
			}
			if !strings.Contains(stdout.String(), tc.stdout) {
				t.Errorf("stdout %q, want %q", stdout.String(), tc.stdout)
			}
			if stderr.String() != tc.stderr {
				t.Errorf("stderr %q, want %q", stderr.String(), tc.stderr)
			}
		})
	}
}

// TestLogging holds what is shown at which verbosity, in both formats.
func TestLogging(t *testing.T) {
	t.Cleanup(klog.ClearLogger)
	for _, format := range []string{"text", "json"} {
		for verbosity, shown := range []string{"ours,their error,standard", "ours,their error,standard,ours in detail,theirs"} {
			t.Run(fmt.Sprint(format, verbosity), func(t *testing.T) {
				var out strings.Builder
				cfg := config{logFormat: format, verbosity: verbosity}
				cfg.setUpLogging(&out)
				klog.Background().Info("ours")
				klog.Background().V(1).Info("ours in detail")
				libraryLog().WithName("library").WithValues("a", 1).Info("theirs")
				libraryLog().WithName("library").Error(nil, "their error")
				if err := log.Output(1, "standard"); err != nil {
					t.Fatal(err)
				}
				for _, message := range []string{"ours", "ours in detail", "theirs", "their error", "standard"} {
					want := slices.Contains(strings.Split(shown, ","), message)
					if got := strings.Contains(out.String(), `"`+message+`"`); got != want {
						t.Errorf("%q is in the log: %v, want %v:\n%s", message, got, want, out.String())
					}
				}
				for line := range strings.Lines(out.String()) {
					if isJSON := json.Valid([]byte(line)); isJSON != (format == "json") {
						t.Errorf("line in another format: %s", line)
					}
				}
			})
		}
	}
}
