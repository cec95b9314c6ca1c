package processlet

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// report sends the pod's status if it is not what the API knows. One request is under way at a time; what changes meanwhile is sent after it.
func (p *pod) report() {
	if p.sending || p.deleting {
		return
	}
	status := p.status()
	if p.sent != nil && equality.Semantic.DeepEqual(status, *p.sent) {
		return
	}
	p.sending = true
	p.wg.Go(func() {
		err := p.send(status)
		p.post(func() {
			p.sending = false
			switch {
			case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
				// Not found, or another pod of that name: the watch will tell.
				p.sent = &status
			case p.ctx.Err() == nil:
				p.logger.Error(err, "Status not reported, will be tried again")
				p.sending = true
				p.later(requestRetry, func() { p.sending = false })
			}
		})
	})
}

// send patches the status, so that labels and others' conditions stay as they are.
func (p *pod) send(status v1.PodStatus) error {
	ctx, cancel := context.WithTimeout(p.ctx, requestTimeout)
	defer cancel()
	patch, err := statusPatch(p.uid, status)
	if err != nil {
		return err
	}
	_, err = p.let.cfg.Client.CoreV1().Pods(p.name.Namespace).Patch(ctx, p.name.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// statusPatch makes a strategic merge patch that holds for this very pod. Conditions are merged by type, so what a condition no longer
// says must be said to be gone.
func statusPatch(uid types.UID, status v1.PodStatus) ([]byte, error) {
	encoded, err := json.Marshal(status)
	if err != nil {
		return nil, fmt.Errorf("encode a status: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(encoded, &fields); err != nil {
		return nil, fmt.Errorf("encode a status: %w", err)
	}
	conditions, _ := fields["conditions"].([]any)
	for _, c := range conditions {
		condition, ok := c.(map[string]any)
		if !ok {
			continue
		}
		for _, key := range []string{"reason", "message"} {
			if _, ok := condition[key]; !ok {
				condition[key] = nil
			}
		}
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid}, "status": fields})
}

// status is what there is to report.
func (p *pod) status() v1.PodStatus {
	// A deletion counts as a new generation. It alone is no news: the status that follows it is.
	if p.stop == nil {
		p.generation = p.obj.Generation
	}
	s := v1.PodStatus{
		Phase:              p.phase(),
		StartTime:          &p.startTime,
		ObservedGeneration: p.generation,
		QOSClass:           p.obj.Status.QOSClass,
	}
	if p.wire.IsValid() {
		ip, host := p.let.cfg.Range.Reported(p.wire).String(), p.node.Kubelet.Addr().String()
		s.PodIP, s.PodIPs = ip, []v1.PodIP{{IP: ip}}
		s.HostIP, s.HostIPs = host, []v1.HostIP{{IP: host}}
	}
	if p.stop != nil && s.Phase == v1.PodFailed {
		s.Reason, s.Message = p.stop.reason, p.stop.message
	}
	for _, c := range p.containers {
		if c.kind == app {
			s.ContainerStatuses = append(s.ContainerStatuses, p.containerStatus(c))
		} else {
			s.InitContainerStatuses = append(s.InitContainerStatuses, p.containerStatus(c))
		}
	}
	s.Conditions = p.podConditions(s)
	return s
}

// phase sums the containers up, as the kubelet does. A pod is in a final phase only when all of its containers have ended.
func (p *pod) phase() v1.PodPhase {
	allEnded, anyRan, failed := true, false, false
	for _, c := range p.containers {
		if c.starting || c.alive() {
			allEnded = false
		}
		if c.kind == app && c.run != nil {
			anyRan = true
		}
		if c.kind != sidecar && (c.run == nil || c.run.exit.Code != 0) {
			failed = true
		}
	}
	switch {
	case p.stop != nil && p.stop.done && allEnded && (failed || p.stop.reason != ""):
		return v1.PodFailed
	case p.stop != nil && p.stop.done && allEnded:
		return v1.PodSucceeded
	case !p.initialized || !anyRan:
		return v1.PodPending
	}
	return v1.PodRunning
}

func (p *pod) containerStatus(c *container) v1.ContainerStatus {
	s := v1.ContainerStatus{Name: c.spec.Name, Image: c.spec.Image, ImageID: "process://" + c.spec.Image, RestartCount: c.restarts}
	started := c.isStarted()
	s.Started = &started
	if c.run != nil && c.run.proc != nil {
		s.ContainerID = fmt.Sprintf("process://%d", c.run.proc.Pid())
	}
	switch {
	case c.alive():
		s.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(c.run.startedAt)}
		s.Ready = c.run.started && c.run.ready
	case c.run == nil:
		s.State.Waiting = p.waiting(c)
	case p.stop == nil && c.waitReason != "" && p.restartable(c):
		s.State.Waiting = p.waiting(c)
		s.LastTerminationState.Terminated = c.run.terminated()
	default:
		s.State.Terminated = c.run.terminated()
		s.Ready = c.kind == initContainer && c.succeeded()
	}
	if c.previous != nil && s.LastTerminationState.Terminated == nil {
		s.LastTerminationState.Terminated = c.previous.terminated()
	}
	return s
}

