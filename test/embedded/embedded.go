// Package embedded starts the embedded cluster of test/cluster for the integration tests, the demo and benchmarks: a real
// control plane whose pods run as processes on this machine.
//
// It runs the programs in bin, which Start brings up to date with the source, whoever built them before. A cluster ends with Stop, and
// by itself when the process that started it dies. What it does not show: kubelets, container images, network namespaces.
package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config says what cluster to start.
type Config struct {
	// Progress receives lines for people while the cluster starts. Default: none.
	Progress io.Writer
	// Install installs the manager with Helm, as a user would, before Start returns. Default: a bare cluster.
	Install bool
	// Set are Helm values, KEY=VALUE. They need Install.
	Set []string
	// Nodes is how many nodes there are. Default 1.
	Nodes int
	// Audit makes the API server log every request to audit.log in the cluster's directory. Default: no.
	Audit bool
}

// Cluster is a running cluster.
type Cluster struct {
	dir     string
	bin     string
	chart   string
	kubectl string
	helm    string
	config  *rest.Config
	client  kubernetes.Interface
	control *http.Client

	process *exec.Cmd
	stderr  strings.Builder
	ended   chan struct{} // closed when the process is gone
	err     error         // how it ended; valid after ended
}

const (
	module    = "module github.com/elector-io/elector"
	readyLine = "ready" // the last line of `cluster up`
	// stopTimeout is how long a cluster may take to stop before it is killed; it takes well under a second.
	stopTimeout = 20 * time.Second
)

// Root is the top of the repository that the working directory is in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if line, _, _ := strings.Cut(string(data), "\n"); err == nil && line == module {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("finding the repository: %w", err)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("finding the repository: no go.mod of it above the working directory")
		}
		dir = parent
	}
}

// Main runs a package's tests while *cluster runs, and returns the exit code. Ctrl-C ends the cluster, too: what the tests wait for
// then fails.
func Main(tests func() int, cfg Config, cluster **Cluster) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	c, err := Start(ctx, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*cluster = c
	interrupted := context.AfterFunc(ctx, func() { _ = c.Stop() })
	defer func() {
		if err := errors.Join(c.Stop(), ctx.Err()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	defer interrupted()
	return tests()
}

// Start builds what is not up to date, and returns when the cluster can be used. When ctx ends before, nothing is left behind; after that ctx means nothing to the
// cluster.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	if err := build(ctx, root, targets); err != nil {
		return nil, err
	}
	program := filepath.Join(root, "bin", "cluster")
	dir, err := os.MkdirTemp("", "elector-")
	if err != nil {
		return nil, fmt.Errorf("making the cluster's directory: %w", err)
	}
	c := &Cluster{dir: dir, bin: filepath.Dir(program), chart: filepath.Join(root, "charts", "elector"), ended: make(chan struct{})}
	c.control = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, "control.sock"))
		},
	}}
	ready, err := c.launch(program, root, cfg)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	select {
	case <-ready:
	case <-c.ended:
		return nil, errors.Join(fmt.Errorf("starting a cluster: %w", c.failure()), c.remove())
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("starting a cluster: %w", context.Cause(ctx)), c.Stop())
	}
	if err := c.connect(ctx, program); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// launch starts the process; ready is closed when it says that the cluster is.
func (c *Cluster) launch(program, root string, cfg Config) (ready <-chan struct{}, err error) {
	args := []string{"up", "--dir", c.dir, "--chart", filepath.Join("charts", "elector"), "--bin", "bin"}
	if cfg.Install {
		args = append(args, "--install")
	}
	for _, v := range cfg.Set {
		args = append(args, "--set", v)
	}
	if cfg.Nodes > 0 {
		args = append(args, "--nodes", strconv.Itoa(cfg.Nodes))
	}
	if cfg.Audit {
		args = append(args, "--audit")
	}
	progress := cfg.Progress
	if progress == nil {
		progress = io.Discard
	}
	// No context: the process is asked to stop, and cleans up. Its own process group keeps Ctrl-C from reaching it before us.
	c.process = exec.Command(program, args...)
	c.process.Dir = root
	c.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.process.Stderr = &c.stderr
	stdout, err := c.process.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	if err := c.process.Start(); err != nil {
		return nil, fmt.Errorf("starting a cluster: %w", err)
	}
	said := make(chan struct{})
	go func() { // ends with the process; Stop waits for it
		defer close(c.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if lines.Text() == readyLine {
				close(said)
				continue
			}
			_, _ = fmt.Fprintln(progress, lines.Text())
		}
		c.err = c.process.Wait()
	}()
	return said, nil
}

// connect makes the clients.
func (c *Cluster) connect(ctx context.Context, program string) error {
	var err error
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	c.config.QPS = -1 // a test's own requests are not to be slowed down
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	for name, path := range map[string]*string{"kubectl": &c.kubectl, "helm": &c.helm} {
		out, err := exec.CommandContext(ctx, program, "bin-path", name).Output()
		if err != nil {
			return fmt.Errorf("looking for %s: %w", name, err)
		}
		*path = strings.TrimSpace(string(out))
	}
	return nil
}

