package processlet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/test/cluster/internal/network"
)

// How soon a failed attempt is made again. A volume often waits for a ConfigMap that its controller is about to write.
const (
	prepareRetry = 100 * time.Millisecond
	configRetry  = time.Second
	requestRetry = 200 * time.Millisecond
)

// requestTimeout bounds every request made for a pod.
const requestTimeout = 15 * time.Second

// pod is the actor that runs one pod. Fields below "owned by run" are touched by its goroutine alone; others post functions to it.
type pod struct {
	let    *Processlet
	logger klog.Logger
	uid    types.UID
	name   types.NamespacedName
	node   Node
	dir    string
	ctx    context.Context // ends when the pod is over; bounds everything done for it
	cancel context.CancelFunc
	wg     sync.WaitGroup // everything done for it
	wire   netip.Addr
	link   *network.Link
	frozen atomic.Bool
	// latest is the Pod object for those who do not own obj. uses is what the volumes are made of; stale says that it has changed.
	latest atomic.Pointer[v1.Pod]
	uses   map[reference]bool
	stale  chan struct{}

	mu     sync.Mutex
	inbox  []func()
	mail   chan struct{}
	closed bool

	// owned by run
	obj         *v1.Pod
	containers  []*container // init containers and sidecars first, in the order of the spec
	volumes     *volumes
	preparing   bool
	unsupported bool   // the volumes will never be ready
	waitMessage string // why the volumes are not ready
	initialized bool
	stop        *stop
	crashed     bool // lost like a pod on a lost node: nothing is started or reported any more
	removed     bool // the Pod object is gone
	deleting    bool
	sending     bool
	sent        *v1.PodStatus
	generation  int64
	conditions  map[v1.PodConditionType]v1.PodCondition
	startTime   metav1.Time
	finished    bool
}

func newPod(l *Processlet, obj *v1.Pod) *pod {
	ctx, cancel := context.WithCancel(l.ctx)
	p := &pod{
		let:        l,
		logger:     klog.LoggerWithValues(l.logger, "pod", klog.KObj(obj), "uid", obj.UID),
		uid:        obj.UID,
		name:       types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name},
		node:       l.cfg.Nodes[slices.IndexFunc(l.cfg.Nodes, func(n Node) bool { return n.Name == obj.Spec.NodeName })],
		dir:        filepath.Join(l.cfg.Dir, string(obj.UID)),
		ctx:        ctx,
		cancel:     cancel,
		mail:       make(chan struct{}, 1),
		uses:       references(obj),
		stale:      make(chan struct{}, 1),
		obj:        obj,
		conditions: map[v1.PodConditionType]v1.PodCondition{},
		startTime:  metav1.Now(),
	}
	p.latest.Store(obj)
	for i := range obj.Spec.InitContainers {
		c := &obj.Spec.InitContainers[i]
		k := initContainer
		if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			k = sidecar
		}
		p.containers = append(p.containers, &container{spec: c, kind: k})
	}
	for i := range obj.Spec.Containers {
		p.containers = append(p.containers, &container{spec: &obj.Spec.Containers[i], kind: app})
	}
	return p
}

// run is the pod's life: it takes messages and, after each, does what the state calls for. It returns when nothing of the pod is left.
func (p *pod) run() {
	defer p.cleanUp()
	if err := p.connect(); err != nil {
		p.eventf(v1.EventTypeWarning, "FailedCreatePodSandBox", "%v", err)
		p.logger.Error(err, "Pod cannot be connected")
	}
	p.step()
	for !p.finished {
		<-p.mail
		for _, message := range p.take() {
			message()
		}
		p.step()
	}
}

// connect gives the pod its address and its way to the API server.
func (p *pod) connect() error {
	wire, err := p.let.cfg.Range.AllocatePod()
	if err != nil {
		return err
	}
	p.wire = wire
	p.link, err = network.NewLink(p.let.cfg.Range.Links(), p.let.cfg.APIServer)
	return err
}

// cleanUp runs after the last process has ended.
func (p *pod) cleanUp() {
	p.cancel()
	p.wg.Wait()
	p.mu.Lock()
	rest := p.inbox
	p.inbox, p.closed = nil, true
	p.mu.Unlock()
	for _, message := range rest {
		message()
	}
	if p.link != nil {
		p.link.Close()
	}
	p.let.cfg.Range.ReleasePod(p.wire)
	if err := os.RemoveAll(p.dir); err != nil {
		p.logger.Error(err, "Directory of a pod not removed")
	}
}

