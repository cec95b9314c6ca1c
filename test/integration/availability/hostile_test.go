//go:build integration

package availability

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/storm"
)

// memoryLimit is the chart's, in KiB.
const memoryLimit = 256 << 10

// process is a replica's.
func (i *installation) process(pod *corev1.Pod) (pid int) {
	i.t.Helper()
	number, isProcess := strings.CutPrefix(pod.Status.ContainerStatuses[0].ContainerID, "process://")
	pid, err := strconv.Atoi(number)
	if err != nil || !isProcess {
		i.t.Fatalf("no process: %q", pod.Status.ContainerStatuses[0].ContainerID)
	}
	return pid
}

// memory is what a process has had at most, and the part of what it has now that is not the program's pages, in KiB.
func memory(t *testing.T, pid int) (peak, anonymous int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		_, _ = fmt.Sscanf(string(line), "VmHWM: %d kB", &peak)
		_, _ = fmt.Sscanf(string(line), "RssAnon: %d kB", &anonymous)
	}
	return peak, anonymous
}

func sockets(pid int) (n int) {
	files, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*"))
	for _, file := range files {
		if target, _ := os.Readlink(file); strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// checkMemory says what the replicas have had, and fails if it is more than they may.
func (i *installation) checkMemory(what string) {
	i.t.Helper()
	for _, pod := range i.awaitReplicas(2) {
		pid := i.process(&pod)
		peak, anonymous := memory(i.t, pid)
		i.t.Logf("%s: %s has had %d MiB, %d of it anonymous now, and has %d sockets", what, pod.Name, peak>>10, anonymous>>10, sockets(pid))
		if peak == 0 || peak > memoryLimit {
			i.t.Errorf("%s: %d KiB, it may have %d", what, peak, memoryLimit)
		}
	}
}

// stormers is how many connections a storm has at a time here: the tests share their machine.
const stormers = 100

// Storms on every port of both replicas, from other addresses than the API server's, end none of them and fail no creation.
func TestStorms(t *testing.T) {
	i := install(t)
	replicas := i.awaitReplicas(2)
	tr := i.create()
	tr.more()
	i.checkMemory("before the storms")

	ctx, cancel := context.WithCancel(t.Context())
	var storms sync.WaitGroup
	defer storms.Wait()
	defer cancel()
	rage := func(kind storm.Kind, from int, address string) {
		kind.Clients, kind.From = min(kind.Clients, stormers), fmt.Sprintf("127.9.0.%d", from)
		storms.Go(func() { kind.Run(ctx, address) })
	}
	for r, pod := range replicas {
		for _, port := range pod.Spec.Containers[0].Ports {
			address := net.JoinHostPort(wire(&pod), strconv.Itoa(int(port.ContainerPort)))
			for _, kind := range storm.Kinds() {
				rage(kind, 1+r, address)
				if port.Name == "webhook" {
					kind.TLS = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the storm does not mind whom it hits
					rage(kind, 1+r, address)
				}
			}
		}
	}
	for range 10 {
		tr.more()
	}
	cancel()
	storms.Wait()
	tr.stopSound("storms on every port")
	i.checkMemory("after the storms")
	for _, pod := range i.awaitReplicas(2) {
		if n := pod.Status.ContainerStatuses[0].RestartCount; n > 0 {
			t.Errorf("%s was restarted %d times", pod.Name, n)
		}
	}
}

// Pods that anybody may create, as large as they may be, take little of the manager's memory, whether they are streamed or listed.
func TestForged(t *testing.T) {
	i := install(t)
	i.checkMemory("before the pods")
	large := strings.Repeat("x", 1<<20)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(4)
	const forged = 150
	for n := range forged {
		group.Go(func() error { return i.forge(ctx, fmt.Sprintf("forged-%d", n), large) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	// A replica that grants and labels one more has taken in all that were there before.
	deals := func(one string) {
		if err := i.forge(t.Context(), one, ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the grant and the label of "+one, func(ctx context.Context) error {
			if _, err := cluster.Client().RbacV1().RoleBindings(i.apps).Get(ctx, "elector:lease:"+one+":default", metav1.GetOptions{}); err != nil {
				return err
			}
			pod, err := cluster.Client().CoreV1().Pods(i.apps).Get(ctx, one, metav1.GetOptions{})
			if err == nil && pod.Labels[inject.LabelRole] != "leader" {
				err = fmt.Errorf("it is labelled %v", pod.Labels)
			}
			return err
		})
	}
	deals("one-more")
	i.checkMemory("with 150 pods of 1 MiB")
	for _, pod := range i.awaitReplicas(2) {
		i.kill(&pod)
	}
	deals("after-a-restart")
	i.checkMemory("started with 150 pods of 1 MiB")
	i.helm("upgrade", "extraEnv[0].name=KUBE_FEATURE_WatchListClient", "extraEnv[0].value=F")
	deals("after-a-list")
	i.checkMemory("started with 150 pods of 1 MiB, listed")
	tr := i.create()
	tr.more()
	tr.stopSound("beside 150 pods of 1 MiB")
}

// forge creates a pod that says it was injected, with an argument more for the sidecar that it says it has, and the Lease of that name:
// the pod holds it unless it says that it leads.
func (i *installation) forge(ctx context.Context, name, argument string) error {
	role := "standby"
	if strings.HasSuffix(name, "0") || strings.HasSuffix(name, "5") {
		role = "leader"
	}
	pod := i.gated(map[string]string{inject.AnnotationStatus: fmt.Sprintf(`{"lock":%q,"mode":"lease"}`, name)})
	pod.Name, pod.Labels = name, map[string]string{inject.LabelInjected: "true", inject.LabelRole: role}
	pod.Spec.InitContainers = []corev1.Container{{Name: inject.ContainerName, Image: "elector", Args: []string{"--lock=" + name, argument}}}
	made, err := cluster.Client().CoreV1().Pods(i.apps).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil || role == "leader" {
		return err
	}
	_, err = cluster.Client().CoordinationV1().Leases(i.apps).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{kube.ManagedByLabel: kube.ManagedBy}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new(elector.Identity(made.Name, string(made.UID)))},
	}, metav1.CreateOptions{})
	return err
}