// Program is the path of one of the programs in bin, which are up to date: elector, webhook, cluster or witness.
func (c *Cluster) Program(name string) string { return filepath.Join(c.bin, name) }

// Dir is where the cluster keeps its files while it runs.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

// RESTConfig returns the administrator's configuration, for the caller to change.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// Client is the administrator's client. It is not rate limited.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// Kubectl returns a command that runs the cluster's own kubectl on it, as the administrator.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	return cmd
}

// Chart is the path of elector's Helm chart.
func (c *Cluster) Chart() string { return c.chart }

// Helm returns a command that runs helm on the cluster, as the administrator. The chart needs service.port=8443 here: ports below 1024
// are not to be had.
func (c *Cluster) Helm(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.helm, args...)
	home := filepath.Join(c.dir, "helm")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	return cmd
}

// Action is what can be done to a pod behind the API's back.
type Action string

// The actions.
const (
	// Crash kills every process of the pod as a lost node would: nothing restarts them and nobody reports it.
	Crash Action = "crash"
	// Freeze stops every process of the pod; Thaw lets them go on.
	Freeze Action = "freeze"
	Thaw   Action = "thaw"
	// Partition cuts the pod off the API server. Stall keeps its connections and moves no bytes. Heal undoes both.
	Partition Action = "partition"
	Stall     Action = "stall"
	Heal      Action = "heal"
	// Evict makes the pod Failed, as a node under pressure does.
	Evict Action = "evict"
)

// Control does something to a pod. When it returns, it is done.
func (c *Cluster) Control(ctx context.Context, action Action, namespace, pod string) error {
	if err := c.post(ctx, "pods/"+namespace+"/"+pod+"/"+string(action)); err != nil {
		return fmt.Errorf("%s of pod %s/%s: %w", action, namespace, pod, err)
	}
	return nil
}

// RestartAPIServer kills the API server, with every connection to it, and returns when the next one answers at the same address: after some
// seconds.
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	if err := c.post(ctx, "apiserver/restart"); err != nil {
		return fmt.Errorf("restarting the API server: %w", err)
	}
	return nil
}

// post has the cluster do something.
func (c *Cluster) post(ctx context.Context, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://cluster/"+path, nil)
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	response, err := c.control.Do(request)
	if err != nil {
		return fmt.Errorf("asking the cluster: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		reason, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		return errors.New(strings.TrimSpace(string(reason)))
	}
	return nil
}

// T is what Eventually and Show need of a test.
type T interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

const (
	// Patience is how long Eventually waits. It is only ever used up by a failure.
	Patience = 90 * time.Second
	// lookEvery is the pause between two looks.
	lookEvery = 20 * time.Millisecond
)

// Eventually waits until check returns no error, and ends the test with the last
// one after Patience, or when the cluster is gone.
func (c *Cluster) Eventually(t T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err // not that the time is up
		}
		select {
		case <-tick.C:
		case <-c.Ended():
			t.Fatalf("%s: the cluster is gone, at last: %v", what, last)
		case <-ctx.Done():
			t.Fatalf("%s: %v, at last: %v", what, ctx.Err(), last)
		}
	}
}

// showTimeout bounds Show, which is for a cluster that may answer no more.
const showTimeout = 20 * time.Second

// Show logs what commands of kubectl say of a namespace, for people to look at after a failure, also when the test has ended.
func (c *Cluster) Show(t T, namespace string, commands ...[]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), showTimeout)
	defer cancel()
	for _, command := range commands {
		out, _ := c.Kubectl(ctx, append([]string{"-n", namespace}, command...)...).CombinedOutput()
		t.Logf("kubectl -n %s %s\n%s", namespace, strings.Join(command, " "), out)
	}
}

// Ended is closed when the cluster is gone, asked or not.
func (c *Cluster) Ended() <-chan struct{} { return c.ended }

// Stop ends the cluster and waits until nothing of it is left. Called again, it does nothing.
func (c *Cluster) Stop() error {
	select {
	case <-c.ended:
		return c.remove()
	default:
	}
	if err := c.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping the cluster: %w", err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
		_ = c.process.Process.Kill() // its janitor cleans up
		<-c.ended
		return fmt.Errorf("the cluster did not stop within %s and was killed", stopTimeout)
	}
	if c.err != nil {
		return fmt.Errorf("stopping the cluster: %w", c.failure())
	}
	return c.remove()
}

// failure is how the process ended and what it had to say. It is called after its end.
func (c *Cluster) failure() error {
	if said := strings.TrimSpace(c.stderr.String()); said != "" {
		return errors.New(said)
	}
	return c.err
}

// remove removes the directory if the cluster left nothing in it: after a failure its logs stay, and it has said where.
func (c *Cluster) remove() error {
	err := os.Remove(c.dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return nil
	}
	return fmt.Errorf("removing the cluster's directory: %w", err)
}
