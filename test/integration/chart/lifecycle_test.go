//go:build integration

package chart

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

const (
	namespace = "elector-system"
	manager   = "elector-webhook"
	shop      = "shop"
)

// quick makes for a short test: the manager's leader, whose permissions go before it does, gives up to free its own lock after the
// renew-deadline.
const quick = "extraArgs={--lease-duration=3s,--renew-deadline=2s,--retry-period=500ms}"

// workloads elect in both modes; the third stops electing before the chart is uninstalled.
const workloads = `
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, annotations: {elector.io/enabled: "true",
  elector.io/lease-duration: 3s, elector.io/renew-deadline: 2s, elector.io/retry-period: 500ms}},
 spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: app, image: app}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: life, namespace: shop, annotations: {elector.io/enabled: "true", elector.io/mode: leader-for-life}},
 spec: {replicas: 2, selector: {matchLabels: {app: life}}, template: {metadata: {labels: {app: life}}, spec: {containers: [{name: app, image: app}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: past, namespace: shop, annotations: {elector.io/enabled: "true"}},
 spec: {replicas: 1, selector: {matchLabels: {app: past}}, template: {metadata: {labels: {app: past}}, spec: {containers: [{name: app, image: app}]}}}}
`

// leftovers is what is in the cluster, after the chart is uninstalled, that was not there before it was installed. The chart's README
// has it in words. A workload's own pods and ReplicaSets are left out.
var leftovers = []string{
	// Of the workloads that are still elected: their sidecars need them.
	"ConfigMap shop/life-lock",
	"Lease shop/web",
	"Role shop/elector:configmap:life-lock",
	"Role shop/elector:lease:web",
	"RoleBinding shop/elector:configmap:life-lock:default",
	"RoleBinding shop/elector:lease:web:default",
	// Of the one that was elected once: its lock.
	"Lease shop/past",
	// Of the manager, which made it itself.
	"Lease elector-system/elector-webhook",
	// Not elector's.
	"ConfigMap elector-system/kube-root-ca.crt",
	"ConfigMap shop/kube-root-ca.crt",
	"Deployment shop/life",
	"Deployment shop/past",
	"Deployment shop/web",
	"Namespace elector-system",
	"Namespace shop",
	"ServiceAccount elector-system/default",
	"ServiceAccount shop/default",
}

