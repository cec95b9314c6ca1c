package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/memory"
)

func TestReady(t *testing.T) {
	t.Parallel()
	status := func(identity string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"role":"standby","identity":%q}`, identity)
		}
	}
	tests := map[string]struct {
		reason  string
		handler http.HandlerFunc // nil if nobody listens
		env     []string
		want    string // what it says before it ends with 1; empty if it succeeds
	}{
		"its own candidate": {
			reason: "status.json is written before the listener opens", handler: status("web-0_1234"), env: []string{"POD_NAME=web-0", "POD_UID=1234"},
		},
		"another's candidate": {
			reason: "with host networking the port may be another pod's, and this pod's sidecar is about to fail", handler: status("web-1_5678"),
			env:  []string{"POD_NAME=web-0", "POD_UID=1234"},
			want: `the candidate there is "web-1_5678", not "web-0_1234"`,
		},
		"outside a pod":  {reason: "the identity is not known there", handler: status("host_1234")},
		"nobody":         {reason: "the app would find no status.json", want: "connection refused"},
		"something else": {reason: "it is no elector", handler: http.NotFound, want: "404 Not Found"},
		"a talker":       {reason: "what it says is not read for ever", handler: talk, want: "its status: "},
		"one that is silent": {
			reason: "a try has its own limit", want: "Client.Timeout exceeded", handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := freeAddress(t)
			if test.handler != nil {
				server := httptest.NewServer(test.handler)
				defer server.Close()
				address = server.Listener.Addr().String()
			}
			var stdout, stderr bytes.Buffer
			timeout := "30s"
			if test.want != "" {
				timeout = "3s" // more than one try
			}
			code := command([]string{"ready", "--http-address=" + address, "--timeout=" + timeout}, environment(test.env...), &stdout, &stderr)
			said := stderr.String()
			switch {
			case test.want == "" && (code != 0 || said != ""):
				t.Errorf("%s, but exit code %d: %s", test.reason, code, said)
			case test.want != "" && (code != 1 || !strings.Contains(said, test.want) || strings.Count(said, "\n") != 1):
				t.Errorf("%s, but exit code %d and\n%swant 1 and one line with %s", test.reason, code, said, test.want)
			}
		})
	}
}

func talk(w http.ResponseWriter, _ *http.Request) {
	for range 20 * maxAnswer / 10 {
		fmt.Fprint(w, strings.Repeat(" ", 10))
	}
}

// It waits for a sidecar that comes later, which is what its caller wants of it.
func TestReadyWaits(t *testing.T) {
	t.Parallel()
	answered := make(chan struct{}, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case answered <- struct{}{}:
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		default:
			fmt.Fprint(w, `{"role":"standby","identity":"me"}`)
		}
	}))
	server.Start()
	defer server.Close()
	var stdout, stderr bytes.Buffer
	if code := command([]string{"ready"}, environment("ELECTOR_HTTP_ADDRESS="+server.Listener.Addr().String()), &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	if len(answered) != 1 {
		t.Error("it did not ask twice")
	}
}

// With --leader=true it waits for a claim of the very candidate, however often it is cut off.
func TestReadyLeads(t *testing.T) {
	t.Parallel()
	var store memory.Store
	lock, _ := store.Lock(elector.Description{Settings: elector.Settings{Lock: "web", Mode: elector.ModeLease}, Namespace: "ns", Identity: "a_1"})
	e, err := elector.New(elector.Config{Lock: lock})
	if err != nil {
		t.Fatal(err)
	}
	listens := make(chan struct{}, 8)
	app := elector.AppHandler(e)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			if listens <- struct{}{}; len(listens) == 1 {
				return // ended before anything was said
			}
		}
		app.ServeHTTP(w, r)
	}))
	defer server.Close()
	address := server.Listener.Addr().String()
	ready := func(timeout string) (code int, said string) {
		var stdout, stderr bytes.Buffer
		code = command([]string{"ready", "--http-address=" + address, "--leader=true", "--timeout=" + timeout}, environment("POD_NAME=a", "POD_UID=1"), &stdout, &stderr)
		return code, stderr.String()
	}
	if code, said := ready("2s"); code != 1 || said != "elector ready: the elector at "+address+" does not lead within 2s\n" {
		t.Errorf("of a standby: exit code %d: %s", code, said)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = e.Run(t.Context())
	}()
	if code, said := ready("30s"); code != 0 {
		t.Errorf("of a leader: exit code %d: %s", code, said)
	}
	if len(listens) < 3 {
		t.Errorf("it listened %d times", len(listens))
	}
}

func TestReadyBadUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--http-address=4040": `--http-address "4040" is not allowed: use host:port or :port`,
		"--timeout=5":         `--timeout "5" is not allowed: use a duration above 0s such as 5s`,
		"--leader=yes":        `--leader "yes" is not allowed: use true or false`,
		"--timeout=0s":        `--timeout "0s" is not allowed: use a duration above 0s such as 5s`,
		"now":                 `argument "now" is not allowed: only flags are, see --help`,
		"--lock=web":          `flag provided but not defined: -lock: see --help`,
	} {
		var stdout, stderr bytes.Buffer
		if code := command([]string{"ready", args}, environment(), &stdout, &stderr); code != 2 || stderr.String() != "elector ready: "+want+"\n" {
			t.Errorf("%s: exit code %d and %q, want 2 and %q", args, code, &stderr, want)
		}
	}
}

func TestInjected(t *testing.T) {
	t.Parallel()
	const status = `{"version":"v1","lock":"web","mode":"lease"}`
	tests := map[string]struct {
		reason string
		args   []string
		aside  bool
	}{
		"older pod, or outside a cluster": {"nobody says anything of an injection", nil, false},
		"injected":                        {"the manager's controllers find it", []string{"--injected=true true " + status}, false},
		"by an older manager":             {"which did not pass on enabled", []string{"--injected=true " + status}, false},
		"by an older manager, no label":   {"without the label it gets no role", []string{"--injected= " + status}, true},
		"by an older manager, no status":  {"without the annotation it gets no role", []string{"--injected=true "}, true},
		"debug copy":                      {"kubectl drops labels and annotations", []string{"--injected=  "}, true},
		"copy that keeps labels":          {"without the annotation it gets no role", []string{"--injected=true  "}, true},
		"copy with enabled only":          {"without the annotation it gets no role", []string{"--injected=true true "}, true},
		"copy that keeps annotations":     {"without the label it gets no role", []string{"--injected= true " + status}, true},
		"copy that is disabled":           {"it asks not to be elected, and nobody asked the manager", []string{"--injected=true false " + status}, true},
		"copy that does not ask":          {"it does not ask, and nobody asked the manager", []string{"--injected=true  " + status}, true},
		"taken out":                       {"somebody took the label away", []string{"--injected=false true " + status}, true},
		"empty":                           {"given, but nothing in it", []string{"--injected="}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := parseArgs(append([]string{"--lock=web", "--identity=me"}, test.args...), environment())
			if err != nil {
				t.Fatal(err)
			}
			if aside := cfg.aside != ""; aside != test.aside {
				t.Errorf("%s: it stands aside: %v", test.reason, aside)
			}
		})
	}
}

// Whoever holds the lock leads on, because nobody else can take it in leader-for-life. Anybody else's status does not count.
func TestAside(t *testing.T) {
	t.Parallel()
	candidate := elector.Description{Namespace: "prod", Identity: "web-1_uid", Settings: elector.DefaultSettings()}
	candidate.Settings.Lock, candidate.Settings.Mode = "web-lock", elector.ModeLeaderForLife
	led := func(change func(*elector.Status)) *elector.Status {
		s := &elector.Status{
			Role: elector.RoleLeader, Identity: "web-1_uid", Lock: "web-lock", Namespace: "prod", Mode: elector.ModeLeaderForLife, FencingToken: 1, LockVersion: 7,
		}
		change(s)
		return s
	}
	tests := map[string]struct {
		reason string
		last   *elector.Status
		aside  bool
	}{
		"first process":     {"a copy's directory is empty", nil, true},
		"led":               {"its process was killed", led(func(*elector.Status) {}), false},
		"led, then stopped": {"it left the lock to its pod", led(func(s *elector.Status) { s.Role, s.FencingToken = elector.RoleStandby, 0 }), false},
		"stood by":          {"it holds nothing", led(func(s *elector.Status) { s.Role, s.FencingToken, s.LockVersion = elector.RoleStandby, 0, 0 }), true},
		"was put aside":     {"it holds nothing", led(func(s *elector.Status) { s.Role, s.LockVersion, s.Reason = elector.RoleStandby, 0, notInjected }), true},
		"another pod":       {"a copy that shares the directory", led(func(s *elector.Status) { s.Identity = "web-1_other" }), true},
		"another lock":      {"the lock is not this one", led(func(s *elector.Status) { s.Lock = "other" }), true},
		"another namespace": {"the lock is not this one", led(func(s *elector.Status) { s.Namespace = "test" }), true},
		"another mode":      {"the lock is of another kind", led(func(s *elector.Status) { s.Mode = elector.ModeLease }), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := ""
			if test.aside {
				want = notInjected
			}
			if got := aside(notInjected, test.last, candidate); got != want {
				t.Errorf("%s: it stands aside because of %q, want %q", test.reason, got, want)
			}
			if got := aside("", test.last, candidate); got != "" {
				t.Errorf("it stands aside because of %q, which nobody said", got)
			}
		})
	}
}
