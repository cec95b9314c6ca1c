package inject

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector/gate"
)

// handlers are all that a probe can ask, as it may be written.
var handlers = map[string]corev1.ProbeHandler{
	"nothing":       {},
	"exec":          {Exec: &corev1.ExecAction{Command: []string{"cat", "--", "$(FILE)"}}},
	"exec nothing":  {Exec: &corev1.ExecAction{}},
	"http":          {HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(80)}},
	"http by name":  {HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("web")}},
	"http quoted":   {HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("81")}},
	"http, all":     {HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(443), Scheme: corev1.URISchemeHTTPS, Host: "web.example", Path: `/$(A)?b=<"c">`, HTTPHeaders: []corev1.HTTPHeader{{Name: "A", Value: "$$1"}, {Name: "A", Value: ""}}, Protocol: new(corev1.HTTPProtocol("H2C"))}},
	"http, sidecar": {HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(4041), Path: "/healthz"}},
	"tcp":           {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(5432)}},
	"tcp by name":   {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web"), Host: "db"}},
	"grpc":          {GRPC: &corev1.GRPCAction{Port: 9090}},
	"grpc service":  {GRPC: &corev1.GRPCAction{Port: 9090, Service: new("s"), Mode: new(corev1.GRPCProbeMode("TLS"))}},
	"grpc server":   {GRPC: &corev1.GRPCAction{Port: 9090, Service: new("")}},
}

// probed is a container with the handler in all places that take it.
func probed(h corev1.ProbeHandler) *corev1.Container {
	probe := func(seconds int32) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: *h.DeepCopy(), PeriodSeconds: seconds, InitialDelaySeconds: seconds, TerminationGracePeriodSeconds: new(int64(seconds))}
	}
	return &corev1.Container{
		Name: "app", Ports: []corev1.ContainerPort{{ContainerPort: 1}, {Name: "web", ContainerPort: 8080}},
		LivenessProbe: probe(1), ReadinessProbe: probe(2), StartupProbe: probe(3),
		Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: h.Exec.DeepCopy(), HTTPGet: h.HTTPGet.DeepCopy()}, StopSignal: new(corev1.SIGINT)},
	}
}

