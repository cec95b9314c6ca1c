//go:build integration

package election

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// member is a candidate behind a proxy of its own.
type member struct {
	e      *elector.Elector
	proxy  *proxy
	losses atomic.Int64
	leave  func()
	// die makes the connections die in silence under the next write.
	die  atomic.Bool
	died atomic.Bool
}

func quickSettings(lock string) elector.Settings {
	return elector.Settings{
		Lock: lock, Mode: elector.ModeLease,
		LeaseDuration: 6 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: time.Second,
	}
}

func startMember(t *testing.T, settings elector.Settings, name string) *member {
	t.Helper()
	api, err := url.Parse(cluster.RESTConfig().Host)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{proxy: newProxy(t, api.Host)}
	config := m.proxy.behind()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripperFunc(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut && m.die.CompareAndSwap(true, false) {
				m.proxy.freeze()
				m.died.Store(true)
			}
			return next.RoundTrip(req)
		})
	})
	lock, err := kube.New(config, kube.Config{Candidate: elector.Description{Settings: settings, Namespace: "default", Identity: name}})
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

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// TestSilentConnections kills the connections of the leader and of a standby
// without telling them. The leader keeps its claim over new ones; a standby
// notices at the latest when the lease seems to have run out.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	settings := quickSettings("silent")
	a := startMember(t, settings, "a")
	eventually(t, "a leads", a.e.IsLeader)
	b := startMember(t, settings, "b")
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

// TestSilentHandover lets the connection die under the very writes that hand the
// lock over: the leader's release, and the acquiring of a standby that has just
// seen the lock free. Both try again over new ones.
func TestSilentHandover(t *testing.T) {
	t.Parallel()
	for name, dies := range map[string]func(leader, standby *member) *member{
		"release": func(leader, _ *member) *member { return leader },
		"acquire": func(_, standby *member) *member { return standby },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := quickSettings("silent-" + name)
			a := startMember(t, settings, "a")
			eventually(t, "a leads", a.e.IsLeader)
			b := startMember(t, settings, "b")
			eventually(t, "b knows the leader", func() bool { return b.e.Leader() == "a" })
			victim := dies(a, b)
			victim.die.Store(true)
			a.leave()
			lease, err := cluster.Client().CoordinationV1().Leases("default").Get(t.Context(), settings.Lock, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if *lease.Spec.HolderIdentity == "a" {
				t.Error("a is gone, and the lock still names it")
			}
			eventually(t, "b leads", b.e.IsLeader)
			if !victim.died.Load() {
				t.Error("the connection did not die: no write came")
			}
		})
	}
}
