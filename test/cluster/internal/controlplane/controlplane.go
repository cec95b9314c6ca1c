// Package controlplane runs etcd, kube-apiserver and kube-controller-manager as ordinary processes.
//
// They are the real programs with ordinary settings: RBAC and node authorisation, the default admission plugins, every controller that
// works on workloads. Two things are not as in production. etcd does not wait for the disk, so a crash of the machine loses the
// cluster, which nobody minds. And there is one of each.
//
// The processes die with this one, however it dies.
package controlplane

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/elector-io/elector/test/cluster/internal/network"
)

// Config says where the programs are and where they may live.
type Config struct {
	// Bin is a directory with etcd, kube-apiserver and kube-controller-manager. Required.
	Bin string
	// Dir is an existing directory for data, certificates and logs. Required.
	Dir string
	// Range holds the addresses to use. Required.
	Range *network.Range
	// Nodes is the number of kubelet addresses that certificates are made for.
	Nodes int
	// Audit writes one line per request, without bodies, to audit.log in Dir.
	Audit bool
	// ReadyTimeout is how long each program may take to answer. Default 60 s: a warm start takes 3 s, a machine with everything else to do more.
	ReadyTimeout time.Duration
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	cfg       Config
	authority *authority
	endpoint  netip.AddrPort
	etcd      netip.AddrPort

	mu        sync.Mutex
	processes []*process
	stopping  bool
	failed    chan error
}

// errExited is the end of a program that should run on, even without an error of its own.
var errExited = errors.New("exit status 0")

// apiserver is the program that can be restarted.
const apiserver = "kube-apiserver"

// process is one of the programs.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	// killed tells that it ends because it was told to.
	killed bool
}

// Start returns when the API answers and the controllers run. The caller must Stop what it gets.
func Start(ctx context.Context, cfg Config) (*ControlPlane, error) {
	if cfg.ReadyTimeout == 0 {
		cfg.ReadyTimeout = time.Minute
	}
	c := &ControlPlane{cfg: cfg, failed: make(chan error, 3)}
	if err := c.start(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(c.cfg.Dir, "logs"), 0o755); err != nil {
		return fmt.Errorf("create the log directory: %w", err)
	}
	if err := c.choosePorts(); err != nil {
		return err
	}
	if err := c.issueCertificates(); err != nil {
		return err
	}
	peer, err := network.FreePort(c.cfg.Range.ControlPlane())
	if err != nil {
		return err
	}
	if err := c.run("etcd", c.etcdFlags(netip.AddrPortFrom(c.cfg.Range.ControlPlane(), peer))); err != nil {
		return err
	}
	// The API server waits for etcd by itself.
	if err := c.run(apiserver, c.apiserverFlags()); err != nil {
		return err
	}
	if err := c.waitReady(ctx); err != nil {
		return err
	}
	return c.run("kube-controller-manager", c.controllerFlags())
}

// Failed delivers an error when a program ends that should not.
func (c *ControlPlane) Failed() <-chan error { return c.failed }

// Endpoint is where the API server listens.
func (c *ControlPlane) Endpoint() netip.AddrPort { return c.endpoint }

// CAFile is the certificate authority of everything in the cluster.
func (c *ControlPlane) CAFile() string { return c.authority.certFile("ca") }

// KubeletCertificate is what every node serves with.
func (c *ControlPlane) KubeletCertificate() (certFile, keyFile string) {
	return c.authority.certFile("kubelet"), c.authority.keyFile("kubelet")
}

// KubeletClientName is the common name by which the API server identifies itself to kubelets.
const KubeletClientName = "kube-apiserver-kubelet-client"

// Admin is a client configuration that may do everything. Requests are not slowed down on the client's side.
func (c *ControlPlane) Admin() *rest.Config {
	return &rest.Config{
		Host: "https://" + c.endpoint.String(),
		TLSClientConfig: rest.TLSClientConfig{
			CAFile:   c.CAFile(),
			CertFile: c.authority.certFile("admin"),
			KeyFile:  c.authority.keyFile("admin"),
		},
		QPS: -1,
	}
}

// WriteKubeconfig writes a kubeconfig with an identity's certificate in it: one of admin, kube-controller-manager.
func (c *ControlPlane) WriteKubeconfig(path, identity string) error {
	ca, errCA := os.ReadFile(c.CAFile())
	cert, errCert := os.ReadFile(c.authority.certFile(identity))
	key, errKey := os.ReadFile(c.authority.keyFile(identity))
	if err := errors.Join(errCA, errCert, errKey); err != nil {
		return fmt.Errorf("read the certificates: %w", err)
	}
	const name = "elector"
	content, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: "https://" + c.endpoint.String(), CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{identity: {ClientCertificateData: cert, ClientKeyData: key}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: identity}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	// By rename: who waits for the file finds it whole.
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("put the kubeconfig in place: %w", err)
	}
	return nil
}

