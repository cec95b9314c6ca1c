//go:build e2e

// Package e2e has the end-to-end tests: elector in a kind cluster, with real kubelets, containers, networks and nodes to break.
//
// `make e2e` makes the cluster and runs them. What is measured is what candidates and applications log on CLOCK_BOOTTIME, which
// all nodes share because they are containers of one machine; see package history, whose check ends the suite.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

var update = flag.Bool("update", false, "write the figures into docs/e2e.md")

const (
	release   = "elector"
	system    = "elector-system"
	manager   = "elector-webhook" // the chart's name for all that it makes
	imageTag  = "e2e"
	appImage  = "ghcr.io/elector-io/e2e-app:" + imageTag
	markLabel = "elector-e2e" // on namespaces of the tests
)

// world is the cluster that all tests share.
var world struct {
	root    string // of the repository
	logs    string // where logs are kept on failure
	chart   string // the packaged chart
	kubectl string
	helm    string
	client  kubernetes.Interface
	manager kubernetes.Interface // with the manager's rights, in its name
	control *node
	workers []*node
	begun   time.Time
}

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen { // tests wait for the cluster most of the time
		if err := flag.Set("test.parallel", "4"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			os.Exit(1)
		}
	}
	os.Exit(inWorld(m.Run))
}

func inWorld(tests func() int) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	world.begun = time.Now()
	klog.SetLogger(logr.Discard()) // client-go complains of outages, which are the tests'
	if err := setUp(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() {
		for _, n := range allNodes() {
			n.close()
		}
	}()
	interrupted := context.AfterFunc(ctx, func() {
		for _, n := range allNodes() {
			n.close() // what the tests wait for then fails
		}
	})
	defer interrupted()
	return tests()
}

func allNodes() []*node { return append([]*node{world.control}, world.workers...) }

func setUp(ctx context.Context) (err error) {
	if world.root, err = embedded.Root(); err != nil {
		return err
	}
	world.logs = filepath.Join(world.root, ".e2e", "logs")
	if err := loadImages(ctx); err != nil {
		return err
	}
	for tool, path := range map[string]*string{"kubectl": &world.kubectl, "helm": &world.helm} {
		if *path, err = exec.LookPath(tool); err == nil {
			continue
		}
		out, err := exec.CommandContext(ctx, filepath.Join(world.root, "bin", "cluster"), "bin-path", tool).Output()
		if err != nil {
			return fmt.Errorf("there is no %s, and bin/cluster does not know one: %w", tool, err)
		}
		*path = strings.TrimSpace(string(out))
	}
	if err := connect(ctx); err != nil {
		return err
	}
	if err := tidy(ctx); err != nil {
		return err
	}
	name := os.Getenv("E2E_CLUSTER")
	if name == "" {
		name = "elector-e2e"
	}
	world.control = &node{name: name + "-control-plane"}
	world.workers = []*node{{name: name + "-worker"}, {name: name + "-worker2"}}
	for _, n := range allNodes() {
		if err := n.open(ctx); err != nil {
			return err
		}
	}
	if err := installElector(ctx); err != nil {
		return err
	}
	for _, n := range allNodes() {
		if _, err := n.sh("rm -f *"); err != nil { // what an earlier run recorded
			return err
		}
	}
	return nil
}

// loadImages makes the images of this checkout and puts them on the nodes, unless run.sh has just done so: those that are there may be
// of other source.
func loadImages(ctx context.Context) error {
	if os.Getenv("E2E_LOADED") != "" {
		return nil
	}
	out, err := exec.CommandContext(ctx, filepath.Join(world.root, "test", "e2e", "kind", "load.sh")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("putting the images of this source on the nodes (E2E_LOADED=1 says that they are there): %w\n%s", err, out)
	}
	return nil
}

func connect(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return fmt.Errorf("reading $KUBECONFIG: %w", err)
	}
	config.QPS, config.Burst = -1, -1 // no throttling: what is measured is the cluster
	config.WarningHandler = rest.NoWarnings{}
	if world.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	config.Impersonate.UserName = "system:serviceaccount:" + system + ":" + manager
	if world.manager, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if _, err := world.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("asking the cluster of $KUBECONFIG: %w", err)
	}
	return nil
}

