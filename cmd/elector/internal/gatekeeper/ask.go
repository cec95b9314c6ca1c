package gatekeeper

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/elector-io/elector/elector/gate"
)

const (
	// longestAsk is for hooks, which have no timeout of their own: the pod's grace ends
	// them, and most pods have 30 s.
	longestAsk = 30 * time.Second
	// maxRedirects is how many the kubelet follows.
	maxRedirects = 10
	// maxBody is how much of an answer is read, so that the other side can end it.
	maxBody = 10 << 10
)

// asker asks containers what the kubelet would, in the same way (k8s.io/kubernetes,
// pkg/probe): by a new connection each time, without a proxy, with any certificate.
type asker struct {
	podIP  string
	client map[string]*http.Client // by protocol
}

func newAsker(podIP string) asker {
	a := asker{podIP: podIP, client: map[string]*http.Client{}}
	for name, set := range map[string]func(*http.Protocols){
		"HTTP1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"H2C":   func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
		"H2":    func(p *http.Protocols) { p.SetHTTP2(true) },
	} {
		protocols := new(http.Protocols)
		set(protocols)
		a.client[name] = &http.Client{
			Transport: &http.Transport{
				Protocols: protocols, DisableKeepAlives: true, DisableCompression: true,
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as the kubelet: it is asked whether it answers, not who it is
			},
			CheckRedirect: stayThere,
		}
	}
	return a
}

// stayThere follows redirects within a host; one that leads elsewhere is an answer.
func stayThere(next *http.Request, before []*http.Request) error {
	if next.URL.Hostname() != before[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(before) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

// ask carries out a probe. One that is nil succeeds.
func (a asker) ask(ctx context.Context, p *gate.Probe) error {
	if p == nil {
		return nil
	}
	timeout := longestAsk
	if p.Timeout > 0 {
		timeout = milliseconds(p.Timeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case p.HTTP != nil:
		return a.askHTTP(ctx, p.HTTP)
	case p.TCP != nil:
		return a.askTCP(ctx, p.TCP)
	case p.GRPC != nil:
		return a.askGRPC(ctx, p.GRPC)
	}
	return errors.New("nothing is known to ask")
}

func (a asker) at(host string, port int32) string {
	return net.JoinHostPort(cmp.Or(host, a.podIP), strconv.Itoa(int(port)))
}

func (a asker) askTCP(ctx context.Context, p *gate.TCP) error {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", a.at(p.Host, p.Port))
	if err != nil {
		return err
	}
	_ = connection.Close() // it was there
	return nil
}

func (a asker) askHTTP(ctx context.Context, p *gate.HTTP) error {
	path := p.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	url := strings.ToLower(cmp.Or(p.Scheme, "HTTP")) + "://" + a.at(p.Host, p.Port) + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	for _, h := range p.Headers {
		request.Header.Add(h.Name, h.Value)
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			request.Host = h.Value
		}
	}
	protocol := "HTTP1"
	if p.Protocol != nil && *p.Protocol == "H2C" {
		protocol = "H2C"
	}
	response, err := a.client[protocol].Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxBody)
	if response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("it answers %d", response.StatusCode)
	}
	return nil
}

// askGRPC calls grpc.health.v1.Health/Check: a message with the service's name in
// field 1 is sent, and field 1 of the answer is 1 if it serves. gRPC is HTTP/2 with
// five bytes before each message and the result in the trailers
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func (a asker) askGRPC(ctx context.Context, p *gate.GRPC) error {
	scheme, protocol := "http://", "H2C"
	if p.Mode != nil && *p.Mode == "TLS" {
		scheme, protocol = "https://", "H2"
	}
	var service string
	if p.Service != nil {
		service = *p.Service
	}
	message := []byte{}
	if service != "" {
		message = append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service))), service...)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...) //nolint:gosec // a name is short
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+a.at("", p.Port)+"/grpc.health.v1.Health/Check", bytes.NewReader(frame))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	response, err := a.client[protocol].Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return err
	}
	status := cmp.Or(response.Trailer.Get("Grpc-Status"), response.Header.Get("Grpc-Status"))
	if response.StatusCode != http.StatusOK || status != "0" {
		return fmt.Errorf("it answers %d, grpc-status %q", response.StatusCode, status)
	}
	if !serves(body) {
		return errors.New("it does not serve")
	}
	return nil
}

// serves tells whether a framed HealthCheckResponse says so. One has only the field status,
// and may leave it out for 0, which is unknown.
func serves(frame []byte) bool {
	return bytes.Equal(frame, []byte{0, 0, 0, 0, 2, 1 << 3, 1})
}