// Stop ends the programs in the reverse order of their start and returns when they are gone. They get SIGKILL: nothing they hold outlives them.
func (c *ControlPlane) Stop() {
	c.mu.Lock()
	c.stopping = true
	processes := c.processes
	c.mu.Unlock()
	for _, p := range slices.Backward(processes) {
		_ = p.cmd.Process.Kill() // fails if it has ended
		<-p.done
	}
}

// RestartAPIServer kills the API server, with every connection to it, and returns when the next one answers at the same address. etcd and
// the controllers run on.
func (c *ControlPlane) RestartAPIServer(ctx context.Context) error {
	c.mu.Lock()
	i := slices.IndexFunc(c.processes, func(p *process) bool { return p.name == apiserver })
	if c.stopping || i < 0 {
		c.mu.Unlock()
		return errors.New("the control plane does not run")
	}
	old := c.processes[i]
	old.killed = true
	c.processes = slices.Delete(c.processes, i, i+1)
	c.mu.Unlock()
	_ = old.cmd.Process.Kill() // fails if it has ended
	<-old.done
	if err := c.run(apiserver, c.apiserverFlags()); err != nil {
		return err
	}
	return c.waitReady(ctx)
}

func (c *ControlPlane) choosePorts() error {
	at := c.cfg.Range.ControlPlane()
	for _, to := range []*netip.AddrPort{&c.endpoint, &c.etcd} {
		port, err := network.FreePort(at)
		if err != nil {
			return err
		}
		*to = netip.AddrPortFrom(at, port)
	}
	return nil
}

