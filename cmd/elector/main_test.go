package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/elector-io/elector/elector"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for _, pair := range pairs {
			if n, v, _ := strings.Cut(pair, "="); n == name {
				return v
			}
		}
		return ""
	}
}

// Bad usage is exit code 2 and one line that says which flag, which value, and what is allowed. The first four are denied by the
// webhook with the same words, see test/integration.
func TestBadUsage(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args string
		env  []string
		want string
	}{
		"unknown mode": {
			args: "--lock=web --mode=raft",
			want: `--mode "raft" is not allowed: use lease or leader-for-life`,
		},
		"capital in the lock's name": {
			args: "--lock=Web",
			want: `--lock "Web" is not allowed: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
		},
		"fraction of a second": {
			args: "--lock=web --lease-duration=1.5s",
			want: `--lease-duration "1.5s" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`,
		},
		"renew-deadline above lease-duration": {
			args: "--lock=web --renew-deadline=20s",
			want: `--renew-deadline "20s" is not allowed: it must be above 0s and below --lease-duration (15s)`,
		},
		"no lock": {
			want: `--lock "" is not allowed: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
		},
		"not a duration": {
			args: "--lock=web --retry-period=2",
			want: `--retry-period "2" is not allowed: use a duration with its unit, such as 2s or 500ms`,
		},
		"no retry fits in": {
			args: "--lock=web --retry-period=9s",
			want: `--retry-period "9s" is not allowed: 1.2 times it must be below --renew-deadline (10s), so that a retry fits in`,
		},
		"bad value in the environment": {
			env:  []string{"ELECTOR_LOCK=web", "ELECTOR_MODE=raft"},
			want: `--mode "raft" is not allowed: use lease or leader-for-life`,
		},
		"leader-for-life outside a Pod": {
			args: "--lock=web --mode=leader-for-life",
			want: `--mode "leader-for-life" is not allowed: it needs a Pod to own the lock: set POD_NAME and POD_UID by the downward API, or use lease`,
		},
		"leader-for-life under another name": {
			args: "--lock=web --mode=leader-for-life --identity=me",
			env:  []string{"POD_NAME=web-0", "POD_UID=1234"},
			want: `--identity "me" is not allowed: in leader-for-life it is $POD_NAME_$POD_UID, leave it out`,
		},
		"address without port": {
			args: "--lock=web --http-address=localhost",
			want: `--http-address "localhost" is not allowed: use host:port or :port`,
		},
		"health address without port": {
			args: "--lock=web --health-address=4041",
			want: `--health-address "4041" is not allowed: use host:port or :port`,
		},
		"neither true nor false": {
			args: "--lock=web --resign=no",
			want: `--resign "no" is not allowed: use true or false`,
		},
		"no grace behind the gate": {
			args: "--lock=web --gate-dir=/gate --gate-grace=0s",
			want: `--gate-grace "0s" is not allowed: use a duration above 0s such as 30s`,
		},
		"gate that nobody understands": {
			args: "--lock=web --gate-dir=/gate", env: []string{"ELECTOR_GATE=yes"},
			want: `$ELECTOR_GATE "yes" is not allowed: it is JSON that the webhook writes`,
		},
		"log format": {
			args: "--lock=web --log-format=xml",
			want: `--log-format "xml" is not allowed: use text or json`,
		},
		"verbosity": {
			args: "--lock=web --v=11",
			want: `--v "11" is not allowed: use a number from 0 to 10`,
		},
		"no status directory": {
			args: "--lock=web --status-dir=",
			want: `--status-dir "" is not allowed: use the path of a directory`,
		},
		"argument": {
			args: "--lock=web now",
			want: `argument "now" is not allowed: only flags are, see --help`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if code := command(strings.Fields(test.args), environment(test.env...), &stdout, &stderr); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if want := "elector: " + test.want + "\n"; stderr.String() != want || stdout.Len() > 0 {
				t.Errorf("it says\n%s%swant\n%s", &stdout, &stderr, want)
			}
		})
	}
}

func TestUnknownFlag(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	code := command([]string{"--lock=web", "--leases=3"}, environment(), &stdout, &stderr)
	if code != 2 || !strings.Contains(stderr.String(), "leases") || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("exit code %d and %q, want 2 and one line that names the flag", code, &stderr)
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if code := command([]string{"--version"}, environment(), &stdout, &stderr); code != 0 || stdout.String() != "elector "+version+"\n" || stderr.Len() > 0 {
		t.Errorf("--version: exit code %d, %q, %q", code, &stdout, &stderr)
	}
	stdout.Reset()
	if code := command([]string{"--help"}, environment(), &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Errorf("--help: exit code %d, %q", code, &stderr)
	}
	for _, f := range flags {
		if !strings.Contains(stdout.String(), "--"+f.Name+"  (ELECTOR_") {
			t.Errorf("--help does not tell of --%s and its variable", f.Name)
		}
	}
}

// parseArgs is parse with a command line.
func parseArgs(args []string, getenv func(string) string) (config, error) {
	v, err := self.Parse(args, getenv)
	if err != nil {
		return config{}, err
	}
	return parse(v, getenv)
}

