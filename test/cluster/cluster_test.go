package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-io/elector/test/cluster/internal/control"
	"github.com/elector-io/elector/test/cluster/internal/sandbox"
)

// roleVariable makes this test binary play the app in a pod.
const roleVariable = "CLUSTER_TEST_ROLE"

// TestMain lets the test binary also be the cluster program, by the name it is called by, and the app that runs in pods.
func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == "cluster":
		main()
		os.Exit(0)
	case os.Getenv(roleVariable) == "server":
		if err := serveApp(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveApp answers / with the pod's name, and /api with what a request to the API server, made as any app in a pod makes it, brings.
func serveApp(listen string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.Timeout = time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, os.Getenv("POD_NAME")) })
	http.HandleFunc("/api", func(w http.ResponseWriter, r *http.Request) {
		_, err := client.CoreV1().Pods("default").List(r.Context(), metav1.ListOptions{})
		// The pod's service account may not list pods: the answer that proves that token, authority and address are right.
		if !apierrors.IsForbidden(err) {
			http.Error(w, fmt.Sprint(err), http.StatusBadGateway)
		}
	})
	return (&http.Server{Addr: listen, ReadHeaderTimeout: time.Second}).ListenAndServe()
}

// fixture is a running cluster.
type fixture struct {
	dir     string
	kubectl string
	client  kubernetes.Interface
	output  *bytes.Buffer
}

// clusterCommand is the cluster program. It ends with the test process.
func clusterCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: self, Args: append([]string{"cluster"}, args...), Env: os.Environ()}
}

// needNamespaces skips where the system forbids what containers are made of.
func needNamespaces(t *testing.T) {
	t.Helper()
	if err := sandbox.Check(t.TempDir()); err != nil {
		t.Skip(err)
	}
}

// eventually waits for a condition, and fails with what it last had to say.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func startCluster(t *testing.T, args ...string) *fixture {
	t.Helper()
	needNamespaces(t)
	f := &fixture{dir: filepath.Join(t.TempDir(), "cluster"), output: &bytes.Buffer{}}
	path, err := clusterCommand(t, "bin-path", "kubectl").Output()
	if err != nil {
		t.Fatalf("no kubectl: %v", err)
	}
	f.kubectl = strings.TrimSpace(string(path))
	cmd := clusterCommand(t, append([]string{"up", "--dir", f.dir}, args...)...)
	cmd.Stdout, cmd.Stderr = f.output, f.output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-ended; err != nil || t.Failed() {
			t.Logf("cluster: %v\n%s", err, f.output)
		}
		f.nothingLeft(t)
	})
	eventually(t, "cluster not ready", func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("cluster ended: %v\n%s", err, f.output)
		default:
		}
		_, err := os.Stat(f.kubeconfig())
		return err
	})
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	if f.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) kubeconfig() string { return filepath.Join(f.dir, "kubeconfig") }

// nothingLeft fails if a process of the cluster or its directory is still there.
func (f *fixture) nothingLeft(t *testing.T) {
	t.Helper()
	eventually(t, "something is left", func() error {
		if _, err := os.Stat(f.dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the directory %s", f.dir)
		}
		if pid, err := findProcess(func(line string) bool { return strings.Contains(line, f.dir) }); err == nil {
			return fmt.Errorf("the process %d", pid)
		}
		return nil
	})
}