func (c *ControlPlane) issueCertificates() error {
	a, err := newAuthority(filepath.Join(c.cfg.Dir, "pki"))
	if err != nil {
		return err
	}
	c.authority = a
	r := c.cfg.Range
	nodes := make([]netip.Addr, c.cfg.Nodes)
	for i := range nodes {
		nodes[i] = r.Node(i)
	}
	identities := map[string]identity{
		"etcd": {name: "etcd", ips: []netip.Addr{r.ControlPlane()}},
		"kube-apiserver": {name: "kube-apiserver", ips: []netip.Addr{r.ControlPlane(), r.Links(), r.KubernetesService()},
			dns: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		"kubelet":                 {name: "kubelet", ips: nodes},
		"kubelet-client":          {name: KubeletClientName},
		"kube-controller-manager": {name: "system:kube-controller-manager"},
		"admin":                   {name: "admin", groups: []string{"system:masters"}},
	}
	for file, id := range identities {
		if err := a.issue(file, id); err != nil {
			return err
		}
	}
	_, err = a.newKey("service-account")
	return err
}

func (c *ControlPlane) etcdFlags(peer netip.AddrPort) []string {
	a := c.authority
	client := "https://" + c.etcd.String()
	return []string{
		"--name=etcd",
		"--data-dir=" + filepath.Join(c.cfg.Dir, "etcd"),
		"--unsafe-no-fsync=true",
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=https://" + peer.String(),
		"--initial-advertise-peer-urls=https://" + peer.String(),
		"--initial-cluster=etcd=https://" + peer.String(),
		"--cert-file=" + a.certFile("etcd"), "--key-file=" + a.keyFile("etcd"),
		"--client-cert-auth=true", "--trusted-ca-file=" + a.certFile("ca"),
		"--peer-cert-file=" + a.certFile("etcd"), "--peer-key-file=" + a.keyFile("etcd"),
		"--peer-client-cert-auth=true", "--peer-trusted-ca-file=" + a.certFile("ca"),
		"--log-level=warn",
	}
}

func (c *ControlPlane) apiserverFlags() []string {
	a, r := c.authority, c.cfg.Range
	flags := []string{
		"--bind-address=" + r.ControlPlane().String(),
		"--advertise-address=" + r.ControlPlane().String(),
		fmt.Sprintf("--secure-port=%d", c.endpoint.Port()),
		"--tls-cert-file=" + a.certFile("kube-apiserver"), "--tls-private-key-file=" + a.keyFile("kube-apiserver"),
		"--client-ca-file=" + a.certFile("ca"),
		"--etcd-servers=https://" + c.etcd.String(),
		"--etcd-cafile=" + a.certFile("ca"), "--etcd-certfile=" + a.certFile("etcd"), "--etcd-keyfile=" + a.keyFile("etcd"),
		"--service-cluster-ip-range=" + r.ServiceCIDR().String(),
		// The API refuses loopback addresses for endpoints; the processlet forwards the Service "kubernetes" without.
		"--endpoint-reconciler-type=none",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + filepath.Join(a.dir, "service-account.pub"),
		"--service-account-signing-key-file=" + a.keyFile("service-account"),
		"--kubelet-certificate-authority=" + a.certFile("ca"),
		"--kubelet-client-certificate=" + a.certFile("kubelet-client"), "--kubelet-client-key=" + a.keyFile("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP",
		"--event-ttl=15m",
		"--profiling=false",
	}
	if c.cfg.Audit {
		flags = append(flags, "--audit-policy-file="+c.auditPolicy(), "--audit-log-path="+filepath.Join(c.cfg.Dir, "audit.log"))
	}
	return flags
}

func (c *ControlPlane) auditPolicy() string { return filepath.Join(c.cfg.Dir, "audit-policy.yaml") }

// idleControllers have nothing to do here: no cloud, no disks, no certificates for kubelets, no scheduler that claims devices.
const idleControllers = "-bootstrap-signer-controller,-token-cleaner-controller,-certificatesigningrequest-signing-controller," +
	"-certificatesigningrequest-approving-controller,-certificatesigningrequest-cleaner-controller,-persistentvolume-attach-detach-controller," +
	"-persistentvolume-binder-controller,-persistentvolume-expander-controller,-node-route-controller,-service-lb-controller,-cloud-node-lifecycle-controller," +
	"-node-ipam-controller,-horizontal-pod-autoscaler-controller,-resourceclaim-controller"

func (c *ControlPlane) controllerFlags() []string {
	a := c.authority
	return []string{
		"--kubeconfig=" + filepath.Join(a.dir, "kube-controller-manager.kubeconfig"),
		"--secure-port=0",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + a.keyFile("service-account"),
		"--root-ca-file=" + a.certFile("ca"),
		"--controllers=*," + idleControllers,
		// Many tests create and delete at once; the default of 20 requests per second would be what they measure.
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--profiling=false",
	}
}

// run starts a program with its output in a file and watches over it.
func (c *ControlPlane) run(name string, flags []string) error {
	if name == "kube-controller-manager" {
		if err := c.WriteKubeconfig(filepath.Join(c.authority.dir, name+".kubeconfig"), name); err != nil {
			return err
		}
	}
	if name == apiserver && c.cfg.Audit {
		const policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"
		if err := os.WriteFile(c.auditPolicy(), []byte(policy), 0o644); err != nil {
			return fmt.Errorf("write the audit policy: %w", err)
		}
	}
	log, err := os.OpenFile(c.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	defer log.Close()
	p := &process{name: name, cmd: exec.Command(filepath.Join(c.cfg.Bin, name), flags...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Dir = c.cfg.Dir
	// A session of its own: Ctrl-C in a terminal is for this process, which ends the others in order.
	// Pdeathsig goes by the thread that forks; see sandbox.Start.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	c.mu.Lock()
	c.processes = append(c.processes, p)
	c.mu.Unlock()
	go c.watch(p)
	return nil
}

// watch ends with the process; Stop waits for it.
func (c *ControlPlane) watch(p *process) {
	defer close(p.done)
	err := p.cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopping && !p.killed {
		c.failed <- fmt.Errorf("%s ended by itself: %w\n%s", p.name, cmp.Or(err, errExited), c.logTail(p.name))
	}
}

func (c *ControlPlane) logFile(name string) string {
	return filepath.Join(c.cfg.Dir, "logs", name+".log")
}

// logTail is the end of a program's log, for the error message.
func (c *ControlPlane) logTail(name string) string {
	content, _ := os.ReadFile(c.logFile(name))
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// waitReady asks the API server until it says that it is ready.
func (c *ControlPlane) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ReadyTimeout)
	defer cancel()
	client, err := c.readyClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if c.ready(ctx, client) {
			return nil
		}
		select {
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("kube-apiserver is not ready: %w\n%s", ctx.Err(), c.logTail(apiserver))
		case <-tick.C:
		}
	}
}

func (c *ControlPlane) readyClient() (*http.Client, error) {
	ca, err := os.ReadFile(c.CAFile())
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}, nil
}

func (c *ControlPlane) ready(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.endpoint.String()+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
