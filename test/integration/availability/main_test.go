//go:build integration

// Package availability counts what a cluster's users notice of the manager's accidents: pods are created without pause while replicas are
// killed, moved and upgraded, certificates are renewed and lost, and the API server is told the wrong CA. The manager is the real one,
// installed with Helm once for each test, on a real control plane. Between API server and manager stands the played kube-proxy of
// test/cluster. It forwards a new connection to one endpoint at random and follows a changed endpoint faster than a real one does.
package availability

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

// cluster is the one that all tests share.
var cluster *embedded.Cluster

func TestMain(m *testing.M) {
	os.Exit(embedded.Main(m.Run, embedded.Config{Progress: os.Stdout}, &cluster))
}

func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	cluster.Eventually(t, what, check)
}

// installation is a release of the chart that looks after the pods of one namespace. Its objects have its name.
type installation struct {
	t *testing.T
	// name is that of the release, of its namespace and of what is in it; apps is where the pods are that it looks after.
	name, apps string
}

// install installs the manager as a user would and waits until it is ready. The values are KEY=VALUE.
func install(t *testing.T, values ...string) *installation {
	t.Helper()
	i := prepare(t)
	i.helm("install", values...)
	return i
}

// prepare makes the namespaces. What is installed in them goes at the end of the test.
func prepare(t *testing.T) *installation {
	t.Helper()
	name := strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))
	i := &installation{t: t, name: name, apps: name + "-apps"}
	namespaces := cluster.Client().CoreV1().Namespaces()
	for _, ns := range []string{i.name, i.apps} {
		_, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			i.describe()
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), embedded.Patience)
		defer cancel()
		if out, err := cluster.Helm(ctx, "uninstall", i.name, "--namespace", i.name, "--wait").CombinedOutput(); err != nil {
			t.Errorf("helm uninstall: %v\n%s", err, out)
		}
		for _, ns := range []string{i.name, i.apps} {
			if err := namespaces.Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
	eventually(t, "the apps' ServiceAccount", func(ctx context.Context) error {
		_, err := cluster.Client().CoreV1().ServiceAccounts(i.apps).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return i
}

// helm installs or upgrades.
func (i *installation) helm(command string, values ...string) {
	i.t.Helper()
	args := []string{command, i.name, cluster.Chart(), "--namespace", i.name, "--wait", "--timeout", embedded.Patience.String()}
	for _, v := range append([]string{
		"service.port=8443", "fullnameOverride=" + i.name,
		`webhook.namespaceSelector.matchLabels.kubernetes\.io/metadata\.name=` + i.apps,
	}, values...) {
		args = append(args, "--set", v)
	}
	if out, err := cluster.Helm(i.t.Context(), args...).CombinedOutput(); err != nil {
		i.t.Fatalf("helm %s: %v\n%s", command, err, out)
	}
}

func (i *installation) describe() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(i.t.Context()), 20*time.Second)
	defer cancel()
	for _, command := range [][]string{
		{"get", "pods,leases,endpointslices", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "-l", "app.kubernetes.io/name=elector", "--prefix", "--tail", "2000"},
		{"logs", "-l", "app.kubernetes.io/name=elector", "--prefix", "--tail", "20", "--previous"},
	} {
		out, _ := cluster.Kubectl(ctx, append([]string{"-n", i.name}, command...)...).CombinedOutput()
		// There is a grant for every pod that the tests make.
		out = bytes.Join(slices.DeleteFunc(bytes.Split(out, []byte("\n")), func(line []byte) bool { return bytes.Contains(line, []byte(`logger="grant"`)) }), []byte("\n"))
		i.t.Logf("kubectl -n %s %s\n%s", i.name, strings.Join(command, " "), out)
	}
}

