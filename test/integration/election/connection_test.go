//go:build integration

package election

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// proxy forwards TCP to the API server. freeze makes every connection that is
// open dead without a sign of it, as a load balancer or a firewall does that
// forgot about them; new ones work.
type proxy struct {
	listener net.Listener
	target   string
	wait     sync.WaitGroup

	mu    sync.Mutex
	conns []*frozen
}

type frozen struct {
	net.Conn
	dead atomic.Bool
}

// Read never returns once the connection is dead: bytes vanish.
func (f *frozen) Read(p []byte) (int, error) {
	for {
		n, err := f.Conn.Read(p)
		if err != nil || !f.dead.Load() {
			return n, err
		}
	}
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target}
	p.wait.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.each(func(f *frozen) { f.Close() })
		p.wait.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		down, err := p.listener.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.target)
		if err != nil {
			down.Close()
			continue
		}
		a, b := &frozen{Conn: down}, &frozen{Conn: up}
		p.mu.Lock()
		p.conns = append(p.conns, a, b)
		p.mu.Unlock()
		for _, way := range [][2]*frozen{{a, b}, {b, a}} {
			p.wait.Go(func() {
				_, _ = io.Copy(way[0], way[1])
				if !way[1].dead.Load() {
					way[0].Close()
				}
			})
		}
	}
}

func (p *proxy) each(do func(*frozen)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.conns {
		do(f)
	}
}

func (p *proxy) freeze() { p.each(func(f *frozen) { f.dead.Store(true) }) }

// behind returns a client configuration that goes through the proxy.
func (p *proxy) behind() *rest.Config {
	config := cluster.RESTConfig()
	api, _ := url.Parse(config.Host)
	config.ServerName = api.Hostname()
	config.Host = "https://" + p.listener.Addr().String()
	return config
}

// TestSilentConnections kills the connections of the leader and of a standby
// without telling them. The leader keeps its claim over new ones; a standby
// notices at the latest when the lease seems to have run out.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	settings := elector.Settings{
		Lock: "silent", Mode: elector.ModeLease,
		LeaseDuration: 6 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: time.Second,
	}
	api, err := url.Parse(cluster.RESTConfig().Host)
	if err != nil {
		t.Fatal(err)
	}
	type member struct {
		e      *elector.Elector
		proxy  *proxy
		losses atomic.Int64
		leave  func()
	}
	start := func(name string) *member {
		m := &member{proxy: newProxy(t, api.Host)}
		lock, err := kube.New(m.proxy.behind(), kube.Config{Candidate: elector.Description{Settings: settings, Namespace: "default", Identity: name}})
		if err != nil {
			t.Fatal(err)
		}
		m.e, err = elector.New(elector.Config{
			Lock:      lock,
			Callbacks: elector.Callbacks{OnStoppedLeading: func() { m.losses.Add(1) }},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.e.Run(ctx) }()
		m.leave = sync.OnceFunc(func() { cancel(); <-done }) //nolint:errcheck // the test looks at what it did
		t.Cleanup(m.leave)
		return m
	}
	a := start("a")
	eventually(t, "a leads", a.e.IsLeader)
	b := start("b")
	eventually(t, "b knows the leader", func() bool { return b.e.Leader() == "a" })
	for range 3 {
		a.proxy.freeze()
		before := a.e.Status().Renewed
		eventually(t, "a renews over a new connection", func() bool {
			s := a.e.Status()
			return s.Renewed == nil || s.Renewed.Sub(*before) > settings.RenewDeadline
		})
	}
	if n := a.losses.Load(); n > 0 {
		t.Errorf("the leader lost its claim %d times over dead connections", n)
	}
	b.proxy.freeze()
	a.leave()
	eventually(t, "b leads", b.e.IsLeader)
}
