package candidates

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

func named(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Name = name } }

// TestCache follows a pod from lock to lock.
func TestCache(t *testing.T) {
	source := cachetesting.NewFakeControllerSource()
	c, err := New(source)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	seen := make(chan string, 10)
	watched := Watched(Pod.Contends, nil)
	informer, err := c.GetInformer(ctx, watched.Object)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { seen <- fmt.Sprint("new ", watched.Locks(obj.(*held))) },
		UpdateFunc: func(_, obj any) { seen <- fmt.Sprint("now ", watched.Locks(obj.(*held))) },
		DeleteFunc: func(obj any) { seen <- fmt.Sprint("gone ", watched.Locks(obj.(*held))) },
	}); err != nil {
		t.Fatal(err)
	}
	expect := func(news string, ofLease, ofConfigMap int) {
		t.Helper()
		if got := <-seen; got != news {
			t.Errorf("%s, want %s", got, news)
		}
		webConfigMap := locks.Lock{Namespace: "shop", Mode: elector.ModeLeaderForLife, Name: "web"}
		if diff := cmp.Diff([]int{ofLease, ofConfigMap}, []int{len(c.OfLock(webLease)), len(c.OfLock(webConfigMap))}); diff != "" {
			t.Errorf("pods of the Lease and of the ConfigMap (-want +got):\n%s", diff)
		}
	}
	source.Add(injected())
	expect("new [Lease shop/web]", 1, 0)
	source.Modify(injected(status(`{"lock":"web","mode":"leader-for-life"}`)))
	expect("now [ConfigMap shop/web]", 0, 1)
	source.Modify(evicted())
	expect("now []", 1, 0) // it does not contend any more, and is its lock's all the same
	source.Modify(injected(status("")))
	expect("now []", 0, 0)
	source.Delete(injected(status("")))
	expect("gone []", 0, 0)
}

// pages is an API server that has some pods and keeps to the limit.
type pages struct {
	corev1client.PodInterface
	t        *testing.T
	pods     int
	requests int
}

func (p *pages) Pods(string) corev1client.PodInterface { return p }

func (p *pages) List(_ context.Context, options metav1.ListOptions) (*corev1.PodList, error) {
	p.requests++
	if options.LabelSelector != "elector.io/injected=true" || options.Limit != pageSize || options.ResourceVersion != "" {
		p.t.Errorf("asked for %+v", options)
	}
	from := 0
	if options.Continue != "" {
		if _, err := fmt.Sscan(options.Continue, &from); err != nil {
			p.t.Error(err)
		}
	}
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "99"}}
	for i := from; i < min(from+pageSize, p.pods); i++ {
		list.Items = append(list.Items, *injected(named(fmt.Sprint("web-", i))))
	}
	if from+pageSize < p.pods {
		list.Continue = strconv.Itoa(from + pageSize)
	}
	return list, nil
}

// TestPages holds that a list is read in small pages, and that nothing but what
// is kept is left of each.
func TestPages(t *testing.T) {
	for pods, requests := range map[int]int{0: 1, 1: 1, pageSize: 1, pageSize + 1: 2, 150: 8} {
		api := &pages{t: t, pods: pods}
		source, ok := Injected(api).(toolscache.ListerWithContext)
		if !ok {
			t.Fatal("lists without a context")
		}
		got, err := source.ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "0", Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		list, ok := got.(*internalversion.List)
		if !ok {
			t.Fatalf("a list is a %T", got)
		}
		if len(list.Items) != pods || api.requests != requests || list.ResourceVersion != "99" {
			t.Errorf("%d pods in %d requests, want %d in %d", len(list.Items), api.requests, pods, requests)
		}
		for _, item := range list.Items {
			if _, ok := item.(*held); !ok {
				t.Errorf("a %T is kept", item)
			}
		}
	}
}

// TestPageThatFollowsItself has an API server that would be listed for ever.
func TestPageThatFollowsItself(t *testing.T) {
	_, err := list(metav1.ListOptions{}, func(metav1.ListOptions) (*corev1.PodList, error) {
		return &corev1.PodList{ListMeta: metav1.ListMeta{Continue: "again"}}, nil
	})
	if err == nil {
		t.Error("no error")
	}
}
