// Package processlet plays the scheduler and the kubelet of an embedded cluster: it binds pods to nodes that exist only as objects and
// runs their containers as processes of this machine.
//
// It keeps a kubelet's promises that a workload can see: init containers in order, native sidecars started before and stopped after the
// app containers, the startup probe as a gate, restarts, SIGTERM before SIGKILL within the grace period, the terminal phase reported before the
// Pod object goes. It does not limit resources, pull images, or separate networks; the README beside this module lists the differences.
//
// Every pod is an actor: one goroutine owns its state, everything that happens to it arrives as a message (see pod.run).
package processlet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/test/cluster/internal/network"
)

// Node is a node that pods are bound to.
type Node struct {
	Name string
	// Kubelet is where the node's HTTPS endpoints are.
	Kubelet netip.AddrPort
}

// Image is what stands for a container image: a program of this machine.
type Image struct {
	// Binary is the program's absolute path.
	Binary string
	// Entrypoint is where the container sees it, and its command if the pod gives none.
	Entrypoint string
	// Beside are programs in the same directory of this machine that the container sees beside it.
	Beside []string
}

// Config says what to play and with what.
type Config struct {
	// Client may do everything. Required.
	Client kubernetes.Interface
	// Range is where pods get their addresses. Required.
	Range *network.Range
	// APIServer is where pods' API connections lead to. Required.
	APIServer netip.AddrPort
	// Dir is an existing directory for volumes, Logs one for the output of containers. Required.
	Dir, Logs string
	// Nodes to register, at least one.
	Nodes []Node
	// Images by the last element of their repository. A container of another image runs its command from the host's file system.
	Images map[string]Image
}

// Processlet runs the pods of one cluster.
type Processlet struct {
	cfg    Config
	events record.EventRecorder
	logger klog.Logger
	wg     sync.WaitGroup // every pod's actor
	ctx    context.Context

	mu       sync.Mutex
	pods     map[types.UID]*pod
	names    map[types.NamespacedName]types.UID // the newest pod of each name
	stopping bool
}

// New checks the configuration. Nothing happens before Run.
func New(cfg Config) (*Processlet, error) {
	if cfg.Client == nil || cfg.Range == nil || !cfg.APIServer.IsValid() || cfg.Dir == "" || cfg.Logs == "" || len(cfg.Nodes) == 0 {
		return nil, errors.New("processlet: client, range, API server, directories and nodes are required")
	}
	return &Processlet{cfg: cfg, logger: klog.Background().WithName("processlet"),
		pods: map[types.UID]*pod{}, names: map[types.NamespacedName]types.UID{}}, nil
}

// Run registers the nodes and runs pods until ctx ends. It calls ready once pods are being run. When it returns no container is left.
func (l *Processlet) Run(ctx context.Context, ready func()) error {
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: l.cfg.Client.CoreV1().Events("")})
	l.events = broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "processlet"})
	// Pods outlive ctx by as long as it takes to kill them.
	podCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	l.ctx = podCtx

	if err := l.registerNodes(ctx); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(l.cfg.Client, 0)
	s := newScheduler(l, factory)
	podInformer := factory.Core().V1().Pods().Informer()
	if _, err := podInformer.AddEventHandler(l.podEvents(s)); err != nil { //nolint:contextcheck // pods outlive ctx, see above
		return fmt.Errorf("watch pods: %w", err)
	}
	for kind, informer := range map[string]cache.SharedIndexInformer{
		kindConfigMap: factory.Core().V1().ConfigMaps().Informer(), kindSecret: factory.Core().V1().Secrets().Informer(),
	} {
		if _, err := informer.AddEventHandler(l.sourceEvents(kind)); err != nil {
			return fmt.Errorf("watch what volumes are made of: %w", err)
		}
	}
	defer factory.Shutdown()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	factory.StartWithContext(watching)
	if !cache.WaitForCacheSync(ctx.Done(), podInformer.HasSynced, s.nodesSynced) {
		return ctx.Err()
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.run(ctx) })
	wg.Go(func() { l.heartbeat(ctx) })
	ready()
	<-ctx.Done()
	stopWatching()
	l.killAll()
	wg.Wait()
	return nil
}

