package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/test/cluster/internal/control"
	"github.com/elector-io/elector/test/cluster/internal/controlplane"
	"github.com/elector-io/elector/test/cluster/internal/kubeletapi"
	"github.com/elector-io/elector/test/cluster/internal/network"
	"github.com/elector-io/elector/test/cluster/internal/processlet"
	"github.com/elector-io/elector/test/cluster/internal/sandbox"
	"github.com/elector-io/elector/test/cluster/internal/serviceproxy"
	"github.com/elector-io/elector/test/cluster/internal/toolchain"
)

// upConfig is what `cluster up` was asked for.
type upConfig struct {
	dir     string
	nodes   int
	install bool
	chart   string
	bin     string   // absolute
	set     []string // helm values
	audit   bool
	detach  bool
}

func runUp(ctx context.Context, flags *flag.FlagSet, dir *string, args []string, out io.Writer) error {
	cfg := upConfig{}
	flags.IntVar(&cfg.nodes, "nodes", 1, "")
	flags.BoolVar(&cfg.install, "install", false, "")
	flags.StringVar(&cfg.chart, "chart", filepath.Join("charts", "elector"), "")
	flags.StringVar(&cfg.bin, "bin", "bin", "")
	flags.BoolVar(&cfg.audit, "audit", false, "")
	flags.BoolVar(&cfg.detach, "detach", false, "")
	flags.Func("set", "", func(v string) error { cfg.set = append(cfg.set, v); return nil })
	if err := parse(flags, dir, args, 0); err != nil {
		return err
	}
	cfg.dir = *dir
	if cfg.nodes < 1 || cfg.nodes > network.MaxNodes {
		return fmt.Errorf("%w: --nodes must be 1 to %d, not %d", errUsage, network.MaxNodes, cfg.nodes)
	}
	var err error
	if cfg.bin, err = filepath.Abs(cfg.bin); err != nil {
		return fmt.Errorf("find --bin: %w", err)
	}
	if cfg.install {
		if err := checkBuilt(cfg.bin); err != nil {
			return err
		}
	}
	if cfg.detach && !detached() {
		return detach(ctx, args, out)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := watchStarter(cancel); err != nil {
		return err
	}
	return up(ctx, cfg, out)
}

// checkBuilt fails at once where a missing program would only show as pods that never get ready.
func checkBuilt(bin string) error {
	for _, name := range []string{filepath.Join("incluster", "elector"), "webhook"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return fmt.Errorf("--install needs the programs that `make build` makes: %w", err)
		}
	}
	return nil
}

// up runs a cluster until ctx ends or something in it fails.
func up(ctx context.Context, cfg upConfig, out io.Writer) (err error) {
	bin, err := toolchain.Build(ctx, toolchain.Config{GoMod: goMod, GoSum: goSum, Progress: out}, toolchain.ControlPlane)
	if err != nil {
		return err
	}
	d, err := openDirectory(cfg.dir)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, d.close(err != nil))
		if err != nil {
			err = fmt.Errorf("%w\nlogs are in %s", err, filepath.Join(d.path, logsDir))
		}
	}()
	if err := logTo(filepath.Join(d.path, logsDir, logName)); err != nil {
		return err
	}
	if err := sandbox.Check(filepath.Join(d.path, podsDir)); err != nil {
		return err
	}
	p := newProgress(out)
	addresses, err := network.Claim()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, addresses.Close()) }()
	err = live(ctx, cfg, d.path, bin, addresses, p)
	if ctx.Err() != nil || errors.Is(err, control.ErrStopped) {
		err = nil // the echo of a stop that was asked for
	}
	return err
}

// live is a cluster's life between its directory's making and removal.
func live(ctx context.Context, cfg upConfig, dir, bin string, addresses *network.Range, p *progress) error {
	plane, err := controlplane.Start(ctx, controlplane.Config{Bin: bin, Dir: dir, Range: addresses, Nodes: cfg.nodes, Audit: cfg.audit})
	if err != nil {
		return err
	}
	defer plane.Stop()
	p.sayf("API server ready at https://%s", plane.Endpoint())
	c := &cluster{cfg: cfg, dir: dir, bin: bin, addresses: addresses, plane: plane, progress: p}
	return c.run(ctx)
}

// logTo sends what libraries have to say into a file.
func logTo(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	klog.LogToStderr(false)
	klog.SetOutput(f) // stays open as long as the process
	return nil
}

// cluster is everything around a running control plane.
type cluster struct {
	cfg       upConfig
	dir, bin  string
	addresses *network.Range
	plane     *controlplane.ControlPlane
	progress  *progress
	client    kubernetes.Interface
	let       *processlet.Processlet
}