// run calls kubectl and returns what it prints on stdout.
func (f *fixture) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(f.kubectl, append([]string{"--kubeconfig", f.kubeconfig()}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(f.dir))
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

func (f *fixture) ctl(t *testing.T, action, pod string) {
	t.Helper()
	if out, err := clusterCommand(t, "ctl", "--dir", f.dir, action, "default/"+pod).CombinedOutput(); err != nil {
		t.Fatalf("ctl %s: %v\n%s", action, err, out)
	}
}

func (f *fixture) create(t *testing.T, pod *v1.Pod) {
	t.Helper()
	if _, err := f.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) pod(t *testing.T, name string) *v1.Pod {
	t.Helper()
	pod, err := f.client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func (f *fixture) waitReady(t *testing.T, name string) *v1.Pod {
	t.Helper()
	var pod *v1.Pod
	eventually(t, name+" not ready", func() error {
		pod = f.pod(t, name)
		for _, c := range pod.Status.Conditions {
			if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
				return nil
			}
		}
		status, _ := json.Marshal(pod.Status)
		return errors.New(string(status))
	})
	return pod
}

func (f *fixture) waitGone(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" not gone", func() error {
		_, err := f.client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		if err == nil {
			return errors.New("still there")
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (f *fixture) remove(t *testing.T, name string, options metav1.DeleteOptions) {
	t.Helper()
	if err := f.client.CoreV1().Pods("default").Delete(t.Context(), name, options); err != nil {
		t.Fatal(err)
	}
	f.waitGone(t, name)
}

func shell(name, script string, mounts ...v1.VolumeMount) v1.Container {
	return v1.Container{Name: name, Image: "busybox", Command: []string{"sh", "-c", script}, VolumeMounts: mounts}
}

// loop is a script that says when it starts and when SIGTERM ends it.
func loop(name string) string {
	return fmt.Sprintf(`echo %[1]s up >> /out/order; trap 'echo %[1]s down >> /out/order; exit 0' TERM; while :; do sleep 0.02; done`, name)
}

func asSidecar(c v1.Container) v1.Container {
	always := v1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	return c
}

func podOf(name string, spec v1.PodSpec) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: spec}
}

// TestCluster starts one cluster and lets pods live in it. The subtests share it and run at once, as many tests will.
func TestCluster(t *testing.T) {
	f := startCluster(t, "--nodes", "2")
	t.Run("together", func(t *testing.T) {
		tests := map[string]func(*testing.T, *fixture){
			"Order":              testOrder,
			"ReadOnlyMount":      testReadOnlyMount,
			"SidecarRestart":     testSidecarRestart,
			"CrashLoop":          testCrashLoop,
			"InitFailure":        testInitFailure,
			"Probes":             testProbes,
			"JobWithSidecar":     testJobWithSidecar,
			"Environment":        testEnvironment,
			"VolumesFollow":      testVolumesFollow,
			"LogsAndExec":        testLogsAndExec,
			"ServiceAndControls": testServiceAndControls,
			"ForceDelete":        testForceDelete,
			"Eviction":           testEviction,
			"Unsupported":        testUnsupported,
			"DaemonSet":          testDaemonSet,
			"StatefulSet":        testStatefulSet,
			"ManyPods":           testManyPods,
		}
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, f)
			})
		}
	})
}

// testOrder: init containers run one after the other, sidecars start in order and gate what follows by their startup probe, and stop last, in
// reverse order.
func testOrder(t *testing.T, f *fixture) {
	out := t.TempDir()
	mount := []v1.VolumeMount{{Name: "out", MountPath: "/out"}, {Name: "state", MountPath: "/var/run/state"}}
	slow := asSidecar(shell("slow", `echo slow up >> /out/order; sleep 0.3; touch /var/run/state/ready; trap 'echo slow down >> /out/order; exit 0' TERM; while :; do sleep 0.02; done`, mount...))
	slow.StartupProbe = &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"test", "-f", "/var/run/state/ready"}}}, PeriodSeconds: 1}
	quick := asSidecar(shell("quick", loop("quick"), mount...))
	quick.StartupProbe = &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"grep", "-q", "quick up", "/out/order"}}}, PeriodSeconds: 1, FailureThreshold: 5}
	f.create(t, podOf("order", v1.PodSpec{
		InitContainers: []v1.Container{
			shell("one", "echo one >> /out/order", mount...),
			slow,
			shell("two", "echo two >> /out/order; sleep 0.1", mount...),
			quick,
		},
		Containers: []v1.Container{shell("app", "test -f /var/run/state/ready && "+loop("app"), mount...)},
		Volumes: []v1.Volume{
			{Name: "out", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: out}}},
			{Name: "state", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
		},
	}))
	f.waitReady(t, "order")
	order := func() []string {
		content, _ := os.ReadFile(filepath.Join(out, "order"))
		return strings.Split(strings.TrimSpace(string(content)), "\n")
	}
	eventually(t, "app not up", func() error {
		if lines := order(); lines[len(lines)-1] != "app up" {
			return fmt.Errorf("got %q", lines)
		}
		return nil
	})
	f.remove(t, "order", metav1.DeleteOptions{})
	want := []string{"one", "slow up", "two", "quick up", "app up", "app down", "quick down", "slow down"}
	if diff := cmp.Diff(want, order()); diff != "" {
		t.Errorf("order of events (-want +got):\n%s", diff)
	}
}

