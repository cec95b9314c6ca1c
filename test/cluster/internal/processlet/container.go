package processlet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/test/cluster/internal/sandbox"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

// Restarts: the first at once, then after 1 s, doubling to 30 s, and anew after a run of 60 s. A kubelet waits ten times as long.
const (
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
	healthyRun   = 60 * time.Second
)

// startErrorCode is the exit code of a container whose command could not be executed.
const startErrorCode = 128

type kind int

const (
	initContainer kind = iota
	sidecar
	app
)

// container is one container of a pod through all its runs. The pod's goroutine owns it.
type container struct {
	spec      *v1.Container
	kind      kind
	run       *run // the present or last one
	previous  *run // the one before
	starting  bool
	restarts  int32
	crashes   int
	notBefore time.Time
	// waitReason and waitMessage say why there is no run, or none yet.
	waitReason, waitMessage string
}

// run is one run of a container: from the start of its process to the end of it.
type run struct {
	pod       *pod
	spec      *v1.Container
	proc      *sandbox.Process // nil if the command could not be executed
	env       []string
	logPath   string
	startedAt time.Time
	ctx       context.Context // ends with the process
	cancel    context.CancelFunc
	asked     sync.Once // SIGTERM is sent once

	// owned by the pod's goroutine
	exited   bool
	exit     sandbox.Exit
	reason   string // why it ended, if the exit code does not tell
	message  string
	hookDone bool
	started  bool
	ready    bool
}

func (c *container) alive() bool { return c.run != nil && !c.run.exited }

func (c *container) isStarted() bool { return c.alive() && c.run.started }

func (c *container) succeeded() bool { return c.run != nil && c.run.exited && c.run.exit.Code == 0 }

// restartable tells whether a container that has ended is to run again.
func (p *pod) restartable(c *container) bool {
	if c.kind == sidecar {
		return true
	}
	if c.kind == initContainer && c.run.exit.Code == 0 {
		return false
	}
	for _, rule := range c.spec.RestartPolicyRules {
		if rule.Action == v1.ContainerRestartRuleActionRestart && matches(rule.ExitCodes, int32(c.run.exit.Code)) {
			return true
		}
	}
	policy := p.obj.Spec.RestartPolicy
	if c.spec.RestartPolicy != nil {
		policy = v1.RestartPolicy(*c.spec.RestartPolicy)
	}
	return policy == v1.RestartPolicyAlways || policy == v1.RestartPolicyOnFailure && c.run.exit.Code != 0
}

func matches(codes *v1.ContainerRestartRuleOnExitCodes, code int32) bool {
	if codes == nil {
		return false
	}
	return slices.Contains(codes.Values, code) == (codes.Operator == v1.ContainerRestartRuleOnExitCodesOpIn)
}

// keep starts a container that should run and does not.
func (p *pod) keep(c *container) {
	if c.starting || c.alive() || c.run != nil && !p.restartable(c) {
		return
	}
	if wait := time.Until(c.notBefore); wait > 0 {
		p.wakeIn(wait)
		return
	}
	c.starting = true
	obj, vs := p.obj, p.volumes
	attempt := c.restarts
	if c.run != nil {
		attempt++
	}
	p.wg.Go(func() {
		r, err := p.launch(obj, c.spec, vs, attempt)
		p.post(func() { p.launched(c, r, err) })
	})
}

// launch starts a container's process. An error means that the pod or something it refers to must change first.
func (p *pod) launch(obj *v1.Pod, spec *v1.Container, vs *volumes, attempt int32) (*run, error) {
	ctx, cancel := context.WithTimeout(p.ctx, requestTimeout)
	defer cancel()
	vars, err := p.environment(ctx, obj, spec)
	if err != nil {
		return nil, err
	}
	mounts, err := vs.mounts(spec, vars)
	if err != nil {
		return nil, err
	}
	box := sandbox.Spec{
		Root:     filepath.Join(p.dir, "roots", spec.Name+"-"+strconv.Itoa(int(attempt))),
		Argv:     p.expandAll(append(slices.Clone(spec.Command), spec.Args...), vars),
		Env:      p.list(vars),
		Dir:      spec.WorkingDir,
		Hostname: hostname(obj),
		Mounts:   mounts,
	}
	if s := spec.SecurityContext; s != nil {
		box.ReadOnlyRoot = isTrue(s.ReadOnlyRootFilesystem)
	}
	if err := p.let.applyImage(&box, spec); err != nil {
		return nil, err
	}
	r := &run{pod: p, spec: spec, env: box.Env, logPath: p.logPath(obj, spec.Name, attempt)}
	out, err := openLog(r.logPath, box.Root)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := p.ctx.Err(); err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(p.ctx)
	r.proc, err = sandbox.Start(box, out)
	r.startedAt = time.Now()
	if err != nil {
		r.exited, r.reason, r.message = true, "StartError", err.Error()
		r.exit = sandbox.Exit{Code: startErrorCode, At: r.startedAt}
		r.cancel()
	}
	return r, nil
}