// It comes first, and alone, because it looks at the whole cluster.
func TestLifecycle(t *testing.T) {
	before := inventory(t.Context(), t)
	helm(t, "install", "elector", cluster.Chart(), "--namespace", namespace, "--create-namespace", "--wait", "--timeout", "60s",
		"--set", "service.port=8443,drain=1s,"+quick)
	newNamespace(t, shop, nil)
	kubectl(t, workloads, "apply", "-f", "-")
	locks := follow(t)
	eventually(t, "a leader of each workload", func(context.Context) error {
		if leaders := locks.all(); len(leaders["web"]) != 1 || len(leaders["life-lock"]) != 1 {
			return fmt.Errorf("%v", leaders)
		}
		return nil
	})
	ready(t, "web", 2)
	ready(t, "life", 2)
	first := locks.all()

	// The manager may not make the Secret again. An upgrade does, and the replicas that run put their CA into it.
	authority := ca(t)
	kubectl(t, "", "-n", namespace, "delete", "secret", manager+"-ca")
	helm(t, "upgrade", "elector", cluster.Chart(), "--namespace", namespace, "--reset-then-reuse-values", "--wait", "--timeout", "60s", "--set", "log.level=1")
	unchanged(t, "upgrade", locks, first, "--v=1")
	helm(t, "rollback", "elector", "--namespace", namespace, "--wait", "--timeout", "60s")
	unchanged(t, "rollback", locks, first, "--v=0")
	helm(t, "test", "elector", "--namespace", namespace, "--timeout", "60s")
	unchanged(t, "test", locks, first, "--v=0")
	if diff := cmp.Diff(authority, ca(t)); diff != "" {
		t.Errorf("upgrade and rollback changed the CA, -before +after:\n%s", diff)
	}

	kubectl(t, "", "-n", shop, "annotate", "deployment", "past", "elector.io/enabled-")
	eventually(t, "the end of a grant", func(ctx context.Context) error {
		_, err := cluster.Client().RbacV1().Roles(shop).Get(ctx, "elector:lease:past", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the Role is still there: %w", err)
	})
	helm(t, "uninstall", "elector", "--namespace", namespace, "--wait", "--timeout", "60s")
	eventually(t, "what is left after uninstalling", func(ctx context.Context) error {
		after := inventory(ctx, t)
		left := slices.DeleteFunc(after, func(object string) bool { return slices.Contains(before, object) })
		want := slices.Sorted(slices.Values(leftovers))
		if diff := cmp.Diff(want, left); diff != "" {
			return fmt.Errorf("-want +got:\n%s", diff)
		}
		return nil
	})
	goOn(t, locks, first)
}

// ca returns the certificates of the manager's CA when there are any.
func ca(t *testing.T) string {
	t.Helper()
	var certificates string
	eventually(t, "the CA", func(ctx context.Context) error {
		secret, err := cluster.Client().CoreV1().Secrets(namespace).Get(ctx, manager+"-ca", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if certificates = string(secret.Data["ca.crt"]); certificates == "" {
			return errors.New("the Secret is empty")
		}
		return nil
	})
	return certificates
}

// unchanged fails unless a step changed the manager and nothing else.
func unchanged(t *testing.T, step string, locks *holders, first map[string][]string, arg string) {
	t.Helper()
	deployment, err := cluster.Client().AppsV1().Deployments(namespace).Get(t.Context(), manager, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(deployment.Spec.Template.Spec.Containers[0].Args, arg) {
		t.Errorf("after %s the manager does not run with %s", step, arg)
	}
	for _, lock := range []string{"web", "life-lock"} {
		if diff := cmp.Diff(first[lock], locks.all()[lock]); diff != "" {
			t.Errorf("%s: after %s the leaders of %s have been, -before +after:\n%s", t.Name(), step, lock, diff)
		}
	}
}

// goOn shows that sidecars need no manager: the leaders are still the same and renew, and when they go the standbys lead. The pods that
// come instead have no sidecar.
func goOn(t *testing.T, locks *holders, first map[string][]string) {
	t.Helper()
	renewals := locks.renewed()
	eventually(t, "renewals without a manager", func(context.Context) error {
		if n := locks.renewed() - renewals; n < 3 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	for _, lock := range []string{"web", "life-lock"} {
		if diff := cmp.Diff(first[lock], locks.all()[lock]); diff != "" {
			t.Errorf("after uninstall the leaders of %s have been, -before +after:\n%s", lock, diff)
		}
		leader, _, _ := strings.Cut(first[lock][0], "_")
		if file := kubectl(t, "", "-n", shop, "exec", leader, "-c", "app", "--", "cat", "/var/run/elector/leader"); strings.TrimSpace(file) != leader {
			t.Errorf("the leader file of %s says %q", leader, file)
		}
		kubectl(t, "", "-n", shop, "delete", "pod", leader, "--wait=false")
		eventually(t, "another leader of "+lock, func(context.Context) error {
			if all := locks.all()[lock]; len(all) != 2 {
				return fmt.Errorf("leaders %v", all)
			}
			return nil
		})
	}
	eventually(t, "pods without sidecar", func(ctx context.Context) error {
		pods, err := cluster.Client().CoreV1().Pods(shop).List(ctx, metav1.ListOptions{LabelSelector: "app in (web, life)"})
		if err != nil {
			return err
		}
		without := 0
		for _, pod := range pods.Items {
			if len(pod.Spec.InitContainers) == 0 {
				without++
			}
		}
		if without != 2 {
			return fmt.Errorf("%d of %d pods have no sidecar", without, len(pods.Items))
		}
		return nil
	})
}

func ready(t *testing.T, name string, replicas int32) {
	t.Helper()
	eventually(t, "ready pods", func(ctx context.Context) error {
		deployment, err := cluster.Client().AppsV1().Deployments(shop).Get(ctx, name, metav1.GetOptions{})
		if err == nil && (deployment.Status.ReadyReplicas != replicas || deployment.Status.ObservedGeneration != deployment.Generation) {
			err = fmt.Errorf("%d of %d pods of %s are ready", deployment.Status.ReadyReplicas, replicas, name)
		}
		return err
	})
}

// holders are the holders that locks have had, one after the other.
type holders struct {
	mu       sync.Mutex
	of       map[string][]string
	renewals int // of Lease web
}

func (h *holders) all() map[string][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string][]string{}
	for lock, list := range h.of {
		all[lock] = slices.Clone(list)
	}
	return all
}

func (h *holders) renewed() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.renewals
}

func (h *holders) see(object any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lock, holder string
	switch o := object.(type) {
	case *coordinationv1.Lease:
		lock = o.Name
		if o.Spec.HolderIdentity != nil {
			holder = *o.Spec.HolderIdentity
		}
		if lock == "web" {
			h.renewals++
		}
	case *corev1.ConfigMap:
		if lock = o.Name; len(o.OwnerReferences) > 0 {
			holder = o.OwnerReferences[0].Name + "_" + string(o.OwnerReferences[0].UID)
		}
	}
	if list := h.of[lock]; holder != "" && (len(list) == 0 || list[len(list)-1] != holder) {
		h.of[lock] = append(list, holder)
	}
}

// follow watches the locks until the test ends.
func follow(t *testing.T) *holders {
	t.Helper()
	h := &holders{of: map[string][]string{}}
	var watching sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() {
		cancel()
		watching.Wait()
	})
	start := func(w watch.Interface, err error) {
		if err != nil {
			t.Fatal("watching locks:", err)
		}
		watching.Go(func() {
			defer w.Stop()
			for event := range w.ResultChan() {
				h.see(event.Object)
			}
			if ctx.Err() == nil {
				t.Error("a watch of locks has ended")
			}
		})
	}
	start(cluster.Client().CoordinationV1().Leases(shop).Watch(ctx, metav1.ListOptions{}))
	start(cluster.Client().CoreV1().ConfigMaps(shop).Watch(ctx, metav1.ListOptions{}))
	return h
}

// nothing are kinds that say nothing: Endpoints are EndpointSlices once more.
var nothing = []string{"Event", "ComponentStatus", "Endpoints"}

// inventory lists everything in the cluster, but for what a workload's controllers make of it and what the control plane's parts make
// for themselves.
func inventory(ctx context.Context, t *testing.T) []string {
	t.Helper()
	lists, err := cluster.Client().Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal("discovery:", err)
	}
	client, err := dynamic.NewForConfig(cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") || slices.Contains(nothing, resource.Kind) {
				continue
			}
			objects, err := client.Resource(version.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if err != nil {
				if ctx.Err() == nil && !apierrors.IsMethodNotSupported(err) {
					t.Errorf("listing %s: %v", resource.Name, err)
				}
				continue
			}
			for _, o := range objects.Items {
				made := o.GetNamespace() == shop && (resource.Kind == "Pod" || resource.Kind == "ReplicaSet")
				if !made && !strings.HasPrefix(o.GetNamespace(), "kube-") {
					all = append(all, strings.TrimSpace(resource.Kind+" "+strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