// testReadOnlyMount: one container's writable volume is read-only in another, and a read-only root leaves only volumes writable.
func testReadOnlyMount(t *testing.T, f *fixture) {
	yes := true
	script := `cat /var/run/elector/leader; touch /var/run/elector/x && echo written || echo refused; touch /x && echo written || echo refused`
	reader := shell("reader", script, v1.VolumeMount{Name: "status", MountPath: "/var/run/elector", ReadOnly: true})
	reader.SecurityContext = &v1.SecurityContext{ReadOnlyRootFilesystem: &yes}
	f.create(t, podOf("readonly", v1.PodSpec{
		RestartPolicy:  v1.RestartPolicyNever,
		InitContainers: []v1.Container{shell("writer", "echo me > /var/run/elector/leader", v1.VolumeMount{Name: "status", MountPath: "/var/run/elector"})},
		Containers:     []v1.Container{reader},
		Volumes:        []v1.Volume{{Name: "status", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}},
	}))
	eventually(t, "pod did not succeed", func() error {
		if phase := f.pod(t, "readonly").Status.Phase; phase != v1.PodSucceeded {
			return fmt.Errorf("phase %s", phase)
		}
		return nil
	})
	logs, err := f.run(t, "logs", "readonly", "-c", "reader")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(logs, "written") || strings.Count(logs, "refused") != 2 || !strings.HasPrefix(logs, "me\n") {
		t.Errorf("got log %q, want the leader's name and two refused writes", logs)
	}
}

