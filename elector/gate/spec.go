package gate

// Spec tells the sidecar which containers of its pod are behind the gate, and what
// their probes and hooks were that it is asked instead of: the kubelet asks it under
// /gate/CONTAINER/liveness, readiness, startup and prestop. It comes as JSON in the
// variable SpecEnv.
type Spec struct {
	// Containers are all that are behind the gate, by their names.
	Containers map[string]Container `json:"containers"`
}

// SpecEnv is the sidecar's variable that has the Spec.
const SpecEnv = "ELECTOR_GATE"

// Container has what the kubelet would have asked one container. What it executes
// there it still executes, through the wrapper, and is nil here, but for Startup.
type Container struct {
	Liveness  *Probe `json:"liveness,omitempty"`
	Readiness *Probe `json:"readiness,omitempty"`
	// Startup is the probe that the sidecar plays after the gate has opened, when the
	// kubelet's own is over. One that executes something has no handler: nobody but the
	// kubelet can ask it, and what is known of it is its budget.
	Startup *Probe `json:"startup,omitempty"`
	// PreStop is a hook of HTTP.
	PreStop *Probe `json:"preStop,omitempty"`
}

// Probe is one request, of which at most one kind is not nil. Times are in
// milliseconds.
type Probe struct {
	HTTP *HTTP `json:"http,omitempty"`
	TCP  *TCP  `json:"tcp,omitempty"`
	GRPC *GRPC `json:"grpc,omitempty"`
	// Timeout is how long one request may take; 0 for a hook, which has none.
	Timeout int64 `json:"timeout,omitempty"`
	// InitialDelay, Period and FailureThreshold are those of Startup: it may take
	// InitialDelay + Period x FailureThreshold.
	InitialDelay     int64 `json:"initialDelay,omitempty"`
	Period           int64 `json:"period,omitempty"`
	FailureThreshold int64 `json:"failureThreshold,omitempty"`
}

// HTTP is a GET that succeeds with a status from 200 to 399.
type HTTP struct {
	// Scheme is HTTP or HTTPS, HTTP if it is empty. No certificate is verified.
	Scheme string `json:"scheme,omitempty"`
	// Host is asked; empty is the pod's own address.
	Host string `json:"host,omitempty"`
	Port int32  `json:"port"`
	// PortName is how the pod names the port, if it does.
	PortName string   `json:"portName,omitempty"`
	Path     string   `json:"path,omitempty"`
	Headers  []Header `json:"headers,omitempty"`
	// Protocol is HTTP1 or H2C; nil is HTTP1.
	Protocol *string `json:"protocol,omitempty"`
}

// Header is one of an HTTP request. Host replaces the request's.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TCP is a connection that is closed when it is there.
type TCP struct {
	Host     string `json:"host,omitempty"`
	Port     int32  `json:"port"`
	PortName string `json:"portName,omitempty"`
}

// GRPC is a call of grpc.health.v1.Health/Check on the pod's own address.
type GRPC struct {
	Port int32 `json:"port"`
	// Service is the name that is asked for; nil, as none, asks for the whole server.
	Service *string `json:"service,omitempty"`
	// Mode is Plaintext or TLS, of which no certificate is verified; nil is Plaintext.
	Mode *string `json:"mode,omitempty"`
}

// Asks tells whether there is anything to ask.
func (p *Probe) Asks() bool { return p.HTTP != nil || p.TCP != nil || p.GRPC != nil }
