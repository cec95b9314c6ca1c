// Package candidates holds what the manager knows of injected pods.
//
// # What it costs
//
// Pods are read once, when they come from the API server, into a Pod of a few
// hundred bytes, and nothing else of them is kept: whoever may create pods may
// write megabytes into their annotations and arguments. For the same reason they
// are taken in one by one, by a watch that streams them, or in small pages from an
// API server that does not (before Kubernetes 1.34). Both are without effect on
// how soon news come.
package candidates

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/inject"
)

// pageSize is how many Pods are asked for at a time. Each may have 1.5 MiB, and
// takes twice that while it is read.
const pageSize = 20

// Cache holds the injected pods of the cluster.
type Cache struct {
	informer toolscache.SharedIndexInformer
}

// Source tells of candidates; a Cache does.
type Source interface {
	locks.Informers
	// OfLock returns the pods of a lock in any order, ended ones included.
	OfLock(locks.Lock) []Pod
}

// New returns a cache of the Pods that pods lists and watches, to be started.
func New(pods toolscache.ListerWatcher) (*Cache, error) {
	c := &Cache{toolscache.NewSharedIndexInformer(pods, &corev1.Pod{}, 0, toolscache.Indexers{indexLock: func(obj any) ([]string, error) {
		if h, ok := obj.(*held); ok && h.pod.Lock != (locks.Lock{}) {
			return []string{h.pod.Lock.String()}, nil
		}
		return nil, nil
	}})}
	if err := c.informer.SetTransform(hold); err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	return c, nil
}

// indexLock finds pods by their lock.
const indexLock = "lock"

// Start watches until ctx ends. With NeedLeaderElection it is what
// controller-runtime's manager runs.
func (c *Cache) Start(ctx context.Context) error {
	c.informer.RunWithContext(ctx)
	return nil
}

// NeedLeaderElection is false: a replica that takes over has the pods already.
func (c *Cache) NeedLeaderElection() bool { return false }

// OfLock implements Source.
func (c *Cache) OfLock(l locks.Lock) []Pod {
	objects, err := c.informer.GetIndexer().ByIndex(indexLock, l.String())
	if err != nil {
		return nil // there is this index
	}
	pods := make([]Pod, 0, len(objects))
	for _, obj := range objects {
		if h, ok := obj.(*held); ok {
			pods = append(pods, h.pod)
		}
	}
	return pods
}

// LocksIn returns the locks of the pods in a namespace. It goes through all pods.
func (c *Cache) LocksIn(namespace string) []locks.Lock {
	found := map[locks.Lock]bool{}
	for _, obj := range c.informer.GetStore().List() {
		if h, ok := obj.(*held); ok && h.pod.Lock.Name != "" && h.pod.Namespace == namespace {
			found[h.pod.Lock] = true
		}
	}
	return slices.Collect(maps.Keys(found))
}

// GetInformer implements locks.Informers, for what Watched returns.
func (c *Cache) GetInformer(_ context.Context, obj client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	if _, ok := obj.(*held); !ok {
		return nil, fmt.Errorf("there are pods here, and no %T", obj)
	}
	return c.informer, nil
}

// Watched is locks.Watched for pods: those for which about is true matter, and a
// change is another lock, or another view of the pod if view is not nil. Kubelets
// often write to a Pod what does not matter here.
func Watched(about func(Pod) bool, view func(Pod) any) locks.Watched {
	return locks.Watched{
		Object: &held{},
		Locks: func(obj client.Object) []locks.Lock {
			if h, ok := obj.(*held); ok && h.pod.Lock != (locks.Lock{}) && about(h.pod) {
				return []locks.Lock{h.pod.Lock}
			}
			return nil
		},
		View: func(obj client.Object) any {
			if h, ok := obj.(*held); ok && view != nil {
				return view(h.pod)
			}
			return nil
		},
	}
}

// held is a Pod as an informer keeps it.
type held struct {
	metav1.PartialObjectMetadata // namespace, name and version
	pod                          Pod
}

// DeepCopyObject implements runtime.Object. Nothing in it is ever changed.
func (h *held) DeepCopyObject() runtime.Object {
	c := *h
	return &c
}

// hold is the cache's transform.
func hold(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	return holdPod(pod), nil
}

func holdPod(pod *corev1.Pod) *held {
	h := &held{pod: Of(pod)}
	h.Namespace, h.Name, h.ResourceVersion = h.pod.Namespace, h.pod.Name, h.pod.Version
	return h
}

// Injected lists and watches the injected pods of the cluster. A list comes in
// pages, and holds what the cache keeps.
func Injected(pods corev1client.PodsGetter) toolscache.ListerWatcher {
	selector := labels.Set{inject.LabelInjected: "true"}.String()
	all := pods.Pods(metav1.NamespaceAll)
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = selector
			return list(options, func(page metav1.ListOptions) (*corev1.PodList, error) { return all.List(ctx, page) })
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = selector
			return all.Watch(ctx, options)
		},
	}
}

// list reads all pages. An API server that is asked for a version, and be it any,
// may answer with everything it has in memory; so it is asked for the newest. A
// list that takes so long that its pages are not kept any more begins anew, as
// lists do that fail.
func list(options metav1.ListOptions, page func(metav1.ListOptions) (*corev1.PodList, error)) (runtime.Object, error) {
	options.ResourceVersion, options.ResourceVersionMatch, options.Limit, options.Continue = "", "", pageSize, ""
	var whole internalversion.List
	for {
		got, err := page(options)
		if err != nil {
			return nil, err
		}
		for i := range got.Items {
			whole.Items = append(whole.Items, holdPod(&got.Items[i]))
		}
		whole.ResourceVersion = got.ResourceVersion
		switch got.Continue {
		case "":
			return &whole, nil
		case options.Continue:
			return nil, errors.New("list pods: a page is followed by itself")
		}
		options.Continue = got.Continue
	}
}
