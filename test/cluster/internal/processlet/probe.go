package processlet

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Right after a container's start its probes come faster than their period, since a process here is up within milliseconds and a period is
// at least a second. A failure in that time does not count. This is the one thing in which probes are not a kubelet's.
const (
	eagerFirst = 5 * time.Millisecond
	eagerMax   = 250 * time.Millisecond
)

// probeClient makes one connection per probe, as the kubelet does, and takes any certificate.
var probeClient = &http.Client{
	Transport: &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a probe asks whether a server answers, not who it is
	},
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if req.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	},
}

// prober counts the results of one probe.
type prober struct {
	run        *run
	probe      *v1.Probe
	successes  int32
	failures   int32
	eagerUntil time.Time
	pause      time.Duration
}

func (r *run) newProber(probe *v1.Probe) *prober {
	begin := time.Now().Add(time.Duration(probe.InitialDelaySeconds) * time.Second)
	return &prober{run: r, probe: probe, eagerUntil: begin.Add(period(probe)), pause: eagerFirst}
}

func period(probe *v1.Probe) time.Duration {
	return time.Duration(max(probe.PeriodSeconds, 1)) * time.Second
}

// wait returns before the next attempt, or false when the run has ended. A frozen pod is not probed: its kubelet would be as frozen.
func (p *prober) wait(d time.Duration) bool {
	for {
		select {
		case <-p.run.ctx.Done():
			return false
		case <-time.After(d):
		}
		if !p.run.pod.frozen.Load() {
			return true
		}
		d = eagerMax
	}
}

// attempt probes once and counts. Failures count only after the eager time.
func (p *prober) attempt() error {
	ctx, cancel := context.WithTimeout(p.run.ctx, time.Duration(max(p.probe.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	err := p.run.check(ctx, p.probe)
	switch {
	case err == nil:
		p.successes++
		p.failures = 0
	case p.run.ctx.Err() != nil || p.run.pod.frozen.Load():
	default:
		p.successes = 0
		if time.Now().After(p.eagerUntil) {
			p.failures++
		}
	}
	return err
}

// next is how long to wait for the next attempt.
func (p *prober) next() time.Duration {
	if p.successes > 0 || time.Now().After(p.eagerUntil) || p.probe.Exec != nil {
		return period(p.probe)
	}
	pause := p.pause
	p.pause = min(2*p.pause, eagerMax)
	return pause
}

func (p *prober) failed() bool { return p.failures >= max(p.probe.FailureThreshold, 1) }

func (p *prober) passed() bool { return p.successes >= max(p.probe.SuccessThreshold, 1) }

// probeStartup holds the container back until its startup probe passes, or has it restarted.
func (r *run) probeStartup(probe *v1.Probe) {
	p := r.newProber(probe)
	for ok := p.wait(time.Duration(probe.InitialDelaySeconds) * time.Second); ok; ok = p.wait(p.next()) {
		err := p.attempt()
		if p.passed() {
			r.tell(func(c *container) { r.pod.markStarted(c, r) })
			return
		}
		if p.failed() {
			r.tell(func(c *container) { r.unhealthy(c, "Startup", err, probe) })
			return
		}
	}
}

// probeReadiness keeps the container's readiness right until the run ends.
func (r *run) probeReadiness(probe *v1.Probe) {
	p := r.newProber(probe)
	ready := false
	for ok := p.wait(time.Duration(probe.InitialDelaySeconds) * time.Second); ok; ok = p.wait(p.next()) {
		err := p.attempt()
		switch {
		case !ready && p.passed():
			ready = true
			r.tell(func(*container) { r.ready = true })
		case ready && p.failed():
			ready = false
			r.tell(func(c *container) {
				r.ready = false
				r.pod.eventf(v1.EventTypeWarning, "Unhealthy", "Readiness probe of container %s failed: %v", c.spec.Name, err)
			})
		}
	}
}

// probeLiveness has the container restarted when the probe fails too often.
func (r *run) probeLiveness(probe *v1.Probe) {
	p := r.newProber(probe)
	p.eagerUntil = time.Time{} // nobody waits for it to pass
	for ok := p.wait(time.Duration(probe.InitialDelaySeconds) * time.Second); ok; ok = p.wait(p.next()) {
		err := p.attempt()
		if p.failed() {
			r.tell(func(c *container) { r.unhealthy(c, "Liveness", err, probe) })
			return
		}
	}
}

// tell brings a result to the pod's goroutine, unless the run is over by then.
func (r *run) tell(result func(*container)) {
	r.pod.post(func() {
		for _, c := range r.pod.containers {
			if c.run == r && !r.exited {
				result(c)
			}
		}
	})
}

// unhealthy has a container restarted, unless its pod is on its way out anyway.
func (r *run) unhealthy(c *container, name string, err error, probe *v1.Probe) {
	if r.pod.stop != nil {
		return
	}
	r.pod.eventf(v1.EventTypeWarning, "Unhealthy", "%s probe of container %s failed, it will be restarted: %v", name, c.spec.Name, err)
	grace := r.pod.specGrace()
	if g := probe.TerminationGracePeriodSeconds; g != nil {
		grace = time.Duration(*g) * time.Second
	}
	r.pod.restart(r, grace)
}

// check makes one probe.
func (r *run) check(ctx context.Context, probe *v1.Probe) error {
	switch {
	case probe.HTTPGet != nil:
		return r.httpGet(ctx, probe.HTTPGet)
	case probe.TCPSocket != nil:
		address, err := r.address(probe.TCPSocket.Host, probe.TCPSocket.Port)
		if err != nil {
			return err
		}
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		return conn.Close()
	case probe.Exec != nil:
		return r.exec(ctx, r.pod.expandAll(probe.Exec.Command, &variables{}), Streams{})
	}
	return fmt.Errorf("this kind of probe: %w", errUnsupported)
}

func (r *run) httpGet(ctx context.Context, get *v1.HTTPGetAction) error {
	address, err := r.address(get.Host, get.Port)
	if err != nil {
		return err
	}
	target, err := url.Parse(get.Path)
	if err != nil {
		return fmt.Errorf("path %q: %w", get.Path, err)
	}
	target.Scheme, target.Host = strings.ToLower(string(get.Scheme)), address
	if target.Scheme == "" {
		target.Scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return fmt.Errorf("request %s: %w", target, err)
	}
	req.Header.Set("User-Agent", "kube-probe/1")
	for _, h := range get.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
		req.Header.Add(h.Name, h.Value)
	}
	resp, err := probeClient.Do(req)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answered %s: %s", target.Path, resp.Status, body)
	}
	return nil
}

// address is where a port of the pod is reached. The pod's loopback is its own address here.
func (r *run) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" || host == "127.0.0.1" || host == "localhost" {
		host = r.pod.wire.String()
	}
	number := port.IntValue()
	if port.Type == intstr.String {
		number = 0
		for _, p := range r.spec.Ports {
			if p.Name == port.StrVal {
				number = int(p.ContainerPort)
			}
		}
		if number == 0 {
			return "", fmt.Errorf("port %q: %w", port.StrVal, ErrNotFound)
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}
