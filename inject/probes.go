package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector/gate"
)

// detour leads what the kubelet asks a container through the gate: what it executes
// through the wrapper, which is in the container, and requests through the sidecar,
// which is not behind the gate.
type detour struct {
	container  string
	healthPort int32
}

// probesOf returns a container's probes by their names in the sidecar's paths. Some are
// nil.
func probesOf(c *corev1.Container) map[string]*corev1.Probe {
	return map[string]*corev1.Probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe, "startup": c.StartupProbe}
}

// unresolved is a port's name that the container does not declare.
type unresolved struct{ probe, port string }

func (e unresolved) Error() string { return fmt.Sprintf("the %s asks the port %q", e.probe, e.port) }

// originals returns what the container is asked before anything leads through the gate.
// The error is an unresolved.
func originals(c *corev1.Container) (gate.Container, error) {
	var to gate.Container
	for _, p := range []struct {
		name  string
		probe *corev1.Probe
		to    **gate.Probe
	}{{"liveness probe", c.LivenessProbe, &to.Liveness}, {"readiness probe", c.ReadinessProbe, &to.Readiness}, {"startup probe", c.StartupProbe, &to.Startup}} {
		if p.probe == nil {
			continue
		}
		asked, err := requestOfProbe(c, p.name, &p.probe.ProbeHandler)
		if err != nil {
			return to, err
		}
		if p.name == "startup probe" {
			if asked == nil {
				asked = new(gate.Probe)
			}
			asked.InitialDelay = milliseconds(p.probe.InitialDelaySeconds, 0)
			asked.Period = milliseconds(p.probe.PeriodSeconds, 10)
			asked.FailureThreshold = int64(orDefault(p.probe.FailureThreshold, 3))
		}
		if asked != nil {
			asked.Timeout = milliseconds(p.probe.TimeoutSeconds, 1)
		}
		*p.to = asked
	}
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.HTTPGet == nil {
		return to, nil
	}
	http, err := requestOfHTTP(c, "preStop hook", c.Lifecycle.PreStop.HTTPGet)
	to.PreStop = &gate.Probe{HTTP: http}
	return to, err
}

// orDefault is the API's default for what is 0, as in a pod template on a disk.
func orDefault(n, byDefault int32) int32 {
	if n == 0 {
		return byDefault
	}
	return n
}

func milliseconds(seconds, byDefault int32) int64 { return int64(orDefault(seconds, byDefault)) * 1000 }

// requestOfProbe returns nil for a command, and for what this build does not know.
func requestOfProbe(c *corev1.Container, name string, h *corev1.ProbeHandler) (*gate.Probe, error) {
	switch {
	case h.HTTPGet != nil:
		http, err := requestOfHTTP(c, name, h.HTTPGet)
		return &gate.Probe{HTTP: http}, err
	case h.TCPSocket != nil:
		port, err := portNumberOf(c, name, h.TCPSocket.Port)
		return &gate.Probe{TCP: &gate.TCP{Host: h.TCPSocket.Host, Port: port, PortName: portNameOf(h.TCPSocket.Port)}}, err
	case h.GRPC != nil:
		port, err := portNumberOf(c, name, intstr.FromInt32(h.GRPC.Port))
		return &gate.Probe{GRPC: &gate.GRPC{Port: port, Service: h.GRPC.Service, Mode: (*string)(h.GRPC.Mode)}}, err
	}
	return nil, nil
}

func requestOfHTTP(c *corev1.Container, name string, get *corev1.HTTPGetAction) (*gate.HTTP, error) {
	port, err := portNumberOf(c, name, get.Port)
	to := &gate.HTTP{Scheme: string(get.Scheme), Host: get.Host, Port: port, PortName: portNameOf(get.Port), Path: get.Path, Protocol: (*string)(get.Protocol)}
	for _, h := range get.HTTPHeaders {
		to.Headers = append(to.Headers, gate.Header{Name: h.Name, Value: h.Value})
	}
	return to, err
}

// portNumberOf resolves a port as the kubelet does: a name is one that the container
// declares, or else a number in quotes.
func portNumberOf(c *corev1.Container, probe string, port intstr.IntOrString) (int32, error) {
	number := port.IntVal
	if port.Type == intstr.String {
		i := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.StrVal })
		if i >= 0 {
			number = c.Ports[i].ContainerPort
		} else {
			n, _ := strconv.ParseInt(port.StrVal, 10, 32) // 0 is refused just below
			number = int32(n)
		}
	}
	if number < 1 || number > 65535 {
		return 0, unresolved{probe, port.String()}
	}
	return number, nil
}

func portNameOf(port intstr.IntOrString) string {
	if port.Type == intstr.String {
		return port.StrVal
	}
	return ""
}

// lead changes the container's probes and its hook. It does not change them in what
// the container shares with others.
func (d detour) lead(c *corev1.Container) {
	// The kubelet's startup probe is over when the gate opens, and only then would the
	// app need its time.
	startup := budgetOf(c.StartupProbe)
	for name, probe := range probesOf(c) {
		switch {
		case probe != nil && name == "liveness":
			d.leadProbe(name, &probe.ProbeHandler, startup)
		case probe != nil:
			d.leadProbe(name, &probe.ProbeHandler, 0)
		}
	}
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
		return
	}
	switch hook := c.Lifecycle.PreStop; {
	case hook.Exec != nil:
		hook.Exec = throughWrapper(hook.Exec, 0)
	case hook.HTTPGet != nil:
		hook.HTTPGet = d.request(pathPreStop)
	}
}