// applyImage lets the program that stands for the container's image appear in it.
func (l *Processlet) applyImage(box *sandbox.Spec, spec *v1.Container) error {
	image, known := l.image(spec.Image)
	if known {
		if _, err := os.Stat(image.Binary); err != nil {
			return fmt.Errorf("image %s stands for a program that is not there: %w", spec.Image, err)
		}
		box.Binaries = map[string]string{image.Entrypoint: image.Binary}
		for _, name := range image.Beside {
			box.Binaries[filepath.Join(filepath.Dir(image.Entrypoint), name)] = filepath.Join(filepath.Dir(image.Binary), name)
		}
		if len(spec.Command) == 0 {
			box.Argv = append([]string{image.Entrypoint}, box.Argv...)
		}
		return nil
	}
	// An unknown image has an unknown entrypoint: arguments that look like flags of one are dropped, others are a command, as for busybox.
	if len(spec.Command) == 0 && len(box.Argv) > 0 && strings.HasPrefix(box.Argv[0], "-") {
		box.Argv = nil
	}
	return nil
}

func (p *pod) logPath(obj *v1.Pod, container string, attempt int32) string {
	return filepath.Join(p.let.cfg.Logs, fmt.Sprintf("%s_%s_%s", obj.Namespace, obj.Name, obj.UID), container, fmt.Sprintf("%d.log", attempt))
}

func openLog(path, root string) (*os.File, error) {
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.MkdirAll(root, 0o755)); err != nil {
		return nil, fmt.Errorf("make a container's directories: %w", err)
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open a container's log: %w", err)
	}
	return out, nil
}

// launched takes the result of launch.
func (p *pod) launched(c *container, r *run, err error) {
	c.starting = false
	if err != nil {
		c.notBefore = time.Now().Add(configRetry)
		c.waitReason = "CreateContainerConfigError"
		if c.waitMessage != err.Error() && p.ctx.Err() == nil {
			c.waitMessage = err.Error()
			p.eventf(v1.EventTypeWarning, "Failed", "Container %s: %v", c.spec.Name, err)
		}
		return
	}
	c.waitReason, c.waitMessage = "", ""
	if c.run != nil {
		c.previous = c.run
		c.restarts++
	}
	c.run = r
	if r.proc == nil {
		p.eventf(v1.EventTypeWarning, "Failed", "Container %s: %s", c.spec.Name, r.message)
		c.backOff()
		return
	}
	p.eventf(v1.EventTypeNormal, "Started", "Container %s started, process %d", c.spec.Name, r.proc.Pid())
	p.wg.Go(func() {
		<-r.proc.Done()
		p.post(func() { p.ended(c, r) })
	})
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PostStart == nil {
		p.hookDone(c, r)
		return
	}
	p.wg.Go(func() {
		err := r.hook(r.ctx, c.spec.Lifecycle.PostStart)
		p.post(func() {
			if err != nil && !r.exited {
				p.eventf(v1.EventTypeWarning, "FailedPostStartHook", "Container %s: %v", c.spec.Name, err)
				p.restart(r, p.specGrace())
				return
			}
			p.hookDone(c, r)
		})
	})
}

// hookDone goes on after the postStart hook: probes begin.
func (p *pod) hookDone(c *container, r *run) {
	r.hookDone = true
	if c.spec.StartupProbe == nil {
		p.markStarted(c, r)
		return
	}
	p.wg.Go(func() { r.probeStartup(c.spec.StartupProbe) })
}

// markStarted goes on after the startup probe: the container counts as started, the other probes begin.
func (p *pod) markStarted(c *container, r *run) {
	if r.exited || r.started {
		return
	}
	r.started = true
	if c.spec.ReadinessProbe == nil {
		r.ready = true
	} else {
		p.wg.Go(func() { r.probeReadiness(c.spec.ReadinessProbe) })
	}
	if c.spec.LivenessProbe != nil {
		p.wg.Go(func() { r.probeLiveness(c.spec.LivenessProbe) })
	}
}

// ended takes note that a run is over.
func (p *pod) ended(c *container, r *run) {
	r.cancel()
	r.exited, r.started, r.ready = true, false, false
	r.exit = r.proc.Exit()
	if r == c.run {
		c.backOff()
	}
}

// backOff decides how soon the container may run again.
func (c *container) backOff() {
	if c.run.exit.At.Sub(c.run.startedAt) >= healthyRun {
		c.crashes = 0
	}
	delay := backoff(c.crashes)
	c.crashes++
	c.notBefore = c.run.exit.At.Add(delay)
	if delay > 0 {
		c.waitReason = "CrashLoopBackOff"
		c.waitMessage = fmt.Sprintf("back-off %s restarting failed container=%s", delay, c.spec.Name)
	}
}

func backoff(crashes int) time.Duration {
	if crashes == 0 {
		return 0
	}
	return min(firstBackoff<<min(crashes-1, 10), maxBackoff)
}

func (p *pod) signalAll(s syscall.Signal) error {
	var failed error
	for _, c := range p.containers {
		if c.alive() {
			failed = errors.Join(failed, c.run.proc.SignalAll(s))
		}
	}
	return failed
}