// testSidecarRestart: a sidecar that dies comes back at once, in the same pod, with its volumes.
func testSidecarRestart(t *testing.T, f *fixture) {
	mount := v1.VolumeMount{Name: "status", MountPath: "/var/run/elector"}
	f.create(t, podOf("restart", v1.PodSpec{
		InitContainers: []v1.Container{asSidecar(shell("side", `cat /var/run/elector/run; echo survived > /var/run/elector/run; trap 'exit 0' TERM; while :; do sleep 0.02; done`, mount))},
		Containers:     []v1.Container{shell("app", `trap 'exit 0' TERM; while :; do sleep 0.02; done`, mount)},
		Volumes:        []v1.Volume{{Name: "status", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}},
	}))
	before := f.waitReady(t, "restart")
	pid, err := strconv.Atoi(strings.TrimPrefix(before.Status.InitContainerStatuses[0].ContainerID, "process://"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "sidecar not restarted", func() error {
		s := f.pod(t, "restart").Status.InitContainerStatuses[0]
		if s.RestartCount != 1 || s.State.Running == nil || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 137 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	after := f.pod(t, "restart")
	if got, want := after.Status.ContainerStatuses[0].ContainerID, before.Status.ContainerStatuses[0].ContainerID; got != want {
		t.Errorf("the app was restarted with the sidecar: %s, before %s", got, want)
	}
	eventually(t, "volume lost", func() error {
		logs, err := f.run(t, "logs", "restart", "-c", "side")
		if err == nil && logs != "survived\n" {
			return fmt.Errorf("log %q", logs)
		}
		return err
	})
	f.remove(t, "restart", metav1.DeleteOptions{})
}

// testCrashLoop: a container that fails is started again, later each time, and its previous output can be read.
func testCrashLoop(t *testing.T, f *fixture) {
	f.create(t, podOf("crashloop", v1.PodSpec{Containers: []v1.Container{shell("app", "echo a run; exit 7")}}))
	eventually(t, "no back-off", func() error {
		s := f.pod(t, "crashloop").Status.ContainerStatuses
		if len(s) == 0 || s[0].RestartCount < 2 || s[0].State.Waiting == nil || s[0].State.Waiting.Reason != "CrashLoopBackOff" || s[0].LastTerminationState.Terminated.ExitCode != 7 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	if logs, err := f.run(t, "logs", "crashloop", "--previous"); logs != "a run\n" {
		t.Errorf("previous log %q, error %v", logs, err)
	}
	f.remove(t, "crashloop", metav1.DeleteOptions{})
}

func testInitFailure(t *testing.T, f *fixture) {
	f.create(t, podOf("initfailure", v1.PodSpec{
		RestartPolicy:  v1.RestartPolicyNever,
		InitContainers: []v1.Container{asSidecar(shell("side", loopForever)), shell("init", "exit 3")},
		Containers:     []v1.Container{shell("app", "echo never")},
	}))
	eventually(t, "pod did not fail", func() error {
		s := f.pod(t, "initfailure").Status
		if s.Phase != v1.PodFailed || s.InitContainerStatuses[0].State.Terminated == nil || s.ContainerStatuses[0].State.Waiting == nil {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

const loopForever = `trap 'exit 0' TERM; while :; do sleep 0.02; done`

// testProbes: readiness follows its probe both ways, and a failed liveness probe restarts the container.
func testProbes(t *testing.T, f *fixture) {
	exec := func(command ...string) *v1.Probe {
		return &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: command}}, PeriodSeconds: 1, FailureThreshold: 1}
	}
	c := shell("app", "touch /state/ready /state/live; "+loopForever, v1.VolumeMount{Name: "state", MountPath: "/state"})
	c.StartupProbe = exec("test", "-f", "/state/live")
	c.StartupProbe.FailureThreshold = 30
	c.ReadinessProbe, c.LivenessProbe = exec("test", "-f", "/state/ready"), exec("test", "-f", "/state/live")
	f.create(t, podOf("probes", v1.PodSpec{Containers: []v1.Container{c},
		Volumes: []v1.Volume{{Name: "state", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}}))
	f.waitReady(t, "probes")
	if _, err := f.run(t, "exec", "probes", "--", "rm", "/state/ready"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "still ready", func() error {
		if s := f.pod(t, "probes").Status.ContainerStatuses[0]; s.Ready || s.RestartCount > 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	if _, err := f.run(t, "exec", "probes", "--", "rm", "/state/live"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not restarted", func() error {
		if s := f.pod(t, "probes").Status.ContainerStatuses[0]; !s.Ready || s.RestartCount != 1 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	f.remove(t, "probes", metav1.DeleteOptions{})
}

// testJobWithSidecar: a Job is complete when its app containers are done; the sidecar is stopped.
func testJobWithSidecar(t *testing.T, f *fixture) {
	job := &batch.Job{ObjectMeta: metav1.ObjectMeta{Name: "work"}, Spec: batch.JobSpec{Template: v1.PodTemplateSpec{Spec: v1.PodSpec{
		RestartPolicy:  v1.RestartPolicyNever,
		InitContainers: []v1.Container{asSidecar(shell("side", loopForever))},
		Containers:     []v1.Container{shell("app", "echo done")},
	}}}}
	if _, err := f.client.BatchV1().Jobs("default").Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "job not complete", func() error {
		job, err := f.client.BatchV1().Jobs("default").Get(t.Context(), "work", metav1.GetOptions{})
		if err == nil && (job.Status.Succeeded != 1 || job.Status.CompletionTime == nil) {
			return fmt.Errorf("status %+v", job.Status)
		}
		return err
	})
}

// testEnvironment: every source of a variable, $(NAME) in arguments, and volumes with ConfigMaps, Secrets and the downward API.
func testEnvironment(t *testing.T, f *fixture) {
	_, err1 := f.client.CoreV1().ConfigMaps("default").Create(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config"}, Data: map[string]string{"key": "from config"}}, metav1.CreateOptions{})
	_, err2 := f.client.CoreV1().Secrets("default").Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "hidden"}, StringData: map[string]string{"key": "from secret"}}, metav1.CreateOptions{})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	field := func(path string) *v1.EnvVarSource {
		return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
	}
	config, hidden := v1.LocalObjectReference{Name: "config"}, v1.LocalObjectReference{Name: "hidden"}
	c := shell("app", `echo "$NAME $NODE $CONFIG $SECRET $ALL_key $GREETING $1"; cat /volume/config /volume/secret /volume/labels; hostname`, v1.VolumeMount{Name: "all", MountPath: "/volume"})
	c.Args = []string{"zero", "$(GREETING) and $$(GREETING)"}
	c.EnvFrom = []v1.EnvFromSource{{Prefix: "ALL_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: config}}}
	c.Env = []v1.EnvVar{
		{Name: "NAME", ValueFrom: field("metadata.name")},
		{Name: "NODE", ValueFrom: field("spec.nodeName")},
		{Name: "CONFIG", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: config, Key: "key"}}},
		{Name: "SECRET", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: hidden, Key: "key"}}},
		{Name: "GREETING", Value: "hello $(NAME)"},
	}
	f.create(t, podOf("environment", v1.PodSpec{NodeName: "node-2", RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{c},
		Volumes: []v1.Volume{{Name: "all", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
			{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: config, Items: []v1.KeyToPath{{Key: "key", Path: "config"}}}},
			{Secret: &v1.SecretProjection{LocalObjectReference: hidden, Items: []v1.KeyToPath{{Key: "key", Path: "secret"}}}},
			{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
		}}}}}}))
	eventually(t, "pod did not succeed", func() error {
		if s := f.pod(t, "environment").Status; s.Phase != v1.PodSucceeded {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	got, err := f.run(t, "logs", "environment")
	if err != nil {
		t.Fatal(err)
	}
	want := "environment node-2 from config from secret from config hello environment hello environment and $(GREETING)\n" +
		`from configfrom secretapp="environment"environment` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// testVolumesFollow: a changed Secret, ConfigMap or label comes to the volumes of a running pod, a deleted one leaves them as they are.
func testVolumesFollow(t *testing.T, f *fixture) {
	secrets, configs := f.client.CoreV1().Secrets("default"), f.client.CoreV1().ConfigMaps("default")
	name := metav1.ObjectMeta{Name: "followed"}
	_, err1 := secrets.Create(t.Context(), &v1.Secret{ObjectMeta: name, StringData: map[string]string{"kept": "1", "dropped": "1"}}, metav1.CreateOptions{})
	_, err2 := configs.Create(t.Context(), &v1.ConfigMap{ObjectMeta: name, Data: map[string]string{"key": "1"}}, metav1.CreateOptions{})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	source := v1.LocalObjectReference{Name: "followed"}
	f.create(t, podOf("follow", v1.PodSpec{
		Containers: []v1.Container{shell("app", loopForever, v1.VolumeMount{Name: "secret", MountPath: "/secret"}, v1.VolumeMount{Name: "all", MountPath: "/all", ReadOnly: true})},
		Volumes: []v1.Volume{
			{Name: "secret", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "followed"}}},
			{Name: "all", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
				{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: source, Items: []v1.KeyToPath{{Key: "key", Path: "deep/key"}}}},
				{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "colour", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['colour']"}}}}},
				{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
			}}}},
		},
	}))
	f.waitReady(t, "follow")
	look := func(want string) {
		t.Helper()
		eventually(t, "files", func() error {
			got, err := f.run(t, "exec", "follow", "--", "sh", "-c", "cd /secret; for i in *; do echo $i $(cat $i); done; cd /all; echo $(cat deep/key colour); [ -s token ]")
			if diff := cmp.Diff(want, got); diff != "" {
				return errors.Join(err, fmt.Errorf("(-want +got):\n%s", diff))
			}
			return err
		})
	}
	look("dropped 1\nkept 1\n1\n")
	patch := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := secrets.Patch(t.Context(), "followed", types.MergePatchType, []byte(`{"data":{"dropped":null},"stringData":{"kept":"2","new":"2"}}`), metav1.PatchOptions{})
	patch(err)
	_, err = configs.Patch(t.Context(), "followed", types.MergePatchType, []byte(`{"data":{"key":"2"}}`), metav1.PatchOptions{})
	patch(err)
	_, err = f.client.CoreV1().Pods("default").Patch(t.Context(), "follow", types.MergePatchType, []byte(`{"metadata":{"labels":{"colour":"red"}}}`), metav1.PatchOptions{})
	patch(err)
	look("kept 2\nnew 2\n2red\n")
	patch(secrets.Delete(t.Context(), "followed", metav1.DeleteOptions{}))
	_, err = configs.Patch(t.Context(), "followed", types.MergePatchType, []byte(`{"data":{"key":"3"}}`), metav1.PatchOptions{})
	patch(err)
	look("kept 2\nnew 2\n3red\n")
}

// testLogsAndExec: kubectl works as on any cluster.
func testLogsAndExec(t *testing.T, f *fixture) {
	f.create(t, podOf("talk", v1.PodSpec{Containers: []v1.Container{shell("app", `for i in 1 2 3; do echo line $i; done; trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done`)}}))
	f.waitReady(t, "talk")
	tests := map[string]struct {
		args []string
		want string
	}{
		"Tail":      {args: []string{"logs", "talk", "--tail=2"}, want: "line 2\nline 3\n"},
		"TailZero":  {args: []string{"logs", "talk", "--tail=0"}, want: ""},
		"TailMany":  {args: []string{"logs", "talk", "--tail=9"}, want: "line 1\nline 2\nline 3\n"},
		"Container": {args: []string{"logs", "talk", "-c", "app", "--limit-bytes=4"}, want: "line"},
		"Exec":      {args: []string{"exec", "talk", "--", "sh", "-c", "echo $HOSTNAME; cat /proc/1/comm"}, want: "talk\nsh\n"},
	}
	for name, tc := range tests {
		eventually(t, name, func() error {
			got, err := f.run(t, tc.args...)
			if err == nil && got != tc.want {
				return fmt.Errorf("got %q, want %q", got, tc.want)
			}
			return err
		})
	}
	if _, err := f.run(t, "exec", "talk", "--", "sh", "-c", "exit 42"); err == nil || !strings.Contains(err.Error(), "exit code 42") {
		t.Errorf("got error %v, want exit code 42", err)
	}
	stdin := exec.Command(f.kubectl, "--kubeconfig", f.kubeconfig(), "exec", "-i", "talk", "--", "tr", "a-z", "A-Z")
	stdin.Stdin = strings.NewReader("shout\n")
	if out, err := stdin.Output(); string(out) != "SHOUT\n" {
		t.Errorf("got %q, error %v, want stdin in capitals", out, err)
	}
	// What is written while the log is followed, the last words included, must arrive before the follower is sent away.
	follow := exec.Command(f.kubectl, "--kubeconfig", f.kubeconfig(), "logs", "talk", "-f")
	stdout, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for _, want := range []string{"line 1", "line 2", "line 3"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("followed log: got %q, want %q", lines.Text(), want)
		}
	}
	f.remove(t, "talk", metav1.DeleteOptions{})
	if !lines.Scan() || lines.Text() != "bye" || lines.Scan() {
		t.Errorf("followed log ends with %q, want bye", lines.Text())
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("follow: %v", err)
	}
}

// testServiceAndControls: a Service leads to ready pods, pods reach the API server each by a way of its own, and that way can be cut.
func testServiceAndControls(t *testing.T, f *fixture) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	replicas := int32(2)
	labels := map[string]string{"app": "server"}
	server := v1.Container{Name: "server", Image: "server", Command: []string{self, ":8080"},
		Ports:          []v1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		ReadinessProbe: &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")}}, PeriodSeconds: 1},
		Env: []v1.EnvVar{{Name: roleVariable, Value: "server"},
			{Name: "POD_NAME", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.name"}}}},
	}
	deployment := &apps.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "server"}, Spec: apps.DeploymentSpec{Replicas: &replicas,
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{server}}}}}
	if _, err := f.client.AppsV1().Deployments("default").Create(t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service, err := f.client.CoreV1().Services("default").Create(t.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "server"},
		Spec: v1.ServiceSpec{Selector: labels, Ports: []v1.ServicePort{{Port: 8000, TargetPort: intstr.FromString("http")}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + net.JoinHostPort(service.Spec.ClusterIP, "8000")
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(url string) (string, error) {
		resp, err := client.Get(url)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			return "", fmt.Errorf("%s: %s", resp.Status, body)
		}
		return string(body), err
	}
	names := map[string]bool{}
	eventually(t, "service does not lead to both pods", func() error {
		name, err := get(url)
		if err != nil {
			return err
		}
		if names[name] = true; len(names) < 2 {
			return fmt.Errorf("reached %v", names)
		}
		return nil
	})
	pods, err := f.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=server"})
	if err != nil {
		t.Fatal(err)
	}
	one, two := pods.Items[0], pods.Items[1]
	api := func(p v1.Pod) error {
		_, err := get("http://" + strings.Replace(p.Status.PodIP, "10.", "127.", 1) + ":8080/api")
		return err
	}
	want := func(what string, p v1.Pod, reachable bool) {
		t.Helper()
		eventually(t, what, func() error {
			err := api(p)
			if err == nil && !reachable {
				return errors.New("it answers")
			}
			if err != nil && reachable {
				return err
			}
			return nil
		})
	}
	want("API not reached", one, true)
	for _, cut := range []string{"partition", "stall"} {
		f.ctl(t, cut, one.Name)
		want("API reached after "+cut, one, false)
		want("the other pod is hit by "+cut, two, true)
		f.ctl(t, "heal", one.Name)
		want("API not reached after heal", one, true)
	}
	f.ctl(t, "freeze", one.Name)
	if _, err := get("http://" + strings.Replace(one.Status.PodIP, "10.", "127.", 1) + ":8080/"); err == nil {
		t.Error("a frozen pod answers")
	}
	f.ctl(t, "thaw", one.Name)
	want("API not reached after thaw", one, true)
	f.ctl(t, "crash", one.Name)
	eventually(t, "a crashed pod answers", func() error {
		if api(one) == nil {
			return errors.New("it does")
		}
		return nil
	})
	if s := f.pod(t, one.Name).Status; s.Phase != v1.PodRunning || s.ContainerStatuses[0].State.Running == nil || !s.ContainerStatuses[0].Ready {
		t.Errorf("the crash was reported: %+v", s)
	}
	f.remove(t, one.Name, metav1.DeleteOptions{})
	if err := f.client.AppsV1().Deployments("default").Delete(t.Context(), "server", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.waitGone(t, two.Name)
	eventually(t, "a service without endpoints accepts", func() error {
		_, err := get(url)
		if err == nil {
			return errors.New("it answers")
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		return err
	})
}

// testForceDelete: the processes of a Pod object that is just gone are killed, at once and without a word.
func testForceDelete(t *testing.T, f *fixture) {
	f.create(t, podOf("force", v1.PodSpec{Containers: []v1.Container{shell("app", "trap '' TERM; while :; do sleep 0.02; done")}}))
	pod := f.waitReady(t, "force")
	now := int64(0)
	f.remove(t, "force", metav1.DeleteOptions{GracePeriodSeconds: &now})
	pid := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "process://")
	eventually(t, "the process is left", func() error {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			return errors.New(pid)
		}
		return nil
	})
}

func testEviction(t *testing.T, f *fixture) {
	f.create(t, podOf("evicted", v1.PodSpec{Containers: []v1.Container{shell("app", loopForever)}}))
	f.waitReady(t, "evicted")
	f.ctl(t, "evict", "evicted")
	eventually(t, "not failed", func() error {
		if s := f.pod(t, "evicted").Status; s.Phase != v1.PodFailed || s.Reason != "Evicted" || s.ContainerStatuses[0].State.Terminated == nil {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	f.remove(t, "evicted", metav1.DeleteOptions{})
}

// testUnsupported: what cannot be played is said on the pod, and the pod can still be deleted.
func testUnsupported(t *testing.T, f *fixture) {
	f.create(t, podOf("unsupported", v1.PodSpec{Containers: []v1.Container{shell("app", "exit 0")},
		Volumes: []v1.Volume{{Name: "disk", VolumeSource: v1.VolumeSource{NFS: &v1.NFSVolumeSource{Server: "none", Path: "/"}}}}}))
	eventually(t, "no reason given", func() error {
		s := f.pod(t, "unsupported").Status.ContainerStatuses
		if len(s) == 0 || s[0].State.Waiting == nil || !strings.Contains(s[0].State.Waiting.Message, "not played") {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	f.remove(t, "unsupported", metav1.DeleteOptions{})
}

func testDaemonSet(t *testing.T, f *fixture) {
	labels := map[string]string{"app": "daemon"}
	set := &apps.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "daemon"}, Spec: apps.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "app", Image: "pause"}}}}}}
	if _, err := f.client.AppsV1().DaemonSets("default").Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not one per node", func() error {
		pods, err := f.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=daemon"})
		if err != nil {
			return err
		}
		var nodes []string
		for _, p := range pods.Items {
			if p.Status.Phase == v1.PodRunning {
				nodes = append(nodes, p.Spec.NodeName)
			}
		}
		slices.Sort(nodes)
		if !slices.Equal(nodes, []string{"node-1", "node-2"}) {
			return fmt.Errorf("running on %q", nodes)
		}
		return nil
	})
}

