// Package serviceproxy plays kube-proxy: it listens on the cluster IP and port of every Service and forwards TCP to its ready endpoints.
//
// A Service without an endpoint refuses connections. Connections that exist outlive the endpoint's removal, as they do with kube-proxy.
// UDP, session affinity, node ports and load balancers are not played. Ports below 1024 need root.
package serviceproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/test/cluster/internal/network"
)

// Config says whose Services to forward.
type Config struct {
	// Client may list and watch Services and EndpointSlices. Required.
	Client kubernetes.Interface
	// Range tells where endpoints are really reached. Required.
	Range *network.Range
	// APIServer stands behind the Service "kubernetes", which has no endpoints in the API. Required.
	APIServer netip.AddrPort
}

// Proxy forwards the Services of one cluster.
type Proxy struct {
	cfg    Config
	logger klog.Logger
	wg     sync.WaitGroup

	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	changed  chan struct{}

	fronts  map[netip.AddrPort]*front
	retired []*front // no longer listening, but connections may remain
}

// front is one cluster IP and port with its listener.
type front struct {
	listener net.Listener

	mu    sync.Mutex
	backs []string
	conns map[net.Conn]struct{}
}

// New prepares a proxy. Nothing happens before Run.
func New(cfg Config) *Proxy {
	return &Proxy{cfg: cfg, logger: klog.Background().WithName("serviceproxy"), changed: make(chan struct{}, 1), fronts: map[netip.AddrPort]*front{}}
}

// Run forwards until ctx ends. When it returns no connection is left.
func (p *Proxy) Run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(p.cfg.Client, 0)
	services, endpoints := factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	p.services, p.slices = services.Lister(), endpoints.Lister()
	notify := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.notify() },
		UpdateFunc: func(any, any) { p.notify() },
		DeleteFunc: func(any) { p.notify() },
	}
	if _, err := services.Informer().AddEventHandler(notify); err != nil {
		return fmt.Errorf("watch services: %w", err)
	}
	if _, err := endpoints.Informer().AddEventHandler(notify); err != nil {
		return fmt.Errorf("watch endpoint slices: %w", err)
	}
	defer factory.Shutdown()
	factory.StartWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), services.Informer().HasSynced, endpoints.Informer().HasSynced) {
		return ctx.Err()
	}
	refused := map[netip.AddrPort]bool{}
	for {
		select {
		case <-ctx.Done():
			p.closeAll()
			return nil
		case <-p.changed:
			p.sync(refused)
		}
	}
}

func (p *Proxy) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// sync makes the listeners what the Services ask for.
func (p *Proxy) sync(refused map[netip.AddrPort]bool) {
	want, err := p.want()
	if err != nil {
		p.logger.Error(err, "Services not read")
		return
	}
	for at, f := range p.fronts {
		if len(want[at]) == 0 {
			f.listener.Close()
			delete(p.fronts, at)
			p.retired = append(p.retired, f)
		}
	}
	p.retired = slices.DeleteFunc(p.retired, (*front).idle)
	for at, backs := range want {
		if f, ok := p.fronts[at]; ok {
			f.set(backs)
			continue
		}
		if len(backs) == 0 || refused[at] {
			continue
		}
		l, err := net.Listen("tcp4", at.String())
		if err != nil {
			refused[at] = true // once is enough to say; it will not get better
			p.logger.Error(err, "Service port not served", "address", at)
			continue
		}
		f := &front{listener: l, backs: backs, conns: map[net.Conn]struct{}{}}
		p.fronts[at] = f
		p.wg.Go(func() { p.accept(f) })
	}
}

// want maps every cluster IP and port to the addresses behind it.
func (p *Proxy) want() (map[netip.AddrPort][]string, error) {
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	want := map[netip.AddrPort][]string{}
	for _, s := range services {
		ip, err := netip.ParseAddr(s.Spec.ClusterIP)
		if err != nil {
			continue // headless, or not yet allocated
		}
		found, err := p.slices.EndpointSlices(s.Namespace).List(labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: s.Name}))
		if err != nil {
			return nil, fmt.Errorf("list endpoint slices: %w", err)
		}
		for _, port := range s.Spec.Ports {
			if port.Protocol != v1.ProtocolTCP && port.Protocol != "" {
				continue
			}
			at := netip.AddrPortFrom(ip, uint16(port.Port))
			want[at] = backends(found, port.Name, p.cfg.Range)
			if s.Namespace == v1.NamespaceDefault && s.Name == "kubernetes" {
				want[at] = []string{p.cfg.APIServer.String()}
			}
		}
	}
	return want, nil
}

// backends are the ready endpoints of a port; if there are none, those that still serve while they terminate, as kube-proxy does it.
func backends(found []*discovery.EndpointSlice, port string, r *network.Range) []string {
	var ready, serving []string
	for _, slice := range found {
		number := 0
		for _, p := range slice.Ports {
			if p.Port != nil && (p.Name == nil && port == "" || p.Name != nil && *p.Name == port) {
				number = int(*p.Port)
			}
		}
		if number == 0 {
			continue
		}
		for _, e := range slice.Endpoints {
			for _, a := range e.Addresses {
				ip, err := netip.ParseAddr(a)
				if err != nil {
					continue
				}
				to := netip.AddrPortFrom(r.Wire(ip), uint16(number)).String()
				switch c := e.Conditions; {
				case c.Ready == nil || *c.Ready:
					ready = append(ready, to)
				case c.Serving != nil && *c.Serving:
					serving = append(serving, to)
				}
			}
		}
	}
	if len(ready) == 0 {
		return serving
	}
	return ready
}

func (p *Proxy) closeAll() {
	for _, f := range slices.AppendSeq(p.retired, maps.Values(p.fronts)) {
		f.listener.Close()
		f.mu.Lock()
		for c := range f.conns {
			c.Close()
		}
		f.conns = nil
		f.mu.Unlock()
	}
	p.wg.Wait()
}

func (f *front) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns) == 0
}

func (f *front) set(backs []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backs = backs
}

// pick returns one endpoint at random, or none. There is no second try when it has just gone: kube-proxy chooses where a connection goes
// before it is made.
func (f *front) pick() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.backs) == 0 {
		return ""
	}
	return f.backs[rand.IntN(len(f.backs))]
}

func (p *Proxy) accept(f *front) {
	for {
		c, err := f.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.wg.Go(func() { f.serve(c.(*net.TCPConn)) })
	}
}

func (f *front) serve(client *net.TCPConn) {
	defer f.drop(client)
	if !f.track(client) {
		return
	}
	server, err := dial(f.pick())
	if err != nil {
		_ = client.SetLinger(0) // a reset: the nearest to a refused connection once it is accepted
		return
	}
	defer f.drop(server)
	if !f.track(server) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { pass(server, client) })
	pass(client, server)
	wg.Wait()
}

func dial(address string) (*net.TCPConn, error) {
	c, err := net.Dial("tcp4", address) // an empty address is refused
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// pass moves bytes one way inside the kernel, and hands on how the stream ended.
func pass(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.SetLinger(0)
		_ = to.Close()
		_ = from.Close()
		return
	}
	_ = to.CloseWrite() // fails if it is closed
}

func (f *front) track(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *front) drop(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	c.Close()
}