// post hands a message to the pod's goroutine, or returns false when that has ended.
func (p *pod) post(message func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.inbox = append(p.inbox, message)
	select {
	case p.mail <- struct{}{}:
	default:
	}
	return true
}

func (p *pod) take() []func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	messages := p.inbox
	p.inbox = nil
	return messages
}

// ask runs a function on the pod's goroutine and waits for it.
func (p *pod) ask(question func()) error {
	done := make(chan struct{})
	if !p.post(func() { question(); close(done) }) {
		return fmt.Errorf("pod %s: %w", p.name, ErrNotFound)
	}
	<-done
	return nil
}

// wakeIn makes the pod look at itself again later.
func (p *pod) wakeIn(d time.Duration) { p.later(d, func() {}) }

func (p *pod) later(d time.Duration, message func()) {
	time.AfterFunc(d, func() { p.post(message) })
}

func (p *pod) eventf(kind, reason, format string, args ...any) {
	p.let.events.Eventf(p.obj, kind, reason, format, args...)
}

// update takes a newer version of the Pod object.
func (p *pod) update(obj *v1.Pod) {
	changed := !maps.Equal(p.obj.Labels, obj.Labels) || !maps.Equal(p.obj.Annotations, obj.Annotations)
	p.obj = obj
	p.latest.Store(obj)
	if changed {
		p.markStale() // for the downward API
	}
}

// step does what the state calls for. It never blocks: what takes time runs beside it and posts its result.
func (p *pod) step() {
	switch {
	case p.removed:
		p.cancel()
		p.killAll()
		p.finished = !p.busy()
		return
	case p.crashed:
		p.killAll()
		if p.obj.DeletionTimestamp != nil && !p.busy() {
			p.deleteObject()
		}
		return
	}
	if p.stop == nil {
		p.considerStop()
	}
	switch {
	case p.stop != nil:
		p.followStop()
	case p.volumes == nil:
		p.prepare()
	case p.initialize():
		p.keepRunning()
	}
	p.report()
	if p.over() && p.obj.DeletionTimestamp != nil {
		p.deleteObject()
	}
}

// busy tells whether a process runs or is being started, or anything else is under way that would outlive the pod.
func (p *pod) busy() bool {
	return p.preparing || slices.ContainsFunc(p.containers, func(c *container) bool { return c.starting || c.alive() })
}

func (p *pod) killAll() {
	for _, c := range p.containers {
		if c.alive() {
			c.run.kill()
		}
	}
}

// prepare makes the volumes, and tries again until it can.
func (p *pod) prepare() {
	if p.preparing || p.unsupported || p.link == nil {
		return
	}
	p.preparing = true
	obj := p.obj
	p.wg.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, requestTimeout)
		defer cancel()
		vs, err := p.makeVolumes(ctx, obj)
		if err != nil && !errors.Is(err, errUnsupported) {
			select {
			case <-p.ctx.Done():
			case <-time.After(prepareRetry):
			}
		}
		p.post(func() { p.prepared(vs, err) })
	})
}

func (p *pod) prepared(vs *volumes, err error) {
	p.preparing = false
	if err != nil {
		if p.waitMessage != err.Error() && p.ctx.Err() == nil {
			p.waitMessage = err.Error()
			p.eventf(v1.EventTypeWarning, "FailedMount", "%v", err)
		}
		// What is not supported will not be later: the pod stays as it is, with the reason on it, until it is deleted.
		p.unsupported = errors.Is(err, errUnsupported)
		return
	}
	p.waitMessage, p.volumes = "", vs
	p.wg.Go(func() { p.keepVolumes(p.ctx, vs) })
}

// initialize brings the init containers forward, one after the other, and returns true when app containers may run.
// A native sidecar lets the next one start once it has started itself; it is kept running from then on.
func (p *pod) initialize() bool {
	for _, c := range p.containers {
		switch {
		case c.kind == sidecar:
			p.keep(c)
			if !p.initialized && !c.isStarted() {
				return false
			}
		case c.kind == initContainer && !p.initialized:
			if c.succeeded() {
				continue
			}
			p.keep(c)
			return false
		}
	}
	p.initialized = true
	return true
}