// TestDetour leads every handler through the gate and back, by what the sidecar is told of it.
func TestDetour(t *testing.T) {
	t.Parallel()
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			given, d := probed(h), detour{"app", 4041}
			was, err := originals(given)
			if err != nil {
				t.Fatal(err)
			}
			text, err := specText(gate.Spec{Containers: map[string]gate.Container{"app": was}})
			if err != nil || strings.Contains(text, "$") {
				t.Fatalf("the kubelet would expand %s, %v", text, err)
			}
			spec, ok := specOf(&corev1.Container{Env: []corev1.EnvVar{{Name: gate.SpecEnv, Value: text}}})
			if !ok {
				t.Fatalf("not to be read: %s", text)
			}
			led := given.DeepCopy()
			d.lead(led)
			for what, p := range probesOf(led) {
				switch {
				case h.Exec != nil:
					words := []string{"/elector/gate", "probe", "--"}
					if what == "liveness" { // the kubelet's startup probe is over when the gate opens
						words = []string{"/elector/gate", "probe", "--startup=12s", "--"}
					}
					if diff := cmp.Diff(append(words, h.Exec.Command...), p.Exec.Command); diff != "" {
						t.Errorf("the %s probe executes something else: %s", what, diff)
					}
				case name != "nothing":
					if p.HTTPGet == nil || p.TCPSocket != nil || p.GRPC != nil || p.HTTPGet.Path != "/gate/app/"+what || p.HTTPGet.Port.IntVal != 4041 || p.HTTPGet.Host != "" {
						t.Errorf("the %s probe is %+v", what, p.ProbeHandler)
					}
				}
			}
			back := led.DeepCopy()
			d.straighten(back, spec.Containers["app"])
			if diff := cmp.Diff(given, back); diff != "" {
				t.Errorf("there and back it is something else (-before +after):\n%s", diff)
			}
			if budget := was.Startup; budget == nil || budget.Period != 3000 || budget.InitialDelay != 3000 || budget.FailureThreshold != 3 || budget.Timeout != 1000 {
				t.Errorf("the startup probe has the budget %+v", budget)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		probe *corev1.Probe
		want  time.Duration
	}{
		"none":     {nil, 0},
		"defaults": {&corev1.Probe{}, 30 * time.Second},
		"its own":  {&corev1.Probe{InitialDelaySeconds: 5, PeriodSeconds: 2, FailureThreshold: 60}, 125 * time.Second},
		"endless":  {&corev1.Probe{InitialDelaySeconds: math.MaxInt32, PeriodSeconds: math.MaxInt32, FailureThreshold: math.MaxInt32}, math.MaxInt32 * time.Second},
		"negative": {&corev1.Probe{PeriodSeconds: -1}, 0},
	} {
		if got := budgetOf(test.probe); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestStraightenOthers leaves what a mesh made of the kubelet's requests since.
func TestStraightenOthers(t *testing.T) {
	t.Parallel()
	given := probed(handlers["http"])
	was, err := originals(given)
	if err != nil {
		t.Fatal(err)
	}
	for name, get := range map[string]corev1.HTTPGetAction{
		"another port": {Port: intstr.FromInt32(15020), Path: "/gate/app/liveness"},
		"another path": {Port: intstr.FromInt32(4041), Path: "/app-health/app/livez"},
		"of another":   {Port: intstr.FromInt32(4041), Path: "/gate/db/liveness"},
		"by name":      {Port: intstr.FromString("elector-health"), Path: "/gate/app/liveness"},
	} {
		c := probed(corev1.ProbeHandler{HTTPGet: &get})
		want := c.DeepCopy()
		detour{"app", 4041}.straighten(c, was)
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestUnresolvedPorts(t *testing.T) {
	t.Parallel()
	for _, port := range []intstr.IntOrString{
		intstr.FromInt32(0), intstr.FromInt32(-1), intstr.FromInt32(65536), intstr.FromString(""), intstr.FromString("http"), intstr.FromString("0"),
		intstr.FromString("65536"), intstr.FromString("4294967376"), intstr.FromString("8e1"), {Type: 7},
	} {
		for name, h := range map[string]corev1.ProbeHandler{"http": {HTTPGet: &corev1.HTTPGetAction{Port: port}}, "tcp": {TCPSocket: &corev1.TCPSocketAction{Port: port}}} {
			c := &corev1.Container{ReadinessProbe: &corev1.Probe{ProbeHandler: h}}
			if was, err := originals(c); err == nil {
				t.Errorf("%s: the port %s is %+v", name, port.String(), was.Readiness)
			}
		}
	}
	c := &corev1.Container{Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("x")}}}}
	if _, err := originals(c); err == nil || err.Error() != `the preStop hook asks the port "x"` {
		t.Errorf("the hook's port is nowhere: %v", err)
	}
}

// TestForgedSpecs reads what is no spec.
func TestForgedSpecs(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", "null", "[]", `{"containers":null}`, `{"containers":[]}`, `{"containers":{"app":1}}`} {
		if spec, ok := specOf(&corev1.Container{Env: []corev1.EnvVar{{Name: gate.SpecEnv, Value: text}}}); ok || len(spec.Containers) > 0 {
			t.Errorf("%s is %+v", text, spec)
		}
	}
	for _, text := range []string{`{"containers":{"app":{"liveness":{}}}}`, `{"containers":{"app":{"preStop":{"tcp":{}}}}}`, `{"containers":{"app":null}}`, `{"containers":{"app":{"liveness":{"http":null,"tcp":null}}}}`} {
		spec, ok := specOf(&corev1.Container{Env: []corev1.EnvVar{{Name: gate.SpecEnv, Value: text}}})
		if !ok {
			t.Errorf("%s is none", text)
		}
		c := probed(handlers["http"])
		detour{"app", 4041}.lead(c)
		want := c.DeepCopy()
		detour{"app", 4041}.straighten(c, spec.Containers["app"])
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("%s has no originals: %s", text, diff)
		}
	}
}

// TestSpecIsRead holds that the sidecar reads what is written, whose reader may be another.
func TestSpecIsRead(t *testing.T) {
	t.Parallel()
	want := gate.Spec{Containers: map[string]gate.Container{"app": {Liveness: &gate.Probe{HTTP: &gate.HTTP{Port: 1, Path: "/$(A)\u2028<"}}}}}
	text, err := specText(want)
	if err != nil {
		t.Fatal(err)
	}
	var got gate.Spec
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