// tidy removes what an earlier run left.
func tidy(ctx context.Context) error {
	if _, err := helm(ctx, "uninstall", release, "-n", system, "--ignore-not-found", "--wait"); err != nil {
		return err
	}
	namespaces := world.client.CoreV1().Namespaces()
	if err := namespaces.Delete(ctx, system, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("removing the manager's namespace: %w", err)
	}
	list, err := namespaces.List(ctx, metav1.ListOptions{LabelSelector: markLabel})
	if err != nil {
		return fmt.Errorf("looking for namespaces of an earlier run: %w", err)
	}
	for i := range list.Items {
		if err := namespaces.Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{}); err != nil {
			return fmt.Errorf("removing a namespace of an earlier run: %w", err)
		}
	}
	if err := awaitNoNamespaces(ctx); err != nil {
		return err
	}
	return poll(ctx, 2*time.Minute, 500*time.Millisecond, func() error {
		_, err := namespaces.Get(ctx, system, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("waiting for the end of the manager's namespace: %w", err)
	})
}

func awaitNoNamespaces(ctx context.Context) error {
	return poll(ctx, 2*time.Minute, 500*time.Millisecond, func() error {
		list, err := world.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: markLabel})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d namespaces of the tests are still there", len(list.Items))
		}
		return err
	})
}

// installElector does what a user would: it installs the packaged chart with helm.
func installElector(ctx context.Context) error {
	if world.chart = os.Getenv("E2E_CHART"); world.chart == "" {
		dir := filepath.Join(world.root, ".e2e")
		out, err := exec.CommandContext(ctx, world.helm, "package", filepath.Join(world.root, "charts", "elector"), "-d", dir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("packaging the chart: %w\n%s", err, out)
		}
		_, path, _ := strings.Cut(strings.TrimSpace(string(out)), ": ")
		world.chart = path
	}
	begun := time.Now()
	if err := helmUpgrade(ctx); err != nil {
		return err
	}
	tell("helm", "installed "+filepath.Base(world.chart))
	figure("helm install", "", "until both replicas of the manager are ready", seconds(time.Since(begun)))
	// A Service's newest endpoints reach kube-proxy a moment after helm has seen that they are ready.
	return poll(ctx, time.Minute, 200*time.Millisecond, func() error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "asks", Annotations: annotations(modeLease)}, Spec: podTemplate("asks").Spec}
		pod.Spec.ServiceAccountName = ""
		return createDry(ctx, metav1.NamespaceDefault, pod)
	})
}

// createDry creates a pod that asks for the sidecar by a dry run, which passes admission like others but starts nothing.
func createDry(ctx context.Context, namespace string, pod *corev1.Pod) error {
	created, err := world.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil && (len(created.Spec.InitContainers) != 1 || created.Spec.InitContainers[0].Name != inject.ContainerName) {
		err = errors.New("a pod came through without the sidecar")
	}
	return err
}

// helmUpgrade installs, or changes the values of what is installed: KEY=VALUE.
func helmUpgrade(ctx context.Context, values ...string) error {
	args := []string{
		"upgrade", "--install", release, world.chart, "-n", system, "--create-namespace", "--wait", "--timeout", "3m",
		"--set", "image.tag=" + imageTag, "--set", "sidecar.image.tag=" + imageTag, "--set", "sidecar.image.pullPolicy=IfNotPresent",
		"--set", "sidecar.logLevel=2", // renewals are in the log
	}
	for _, v := range values {
		args = append(args, "--set", v)
	}
	_, err := helm(ctx, args...)
	return err
}

func helm(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, world.helm, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("helm %s: %w\n%s", args[0], err, out)
	}
	return string(out), err
}

func kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, world.kubectl, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// poll tries until check returns no error.
func poll(ctx context.Context, patience, every time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, fmt.Errorf("given up after %s", patience))
		}
	}
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