// testStatefulSet: a pod of the same name comes back with another UID, after the old one is gone.
func testStatefulSet(t *testing.T, f *fixture) {
	labels := map[string]string{"app": "state"}
	set := &apps.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "state"}, Spec: apps.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{shell("app", loopForever)}}}}}
	if _, err := f.client.AppsV1().StatefulSets("default").Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	running := func(not string) (uid string) {
		eventually(t, "state-0 does not run", func() error {
			pod, err := f.client.CoreV1().Pods("default").Get(t.Context(), "state-0", metav1.GetOptions{})
			if err != nil {
				return err
			}
			uid = string(pod.UID)
			if pod.Status.Phase != v1.PodRunning || uid == not {
				return fmt.Errorf("status %+v", pod.Status)
			}
			return nil
		})
		return uid
	}
	first := running("")
	if err := f.client.CoreV1().Pods("default").Delete(t.Context(), "state-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	running(first)
}

// testManyPods: dozens of pods come and go together.
func testManyPods(t *testing.T, f *fixture) {
	labels := map[string]string{"app": "many"}
	replicas := int32(30)
	deployment := &apps.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "many"}, Spec: apps.DeploymentSpec{Replicas: &replicas,
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "app", Image: "pause"}}}}}}
	if _, err := f.client.AppsV1().Deployments("default").Create(t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ready := func(want int32) {
		t.Helper()
		eventually(t, "not all ready", func() error {
			d, err := f.client.AppsV1().Deployments("default").Get(t.Context(), "many", metav1.GetOptions{})
			if err == nil && (d.Status.ReadyReplicas != want || d.Status.Replicas != want) {
				return fmt.Errorf("status %+v", d.Status)
			}
			return err
		})
	}
	ready(replicas)
	if err := f.client.CoreV1().Pods("default").DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=many"}); err != nil {
		t.Fatal(err)
	}
	ready(replicas)
	foreground := metav1.DeletePropagationForeground
	if err := f.client.AppsV1().Deployments("default").Delete(t.Context(), "many", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not all gone", func() error {
		pods, err := f.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=many"})
		if err == nil && len(pods.Items) > 0 {
			return fmt.Errorf("%d pods", len(pods.Items))
		}
		return err
	})
}