func (l *Processlet) podEvents(s *scheduler) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { l.observe(s, obj.(*v1.Pod)) },
		UpdateFunc: func(old, obj any) {
			// A watch that was interrupted may show a recreated pod as a change of the former one.
			if before, after := old.(*v1.Pod), obj.(*v1.Pod); before.UID != after.UID {
				l.forget(s, before)
			}
			l.observe(s, obj.(*v1.Pod))
		},
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if pod, ok := obj.(*v1.Pod); ok {
				l.forget(s, pod)
			}
		},
	}
}

// sourceEvents brings changed ConfigMaps and Secrets to the volumes made of them. What is deleted stays in them, as with a kubelet.
func (l *Processlet) sourceEvents(kind string) cache.ResourceEventHandler {
	changed := func(obj any) {
		o, ok := obj.(metav1.Object)
		if !ok {
			return
		}
		source := reference{kind, o.GetNamespace(), o.GetName()}
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, p := range l.pods {
			if p.uses[source] {
				p.markStale()
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, obj any) { changed(obj) }}
}

// observe takes note of a new or changed pod.
func (l *Processlet) observe(s *scheduler, obj *v1.Pod) {
	if obj.Spec.NodeName == "" {
		s.enqueue(obj)
		return
	}
	s.assigned(obj)
	if !l.ours(obj.Spec.NodeName) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.pods[obj.UID]; ok {
		p.post(func() { p.update(obj) })
		return
	}
	if l.stopping {
		return
	}
	p := newPod(l, obj)
	l.pods[obj.UID] = p
	l.names[types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}] = obj.UID
	l.wg.Go(func() {
		p.run()
		l.drop(p)
	})
}

// forget takes note that a Pod object is gone.
func (l *Processlet) forget(s *scheduler, obj *v1.Pod) {
	s.removed(obj)
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.pods[obj.UID]; ok {
		p.post(func() { p.removed = true })
	}
}

func (l *Processlet) drop(p *pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pods, p.uid)
	if l.names[p.name] == p.uid {
		delete(l.names, p.name)
	}
}

// killAll ends every pod without telling the API, and waits.
func (l *Processlet) killAll() {
	l.mu.Lock()
	l.stopping = true
	for _, p := range l.pods {
		p.post(func() { p.removed = true })
	}
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *Processlet) ours(node string) bool {
	for _, n := range l.cfg.Nodes {
		if n.Name == node {
			return true
		}
	}
	return false
}

// image finds what stands for an image, by the last element of its repository: ghcr.io/x/elector:v1 is "elector".
func (l *Processlet) image(reference string) (Image, bool) {
	repository, _, _ := strings.Cut(reference, "@")
	name, _, _ := strings.Cut(path.Base(repository), ":")
	image, ok := l.cfg.Images[name]
	return image, ok
}

// ErrNotFound means that there is no such pod or container here.
var ErrNotFound = errors.New("not found")

func (l *Processlet) find(namespace, name string) (*pod, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.pods[l.names[types.NamespacedName{Namespace: namespace, Name: name}]]
	if !ok {
		return nil, fmt.Errorf("pod %s/%s: %w", namespace, name, ErrNotFound)
	}
	return p, nil
}

// Log opens the output of a container's present or previous run. Ended is closed when the run will write no more.
func (l *Processlet) Log(namespace, name, container string, previous bool) (log io.ReadSeekCloser, ended <-chan struct{}, err error) {
	p, err := l.find(namespace, name)
	if err != nil {
		return nil, nil, err
	}
	path, ended, err := p.log(container, previous)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the log: %w", err)
	}
	return f, ended, nil
}

// Exec runs a command in a running container.
func (l *Processlet) Exec(ctx context.Context, namespace, name, container string, cmd []string, streams Streams) error {
	p, err := l.find(namespace, name)
	if err != nil {
		return err
	}
	r, err := p.running(container)
	if err != nil {
		return err
	}
	return r.exec(ctx, cmd, streams)
}

// PodAddr is where a pod's ports are reached from this machine.
func (l *Processlet) PodAddr(namespace, name string) (netip.Addr, error) {
	p, err := l.find(namespace, name)
	if err != nil {
		return netip.Addr{}, err
	}
	return p.wire, nil
}
