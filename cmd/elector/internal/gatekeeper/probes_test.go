package gatekeeper

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elector-io/elector/elector/gate"
)

// app is a server of a container, and its port.
func app(t *testing.T, handler http.HandlerFunc, start func(*httptest.Server)) int32 {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	start(server)
	t.Cleanup(server.Close)
	return portOf(t, server.URL)
}

func portOf(t *testing.T, address string) int32 {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(u.Port(), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(port)
}

func h2c(s *httptest.Server) {
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
}

func h2(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }

func health(service string, status byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		want := []byte{}
		if service != "" {
			want = append([]byte{0x0a, byte(len(service))}, service...)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		code := "0"
		if r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Content-Type") != "application/grpc" || string(body) != string(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(want))), want...)) {
			code = "5"
		}
		if code == "0" {
			_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, status})
		}
		w.Header().Set("Grpc-Status", code)
	}
}

// TestAsk holds what succeeds and what does not, of every kind of probe.
func TestAsk(t *testing.T) {
	answer := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	choosy := func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "app.example" || r.Header.Get("X-Key") != "a" || r.URL.Path != "/live" || r.URL.RawQuery != "full=1" {
			w.WriteHeader(http.StatusTeapot)
		}
	}
	redirects := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/end" {
				http.Redirect(w, r, to, http.StatusFound)
				return
			}
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	plain := (*httptest.Server).Start
	web, other, tls := "web", "other", "TLS"
	h2cName := "H2C"
	closedPort := func() int32 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return portOf(t, "tcp://"+l.Addr().String())
	}
	for name, tc := range map[string]struct {
		probe *gate.Probe
		ok    bool
	}{
		"none":                 {nil, true},
		"nothing to ask":       {&gate.Probe{}, false},
		"HTTP":                 {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, answer(200), plain), Path: "/"}}, true},
		"HTTP without a path":  {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, answer(204), plain)}}, true},
		"HTTP that fails":      {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, answer(500), plain), Path: "/"}}, false},
		"HTTP that is refused": {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, answer(401), plain), Path: "/"}}, false},
		"headers": {&gate.Probe{HTTP: &gate.HTTP{
			Port: app(t, choosy, plain), Path: "/live?full=1", Headers: []gate.Header{{Name: "host", Value: "app.example"}, {Name: "X-Key", Value: "a"}},
		}}, true},
		"HTTPS":                    {&gate.Probe{HTTP: &gate.HTTP{Scheme: "HTTPS", Port: app(t, answer(200), (*httptest.Server).StartTLS)}}, true},
		"HTTP to a port of HTTPS":  {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, answer(200), (*httptest.Server).StartTLS)}}, false},
		"h2c":                      {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, answer(200), h2c), Protocol: &h2cName}}, true},
		"a redirect within":        {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, redirects("/end"), plain), Path: "/"}}, false},
		"a redirect elsewhere":     {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, redirects("http://elsewhere.invalid/"), plain), Path: "/"}}, true},
		"redirects without an end": {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, redirects("/again"), plain), Path: "/"}}, false},
		"no answer":                {&gate.Probe{HTTP: &gate.HTTP{Port: app(t, slow, plain)}, Timeout: 50}, false},
		"TCP":                      {&gate.Probe{TCP: &gate.TCP{Port: app(t, answer(500), plain)}}, true},
		"TCP of a host":            {&gate.Probe{TCP: &gate.TCP{Host: "localhost", Port: app(t, answer(500), plain)}}, true},
		"TCP that is closed":       {&gate.Probe{TCP: &gate.TCP{Port: closedPort()}}, false},
		"gRPC":                     {&gate.Probe{GRPC: &gate.GRPC{Port: app(t, health("", 1), h2c)}}, true},
		"gRPC of a service":        {&gate.Probe{GRPC: &gate.GRPC{Port: app(t, health("web", 1), h2c), Service: &web}}, true},
		"gRPC of another service":  {&gate.Probe{GRPC: &gate.GRPC{Port: app(t, health("web", 1), h2c), Service: &other}}, false},
		"gRPC that does not serve": {&gate.Probe{GRPC: &gate.GRPC{Port: app(t, health("", 2), h2c)}}, false},
		"gRPC with TLS":            {&gate.Probe{GRPC: &gate.GRPC{Port: app(t, health("", 1), h2), Mode: &tls}}, true},
		"gRPC of something else":   {&gate.Probe{GRPC: &gate.GRPC{Port: app(t, answer(200), plain)}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := newAsker("127.0.0.1").ask(t.Context(), tc.probe); (err == nil) != tc.ok {
				t.Errorf("asked: %v", err)
			}
		})
	}
}

// TestProbes holds what the kubelet is answered while the gate is closed, while the container starts, and after.
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Bool
		var token atomic.Uint64
		var up atomic.Int64
		spec := gate.Spec{Containers: map[string]gate.Container{
			"app": {
				Liveness: &gate.Probe{TCP: &gate.TCP{Port: 1}}, Readiness: &gate.Probe{TCP: &gate.TCP{Port: 2}},
				Startup: &gate.Probe{TCP: &gate.TCP{Port: 3}, InitialDelay: 1000, Period: 2000, FailureThreshold: 5},
			},
			"bare": {},
		}}
		p := NewProbes(spec, "127.0.0.1", held.Load, token.Load)
		p.by = func(_ context.Context, probe *gate.Probe) error {
			if probe == nil || up.Load() != 0 {
				return nil
			}
			return context.DeadlineExceeded
		}
		want := func(when string, codes map[string]int) {
			t.Helper()
			for path, code := range codes {
				w := httptest.NewRecorder()
				mux := http.NewServeMux()
				mux.Handle("GET /gate/{container}/{probe}", p)
				mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/gate/"+path, nil))
				if w.Code != code {
					t.Errorf("%s: %s is answered with %d %s", when, path, w.Code, w.Body)
				}
			}
		}
		closed := map[string]int{"app/startup": 200, "app/liveness": 200, "app/readiness": 200, "app/prestop": 200, "bare/liveness": 200, "none/liveness": 404, "app/none": 404}
		want("closed", closed)
		held.Store(true)
		token.Store(7)
		want("opening", map[string]int{"app/startup": 503, "app/liveness": 200, "app/readiness": 503, "app/prestop": 200, "bare/liveness": 200, "bare/readiness": 200})
		time.Sleep(10 * time.Second)
		want("just before its budget is spent", map[string]int{"app/liveness": 200, "app/readiness": 503})
		time.Sleep(time.Second)
		want("after it", map[string]int{"app/liveness": 503, "app/readiness": 503})
		up.Store(1)
		want("up at last", map[string]int{"app/liveness": 200, "app/readiness": 200})
		token.Store(0)
		up.Store(0)
		want("stopping", map[string]int{"app/liveness": 503})
		held.Store(false)
		want("closed again", closed)

		held.Store(true)
		token.Store(9)
		want("opening again", map[string]int{"app/liveness": 200})
		up.Store(1)
		want("up before the initial delay is over", map[string]int{"app/liveness": 200})
		up.Store(0)
		want("which nobody has noticed", map[string]int{"app/liveness": 200})
		time.Sleep(time.Second)
		up.Store(1)
		want("up when it is asked", map[string]int{"app/liveness": 200})
		up.Store(0)
		want("down after it was", map[string]int{"app/liveness": 503})
	})
}