func (p *pod) waiting(c *container) *v1.ContainerStateWaiting {
	switch {
	case c.waitReason != "":
		return &v1.ContainerStateWaiting{Reason: c.waitReason, Message: c.waitMessage}
	case p.waitMessage != "":
		return &v1.ContainerStateWaiting{Reason: "ContainerCreating", Message: p.waitMessage}
	case c.kind == app && !p.initialized && len(p.obj.Spec.InitContainers) > 0:
		return &v1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return &v1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

func (r *run) terminated() *v1.ContainerStateTerminated {
	t := &v1.ContainerStateTerminated{
		ExitCode:   int32(r.exit.Code),
		Reason:     r.reason,
		Message:    r.message,
		StartedAt:  metav1.NewTime(r.startedAt),
		FinishedAt: metav1.NewTime(r.exit.At),
	}
	if r.proc != nil {
		t.ContainerID = fmt.Sprintf("process://%d", r.proc.Pid())
	}
	if t.Reason == "" {
		t.Reason = "Error"
		if r.exit.Code == 0 {
			t.Reason = "Completed"
		}
	}
	return t
}

// podConditions are the conditions a kubelet owns. One keeps its time of transition while its status stays.
func (p *pod) podConditions(s v1.PodStatus) []v1.PodCondition {
	final := s.Phase == v1.PodSucceeded || s.Phase == v1.PodFailed
	reason := map[v1.PodPhase]string{v1.PodSucceeded: "PodCompleted", v1.PodFailed: "PodFailed"}[s.Phase]
	containersReady := !final && allReady(s)
	if !final && !containersReady {
		reason = "ContainersNotReady"
	}
	initReason := ""
	if !p.initialized && !final {
		initReason = "ContainersNotInitialized"
	}
	return []v1.PodCondition{
		p.condition(v1.PodScheduled, true, ""),
		p.condition(v1.PodReadyToStartContainers, p.volumes != nil && !final, ""),
		p.condition(v1.PodInitialized, p.initialized, initReason),
		p.condition(v1.ContainersReady, containersReady, reason),
		p.condition(v1.PodReady, containersReady && p.gatesOpen(), reason),
	}
}

func allReady(s v1.PodStatus) bool {
	for _, c := range s.ContainerStatuses {
		if !c.Ready {
			return false
		}
	}
	for _, c := range s.InitContainerStatuses {
		if !c.Ready {
			return false
		}
	}
	return true
}

func (p *pod) gatesOpen() bool {
	for _, gate := range p.obj.Spec.ReadinessGates {
		open := false
		for _, c := range p.obj.Status.Conditions {
			if c.Type == gate.ConditionType && c.Status == v1.ConditionTrue {
				open = true
			}
		}
		if !open {
			return false
		}
	}
	return true
}

func (p *pod) condition(t v1.PodConditionType, is bool, reason string) v1.PodCondition {
	status := v1.ConditionFalse
	if is {
		status = v1.ConditionTrue
	}
	c := p.conditions[t]
	if c.Status != status {
		c = v1.PodCondition{Type: t, Status: status, LastTransitionTime: metav1.Now()}
	}
	c.Reason, c.ObservedGeneration = reason, p.generation
	p.conditions[t] = c
	return c
}