func (p *pod) keepRunning() {
	for _, c := range p.containers {
		if c.kind == app {
			p.keep(c)
		}
	}
}

// over tells that every container has ended for good and the API knows.
func (p *pod) over() bool {
	return p.stop != nil && p.stop.done && !p.sending && p.sent != nil && (p.sent.Phase == v1.PodSucceeded || p.sent.Phase == v1.PodFailed)
}

// deleteObject removes the Pod object, as the kubelet does once nothing of the pod runs. Its disappearance ends the actor.
func (p *pod) deleteObject() {
	if p.deleting {
		return
	}
	p.deleting = true
	p.wg.Go(func() {
		// The watch often tells of the deletion before the answer does, which ends p.ctx.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), requestTimeout)
		defer cancel()
		now := int64(0)
		err := p.let.cfg.Client.CoreV1().Pods(p.name.Namespace).Delete(ctx, p.name.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.uid}})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		p.logger.Error(err, "Pod object not deleted, will be tried again")
		p.post(func() {
			p.deleting = false
			p.wakeIn(requestRetry)
		})
	})
}

// Crash ends every process of a pod as the loss of its node would: nothing is restarted and nothing reported. Once the pod's deletion is
// asked for, the object goes without delay.
func (l *Processlet) Crash(namespace, name string) error {
	var running []*run
	err := l.control(namespace, name, func(p *pod) error {
		p.crashed = true
		for _, c := range p.containers {
			if c.alive() {
				running = append(running, c.run)
			}
		}
		return nil
	})
	for _, r := range running { // killed by the step that follows
		<-r.proc.Done()
	}
	return err
}

// Freeze stops every process of a pod where it is, and its probes.
func (l *Processlet) Freeze(namespace, name string) error {
	return l.control(namespace, name, func(p *pod) error {
		p.frozen.Store(true)
		return p.signalAll(sigStop)
	})
}

// Thaw undoes Freeze.
func (l *Processlet) Thaw(namespace, name string) error {
	return l.control(namespace, name, func(p *pod) error {
		p.frozen.Store(false)
		return p.signalAll(sigCont)
	})
}

// Connect sets the condition of a pod's connections to the API server.
func (l *Processlet) Connect(namespace, name string, c network.Condition) error {
	return l.control(namespace, name, func(p *pod) error {
		p.link.Set(c)
		return nil
	})
}

// Evict ends a pod as a kubelet under pressure does: its containers stop within their grace period, its phase becomes Failed, and the
// object stays.
func (l *Processlet) Evict(namespace, name string) error {
	return l.control(namespace, name, func(p *pod) error {
		if p.stop == nil {
			p.beginStop(p.specGrace(), "Evicted", "The node was low on resource: memory.")
		}
		return nil
	})
}

func (l *Processlet) control(namespace, name string, action func(*pod) error) error {
	p, err := l.find(namespace, name)
	if err != nil {
		return err
	}
	var failed error
	return errors.Join(p.ask(func() { failed = action(p) }), failed)
}

func (p *pod) findContainer(name string) (*container, error) {
	for _, c := range p.containers {
		if c.spec.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("container %q of pod %s: %w", name, p.name, ErrNotFound)
}

// log finds the output of a container, and a channel that closes when no more comes.
func (p *pod) log(name string, previous bool) (path string, ended <-chan struct{}, err error) {
	asked := p.ask(func() {
		var c *container
		if c, err = p.findContainer(name); err != nil {
			return
		}
		r := c.run
		if previous {
			r = c.previous
		}
		if r == nil {
			err = fmt.Errorf("container %q of pod %s has no such run: %w", name, p.name, ErrNotFound)
			return
		}
		path, ended = r.logPath, r.ctx.Done()
	})
	return path, ended, errors.Join(asked, err)
}

// running finds the present run of a container.
func (p *pod) running(name string) (r *run, err error) {
	asked := p.ask(func() {
		var c *container
		if c, err = p.findContainer(name); err != nil {
			return
		}
		if !c.alive() {
			err = fmt.Errorf("container %q of pod %s does not run: %w", name, p.name, ErrNotFound)
			return
		}
		r = c.run
	})
	return r, errors.Join(asked, err)
}
