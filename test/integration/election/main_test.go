//go:build integration

// Package election tests the sidecar's binary and the Go library on a real API
// server with its real garbage collector, without the manager: what the
// simulation can't show.
package election

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/embedded"
	"github.com/elector-io/elector/test/judge"
	"github.com/elector-io/elector/test/witness"
)

var cluster *embedded.Cluster

func TestMain(m *testing.M) {
	os.Exit(embedded.Main(m.Run, embedded.Config{Audit: true}, &cluster))
}

// quick are settings that make tests of expiry short.
var quick = []string{"--lease-duration=3s", "--renew-deadline=2s", "--retry-period=500ms"}

const quickLease = 3 * time.Second

// candidate is one process of the sidecar.
type candidate struct {
	t    *testing.T
	name string
	dir  string
	url  string // for the application
	cmd  *exec.Cmd
	log  strings.Builder
	done chan error
}

// start runs the binary for a candidate of the given name; env adds variables.
func start(t *testing.T, name, dir string, env []string, args ...string) *candidate {
	t.Helper()
	app, health := freeAddress(t), freeAddress(t)
	c := &candidate{t: t, name: name, dir: dir, url: "http://" + app, done: make(chan error, 1)}
	args = append([]string{
		"--namespace=default", "--status-dir=" + dir, "--http-address=" + app, "--health-address=" + health,
		"--kubeconfig=" + cluster.Kubeconfig(),
	}, args...)
	if len(env) == 0 {
		args = append(args, "--identity="+elector.Identity(name, "uid-of-"+name))
	}
	c.cmd = exec.Command(cluster.Program("elector"), args...)
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.done <- c.cmd.Wait() }()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.done //nolint:errcheck // the test looks at how it ended where it matters
		if t.Failed() {
			t.Logf("%s:\n%s", name, c.log.String())
		}
	})
	return c
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// stop sends SIGTERM and returns how the process ended.
func (c *candidate) stop() error {
	c.signal(syscall.SIGTERM)
	err := <-c.done
	c.done <- err // for the clean-up
	return err
}

func (c *candidate) signal(s os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *candidate) leaderFile() bool { return witness.Look(c.dir).File }

func (c *candidate) status() (s elector.Status) {
	data, err := os.ReadFile(filepath.Join(c.dir, elector.StatusFile))
	if err != nil {
		return s
	}
	if err := json.Unmarshal(data, &s); err != nil {
		c.t.Fatalf("status.json %q: %v", data, err)
	}
	return s
}

// claims tells whether a careful application would act.
func (c *candidate) claims() bool { return witness.Look(c.dir).Leads }

func (c *candidate) answers(path string) int {
	client := http.Client{Timeout: time.Second}
	res, err := client.Get(c.url + path)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// eventually waits for a condition, for much longer than it should take.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// neverTwo watches candidates, as a careful application does, until the test
// ends, and asks the judge then.
func neverTwo(t *testing.T, candidates ...*candidate) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	var lock judge.Lock
	go func() {
		defer close(stopped)
		leading := make([]uint64, len(candidates)) // their tokens
		for {
			for i, c := range candidates {
				s := witness.Look(c.dir)
				if !s.Leads {
					leading[i] = 0
					continue
				}
				if leading[i] != s.Status.Token {
					leading[i] = s.Status.Token
					lock.Began(s.Status.Identity, s.Status.Token, s.Ended)
				}
				lock.Until(s.Status.Identity, s.Began) // as far as is known: never longer than the truth
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		for _, violation := range lock.Violations() {
			t.Error(violation)
		}
	})
}

// makePod makes a Pod that runs nothing, to own a lock.
func makePod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := cluster.Client().CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "pause"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func deletePod(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	zero := int64(0)
	err := cluster.Client().CoreV1().Pods("default").Delete(t.Context(), pod.Name,
		metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err != nil {
		t.Fatal(err)
	}
}

// downward is what the downward API tells a sidecar.
func downward(pod *corev1.Pod) []string {
	return []string{"POD_NAME=" + pod.Name, "POD_UID=" + string(pod.UID)}
}

func post(url string) int {
	res, err := http.Post(url, "", nil) //nolint:gosec // the test's own process answers there
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}