// kubectl runs a command in the manager's namespace, as a person would.
func (i *installation) kubectl(args ...string) {
	i.t.Helper()
	out, err := cluster.Kubectl(i.t.Context(), append([]string{"-n", i.name}, args...)...).CombinedOutput()
	if err != nil {
		i.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// replicas are the manager's pods, those that are on their way out included.
func (i *installation) replicas(ctx context.Context) ([]corev1.Pod, error) {
	list, err := cluster.Client().CoreV1().Pods(i.name).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// awaitReplicas waits until there are so many pods of the manager and no others, all of them ready, and returns them.
func (i *installation) awaitReplicas(n int) (pods []corev1.Pod) {
	i.t.Helper()
	eventually(i.t, "the manager's pods", func(ctx context.Context) (err error) {
		if pods, err = i.replicas(ctx); err != nil {
			return err
		}
		ready := 0
		for _, pod := range pods {
			if isReady(&pod) && pod.DeletionTimestamp == nil {
				ready++
			}
		}
		if ready != n || len(pods) != n {
			return fmt.Errorf("%d pods, %d of them ready, want %d", len(pods), ready, n)
		}
		return nil
	})
	return pods
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// kill ends the process of a replica as the kernel does when memory is short, and waits until it serves again.
func (i *installation) kill(pod *corev1.Pod) (at time.Time) {
	i.t.Helper()
	before := pod.Status.ContainerStatuses[0]
	number, isProcess := strings.CutPrefix(before.ContainerID, "process://")
	pid, err := strconv.Atoi(number)
	if err != nil || !isProcess || pid < 2 {
		i.t.Fatalf("no process: %q", before.ContainerID)
	}
	at = time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		i.t.Fatal(err)
	}
	eventually(i.t, "the restart", func(ctx context.Context) error {
		now, err := cluster.Client().CoreV1().Pods(i.name).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && (now.Status.ContainerStatuses[0].RestartCount == before.RestartCount || !isReady(now)) {
			err = errors.New("not yet")
		}
		return err
	})
	return at
}

// configuration is the MutatingWebhookConfiguration.
func (i *installation) configuration(ctx context.Context) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	return cluster.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, i.name, metav1.GetOptions{})
}

// logged counts how often the replicas that run have said something.
func (i *installation) logged(ctx context.Context, text string) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	pods, err := i.replicas(ctx)
	if err != nil {
		return 0, err
	}
	for _, pod := range pods {
		log, err := cluster.Client().CoreV1().Pods(i.name).GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		if err != nil {
			return 0, fmt.Errorf("log of %s: %w", pod.Name, err)
		}
		n += bytes.Count(log, []byte(text))
	}
	return n, nil
}

// awaitLogged waits until the replicas have said something so many times more than at first.
func (i *installation) awaitLogged(text string, first, times int) {
	i.t.Helper()
	eventually(i.t, "a log line", func(ctx context.Context) error {
		n, err := i.logged(ctx, text)
		if err == nil && n < first+times {
			err = fmt.Errorf("%d times %q, want %d", n, text, first+times)
		}
		return err
	})
}

// setBundle writes the caBundle, as somebody does who should not.
func (i *installation) setBundle(bundle []byte) {
	i.t.Helper()
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		config, err := i.configuration(i.t.Context())
		if err != nil {
			return err
		}
		for w := range config.Webhooks {
			config.Webhooks[w].ClientConfig.CABundle = bundle
		}
		_, err = cluster.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Update(i.t.Context(), config, metav1.UpdateOptions{})
		return err
	}); err != nil {
		i.t.Fatal(err)
	}
}

// scale sets the number of replicas.
func (i *installation) scale(replicas int) {
	i.t.Helper()
	i.kubectl("scale", "deployment", i.name, "--replicas", strconv.Itoa(replicas))
	i.awaitReplicas(replicas)
}

// wire is the address at which a pod of the embedded cluster really listens.
func wire(pod *corev1.Pod) string {
	_, rest, _ := strings.Cut(pod.Status.PodIP, ".")
	return "127." + rest
}

// gated is a pod that is created and no more: it waits for somebody to lift its gate.
func (i *installation) gated(annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-", Annotations: annotations},
		Spec:       gatedSpec(),
	}
}

func gatedSpec() corev1.PodSpec {
	return corev1.PodSpec{
		SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/never"}},
		Containers:      []corev1.Container{{Name: "app", Image: "pause"}},
	}
}

// asking are the annotations that ask for the sidecar.
func asking() map[string]string {
	return map[string]string{inject.Prefix + "enabled": "true", inject.Prefix + elector.FieldLock: "web"}
}

// deployment has pods that are created and no more.
func (i *installation) deployment(name string, replicas int, onWorkload, onTemplate map[string]string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: onWorkload},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(replicas)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: onTemplate}, Spec: gatedSpec()},
		},
	}
}