// TestClusterDiesWithParent: nothing is left when the process that started a cluster is killed, nor when the cluster itself is.
func TestClusterDiesWithParent(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		reason string
		victim func(shell int, dir string) (int, error)
	}{
		"Parent":  {reason: "a test that is killed cannot clean up", victim: func(shell int, _ string) (int, error) { return shell, nil }},
		"Cluster": {reason: "kill -9 must not leave the control plane", victim: clusterPid},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fixture{dir: filepath.Join(t.TempDir(), "cluster")}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			// bash can give a command another name, which is how this test binary becomes the cluster program.
			script := exec.CommandContext(ctx, "bash", "-c", `exec -a cluster "$0" up --dir "$1" & wait`, self, f.dir)
			if err := script.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cancel()
				_ = script.Wait() // it was killed
			}()
			eventually(t, "cluster not ready", func() error {
				_, err := os.Stat(f.kubeconfig())
				return err
			})
			pid, err := tc.victim(script.Process.Pid, f.dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			f.nothingLeft(t)
		})
	}
}

// TestControlPlaneDies: the API server is replaced on request, and a cluster that lost a part of itself by itself ends, says why, and leaves its
// logs.
func TestControlPlaneDies(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	f := &fixture{dir: filepath.Join(t.TempDir(), "cluster")}
	var output bytes.Buffer
	cmd := clusterCommand(t, "up", "--dir", f.dir)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "cluster not ready", func() error {
		_, err := os.Stat(f.kubeconfig())
		return err
	})
	apiserver := func() int {
		pid, err := findProcess(func(line string) bool {
			return strings.Contains(line, "/kube-apiserver\x00") && strings.Contains(line, f.dir)
		})
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	first := apiserver()
	if err := control.Post(t.Context(), socketPath(f.dir), "apiserver/restart"); err != nil {
		t.Fatal(err)
	}
	if apiserver() == first {
		t.Error("the API server was not replaced")
	}
	pid, err := findProcess(func(line string) bool {
		return strings.Contains(line, "/etcd\x00--name=etcd") && strings.Contains(line, f.dir)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(output.String(), "etcd ended by itself") {
		t.Errorf("ended with %v\n%s", err, &output)
	}
	left, err := os.ReadDir(f.dir)
	if err != nil || len(left) != 1 || left[0].Name() != logsDir {
		t.Errorf("left: %v, error %v, want the logs alone", left, err)
	}
}

// clusterPid finds the process that runs the cluster in dir.
func clusterPid(_ int, dir string) (int, error) {
	return findProcess(func(line string) bool { return line == "cluster\x00up\x00--dir\x00"+dir+"\x00" })
}

// findProcess finds a process by its command line, whose words end with NUL.
func findProcess(is func(line string) bool) (int, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range lines {
		if line, err := os.ReadFile(path); err == nil && is(string(line)) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, errors.New("no such process")
}

// TestDetached: up --detach returns when the cluster is ready, a second one in the same directory is refused, and down removes everything.
func TestDetached(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	f := &fixture{dir: filepath.Join(t.TempDir(), "cluster")}
	if out, err := clusterCommand(t, "up", "--dir", f.dir, "--detach").CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "\nready\n") {
		t.Fatalf("up: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = clusterCommand(t, "down", "--dir", f.dir).Run() }) // only of use if the test has failed
	if out, err := clusterCommand(t, "up", "--dir", f.dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "a cluster runs in") {
		t.Errorf("second up: error %v, output %s", err, out)
	}
	if _, err := os.Stat(f.kubeconfig()); err != nil {
		t.Errorf("the running cluster suffered: %v", err)
	}
	for range 2 { // the second time there is nothing to do, which is no error
		if out, err := clusterCommand(t, "down", "--dir", f.dir).CombinedOutput(); err != nil {
			t.Fatalf("down: %v\n%s", err, out)
		}
	}
	f.nothingLeft(t)
}