const pathPreStop = "prestop"

// budgetOf is how long the app may take to start, 0 without a startup probe.
func budgetOf(p *corev1.Probe) time.Duration {
	if p == nil {
		return 0
	}
	seconds := int64(p.InitialDelaySeconds) + int64(orDefault(p.PeriodSeconds, 10))*int64(orDefault(p.FailureThreshold, 3))
	return time.Duration(min(max(0, seconds), math.MaxInt32)) * time.Second
}

func (d detour) leadProbe(name string, h *corev1.ProbeHandler, startup time.Duration) {
	switch {
	case h.Exec != nil:
		h.Exec = throughWrapper(h.Exec, startup)
	case h.HTTPGet != nil, h.TCPSocket != nil, h.GRPC != nil:
		h.HTTPGet, h.TCPSocket, h.GRPC = d.request(name), nil, nil
	}
}

// request asks the sidecar for what.
func (d detour) request(what string) *corev1.HTTPGetAction {
	return &corev1.HTTPGetAction{Path: "/gate/" + d.container + "/" + what, Port: intstr.FromInt32(d.healthPort), Scheme: corev1.URISchemeHTTP}
}

// throughWrapper makes a command one of the wrapper, which succeeds while the gate is
// closed, and for startup after it has opened.
func throughWrapper(do *corev1.ExecAction, startup time.Duration) *corev1.ExecAction {
	words := []string{wrapper, "probe"}
	if startup > 0 {
		words = append(words, "--startup="+startup.String())
	}
	return &corev1.ExecAction{Command: slices.Concat(words, []string{"--"}, do.Command)}
}

// straighten takes back what lead did. What is another's by now stays.
func (d detour) straighten(c *corev1.Container, was gate.Container) {
	before := map[string]*gate.Probe{"liveness": was.Liveness, "readiness": was.Readiness, "startup": was.Startup}
	for name, probe := range probesOf(c) {
		if probe != nil {
			d.straightenProbe(name, &probe.ProbeHandler, before[name])
		}
	}
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
		return
	}
	hook := c.Lifecycle.PreStop
	hook.Exec = withoutWrapper(hook.Exec)
	if d.isRequest(hook.HTTPGet, pathPreStop) && was.PreStop != nil && was.PreStop.HTTP != nil {
		hook.HTTPGet = httpGetOf(was.PreStop.HTTP)
	}
}

func (d detour) straightenProbe(name string, h *corev1.ProbeHandler, was *gate.Probe) {
	h.Exec = withoutWrapper(h.Exec)
	if !d.isRequest(h.HTTPGet, name) || was == nil {
		return
	}
	switch {
	case was.HTTP != nil:
		h.HTTPGet = httpGetOf(was.HTTP)
	case was.TCP != nil:
		h.HTTPGet, h.TCPSocket = nil, &corev1.TCPSocketAction{Host: was.TCP.Host, Port: portOfSpec(was.TCP.Port, was.TCP.PortName)}
	case was.GRPC != nil:
		h.HTTPGet, h.GRPC = nil, &corev1.GRPCAction{Port: was.GRPC.Port, Service: was.GRPC.Service, Mode: (*corev1.GRPCProbeMode)(was.GRPC.Mode)}
	}
}

func (d detour) isRequest(get *corev1.HTTPGetAction, what string) bool {
	return get != nil && get.Path == d.request(what).Path && get.Port.IntVal == d.healthPort
}

func withoutWrapper(do *corev1.ExecAction) *corev1.ExecAction {
	if do == nil {
		return nil
	}
	words, ok := afterWrapper(do.Command, "probe")
	if !ok {
		return do
	}
	return &corev1.ExecAction{Command: words}
}

func httpGetOf(h *gate.HTTP) *corev1.HTTPGetAction {
	get := &corev1.HTTPGetAction{Scheme: corev1.URIScheme(h.Scheme), Host: h.Host, Port: portOfSpec(h.Port, h.PortName), Path: h.Path, Protocol: (*corev1.HTTPProtocol)(h.Protocol)}
	for _, header := range h.Headers {
		get.HTTPHeaders = append(get.HTTPHeaders, corev1.HTTPHeader{Name: header.Name, Value: header.Value})
	}
	return get
}

func portOfSpec(number int32, name string) intstr.IntOrString {
	if name != "" {
		return intstr.FromString(name)
	}
	return intstr.FromInt32(number)
}

// specText is the JSON of a spec, with nothing in it that the kubelet would expand.
func specText(spec gate.Spec) (string, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("writing the gate's containers: %w", err)
	}
	return string(bytes.ReplaceAll(text, []byte("$"), []byte(`\u0024`))), nil
}

// specOf reads the spec that a sidecar has. It is not ok if there is none.
func specOf(sidecar *corev1.Container) (spec gate.Spec, ok bool) {
	i := slices.IndexFunc(sidecar.Env, func(v corev1.EnvVar) bool { return v.Name == gate.SpecEnv })
	if i < 0 || json.Unmarshal([]byte(sidecar.Env[i].Value), &spec) != nil {
		return gate.Spec{}, false
	}
	return spec, len(spec.Containers) > 0
}