// run starts what plays nodes and network, installs what is asked for, says that the cluster is ready, and returns when ctx ends or a part fails.
func (c *cluster) run(ctx context.Context) error {
	var err error
	if c.client, err = kubernetes.NewForConfig(c.plane.Admin()); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	nodes, listeners, err := c.listenForKubelets()
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	if c.let, err = processlet.New(c.processletConfig(nodes)); err != nil {
		return err
	}
	certFile, keyFile := c.plane.KubeletCertificate()
	kubelet, err := kubeletapi.New(kubeletapi.Config{Host: c.let, CertFile: certFile, KeyFile: keyFile,
		ClientCAFile: c.plane.CAFile(), ClientName: controlplane.KubeletClientName})
	if err != nil {
		return err
	}
	controls, err := control.Listen(socketPath(c.dir), c.actions(), c.plane.RestartAPIServer, processlet.ErrNotFound)
	if err != nil {
		return err
	}
	proxy := serviceproxy.New(serviceproxy.Config{Client: c.client, Range: c.addresses, APIServer: c.plane.Endpoint()})
	ready := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return controls.Serve(ctx) })
	group.Go(func() error { return kubelet.Serve(ctx, listeners) })
	group.Go(func() error { return proxy.Run(ctx) })
	group.Go(func() error { return c.let.Run(ctx, func() { close(ready) }) })
	group.Go(func() error { return c.failure(ctx) })
	group.Go(func() error { return c.complete(ctx, ready) })
	return group.Wait()
}

func (c *cluster) processletConfig(nodes []processlet.Node) processlet.Config {
	return processlet.Config{
		Client:    c.client,
		Range:     c.addresses,
		APIServer: c.plane.Endpoint(),
		Dir:       filepath.Join(c.dir, podsDir),
		Logs:      filepath.Join(c.dir, logsDir, podsDir),
		Nodes:     nodes,
		Images: map[string]processlet.Image{
			"elector":         {Binary: filepath.Join(c.cfg.bin, "incluster", "elector"), Entrypoint: "/elector", Beside: []string{"gate"}},
			"elector-webhook": {Binary: filepath.Join(c.cfg.bin, "webhook"), Entrypoint: "/webhook"},
		},
	}
}

func (c *cluster) listenForKubelets() ([]processlet.Node, []net.Listener, error) {
	var nodes []processlet.Node
	var listeners []net.Listener
	for i := range c.cfg.nodes {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(c.addresses.Node(i), 0).String())
		if err != nil {
			closeAll(listeners)
			return nil, nil, fmt.Errorf("listen for a kubelet: %w", err)
		}
		listeners = append(listeners, l)
		nodes = append(nodes, processlet.Node{Name: fmt.Sprintf("node-%d", i+1), Kubelet: l.Addr().(*net.TCPAddr).AddrPort()})
	}
	return nodes, listeners, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func (c *cluster) actions() map[string]control.Action {
	connect := func(condition network.Condition) control.Action {
		return func(namespace, pod string) error { return c.let.Connect(namespace, pod, condition) }
	}
	return map[string]control.Action{
		"crash":     c.let.Crash,
		"freeze":    c.let.Freeze,
		"thaw":      c.let.Thaw,
		"evict":     c.let.Evict,
		"partition": connect(network.Partitioned),
		"stall":     connect(network.Stalled),
		"heal":      connect(network.Healthy),
	}
}

// failure returns when a program of the control plane ends.
func (c *cluster) failure(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.plane.Failed():
		return err
	}
}

// complete does what remains once pods can run, and says that the cluster is ready.
func (c *cluster) complete(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-ready:
	}
	if err := c.waitForDefaults(ctx); err != nil {
		return err
	}
	c.progress.sayf("%d node(s) ready", c.cfg.nodes)
	if c.cfg.install {
		if err := c.installElector(ctx); err != nil {
			return err
		}
		c.progress.sayf("elector installed from %s", c.cfg.chart)
	}
	if err := c.plane.WriteKubeconfig(filepath.Join(c.dir, "kubeconfig"), "admin"); err != nil {
		return err
	}
	c.progress.sayf("KUBECONFIG=%s", filepath.Join(c.dir, "kubeconfig"))
	c.progress.done()
	if detached() {
		return leaveStarter(c.logFile())
	}
	return nil
}

// logFile is where libraries' messages go, and this program's own once nobody looks.
func (c *cluster) logFile() string { return filepath.Join(c.dir, logsDir, logName) }

// waitForDefaults waits for what controllers put into every namespace: without it no pod can be created.
func (c *cluster) waitForDefaults(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := c.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			_, err = c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		}
		if err == nil {
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("wait for the controllers: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// progress tells people how far a start is, with the seconds since its beginning.
type progress struct {
	out   io.Writer
	start time.Time
}

func newProgress(out io.Writer) *progress { return &progress{out: out, start: time.Now()} }

func (p *progress) sayf(format string, args ...any) {
	fmt.Fprintf(p.out, "%5.1f s  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// done writes the line that says the cluster can be used, the last one.
func (p *progress) done() { fmt.Fprintln(p.out, readyLine) }

const (
	readyLine = "ready"
	logName   = "cluster.log"
)