func TestParse(t *testing.T) {
	t.Parallel()
	defaults := func(change func(*config)) config {
		settings := elector.DefaultSettings()
		settings.Lock = "web"
		c := config{
			settings: settings, identity: "me", statusDir: "/var/run/elector",
			httpAddress: "127.0.0.1:4040", healthAddress: ":4041", logFormat: "text",
		}
		change(&c)
		return c
	}
	tests := map[string]struct {
		reason string
		args   string
		env    []string
		want   config
	}{
		"defaults": {
			reason: "only the lock has none",
			args:   "--lock=web --identity=me",
			want:   defaults(func(*config) {}),
		},
		"environment": {
			reason: "every flag has a twin",
			env: []string{
				"ELECTOR_LOCK=web", "ELECTOR_IDENTITY=me", "ELECTOR_NAMESPACE=prod", "ELECTOR_LEASE_DURATION=30s", "ELECTOR_RENEW_DEADLINE=20s",
				"ELECTOR_RETRY_PERIOD=3s", "ELECTOR_STATUS_DIR=/tmp", "ELECTOR_HTTP_ADDRESS=:1", "ELECTOR_HEALTH_ADDRESS=:2",
				"ELECTOR_KUBECONFIG=/k", "ELECTOR_LOG_FORMAT=json", "ELECTOR_V=4", "ELECTOR_MODE=lease",
			},
			want: defaults(func(c *config) {
				c.namespace, c.statusDir, c.httpAddress, c.healthAddress = "prod", "/tmp", ":1", ":2"
				c.kubeconfig, c.logFormat, c.verbosity = "/k", "json", 4
				c.settings.LeaseDuration, c.settings.RenewDeadline, c.settings.RetryPeriod = 30*time.Second, 20*time.Second, 3*time.Second
			}),
		},
		"flag before environment": {
			reason: "what is typed counts",
			args:   "--lock=web --identity=me --v=2",
			env:    []string{"ELECTOR_LOCK=other", "ELECTOR_V=4", "LEASE_NAME=third"},
			want:   defaults(func(c *config) { c.verbosity = 2 }),
		},
		"names of other leader-electors": {
			reason: "they can be replaced without a new manifest",
			args:   "--identity=me",
			env:    []string{"LEASE_NAME=web", "NAMESPACE=prod"},
			want:   defaults(func(c *config) { c.namespace = "prod" }),
		},
		"own names before those of others": {
			reason: "elector's own are meant for it",
			args:   "--identity=me",
			env:    []string{"LEASE_NAME=other", "ELECTOR_LOCK=web", "NAMESPACE=other", "ELECTOR_NAMESPACE=prod"},
			want:   defaults(func(c *config) { c.namespace = "prod" }),
		},
		"in a pod": {
			reason: "name and UID are the identity, and the pod's namespace is the lock's",
			args:   "--lock=web",
			env:    []string{"POD_NAME=web-0", "POD_UID=1234", "POD_NAMESPACE=prod"},
			want: defaults(func(c *config) {
				c.identity, c.podName, c.podUID, c.namespace = "web-0_1234", "web-0", "1234", "prod"
			}),
		},
		"leader-for-life": {
			reason: "the Pod owns the lock",
			args:   "--lock=web --mode=leader-for-life",
			env:    []string{"POD_NAME=web-0", "POD_UID=1234"},
			want: defaults(func(c *config) {
				c.identity, c.podName, c.podUID, c.settings.Mode = "web-0_1234", "web-0", "1234", elector.ModeLeaderForLife
			}),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseArgs(strings.Fields(test.args), environment(test.env...))
			if err != nil {
				t.Fatalf("%s: %v", test.reason, err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(config{}, gateConfig{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

func TestIdentityOutsideAPod(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Skip("the host has no name:", err)
	}
	identities := map[string]bool{}
	for range 2 {
		cfg, err := parseArgs([]string{"--lock=web"}, environment())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(cfg.identity, host+"_") {
			t.Errorf("identity %q does not begin with the host's name", cfg.identity)
		}
		identities[cfg.identity] = true
	}
	if len(identities) != 2 {
		t.Error("two processes of one host have the same identity")
	}
}

// What an earlier process claimed is withdrawn before the API server has answered anything, and SIGTERM is a clean end also when it
// never does. A candidate that led goes on, though its pod lost its label since.
func TestRestartWithoutAPIServer(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not today", http.StatusServiceUnavailable)
	}))
	defer silent.Close()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	write(t, kubeconfig, fmt.Sprintf(`{"clusters": [{"name": "c", "cluster": {"server": %q}}],
		"contexts": [{"name": "c", "context": {"cluster": "c", "namespace": "prod"}}], "current-context": "c"}`, silent.URL))
	write(t, filepath.Join(dir, elector.LeaderFile), "stale\n")
	write(t, filepath.Join(dir, elector.StatusFile), `{"role": "leader", "identity": "me", "lock": "web", "namespace": "prod", "mode": "lease", "lockVersion": 3}`)
	health, app := freeAddress(t), freeAddress(t)

	exited := make(chan int, 1)
	var stdout, stderr bytes.Buffer
	go func() {
		exited <- command([]string{"--lock=web", "--identity=me", "--injected= ", "--kubeconfig=" + kubeconfig, "--status-dir=" + dir, "--http-address=" + app, "--health-address=" + health},
			environment(), &stdout, &stderr)
	}()
	deadline := time.After(30 * time.Second)
	for healthy := false; !healthy; {
		select {
		case code := <-exited:
			t.Fatalf("it ended with exit code %d: %s", code, &stderr)
		case <-deadline:
			t.Fatal("it is not healthy")
		default:
		}
		if response, err := http.Get("http://" + health + "/healthz"); err == nil {
			healthy = response.StatusCode == http.StatusOK
			response.Body.Close()
		}
	}
	if _, err := os.Stat(filepath.Join(dir, elector.LeaderFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stale leader file: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, elector.StatusFile))
	if err != nil {
		t.Fatal(err)
	}
	var status elector.Status
	if err := json.Unmarshal(data, &status); err != nil || status.Role != elector.RoleStandby || status.Reason != "" || status.Namespace != "prod" || status.Identity != "me" {
		t.Errorf("status.json: %s, %v", data, err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-exited; code != 0 {
		t.Errorf("exit code %d after SIGTERM: %s", code, &stderr)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// freeAddress is one at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
