package processlet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// retryUnbound is how often pods that fit no node are looked at again, should no change of a node have come before.
const retryUnbound = time.Second

// scheduler binds pods to the node with the fewest of them, among those that the pod's node selector, node affinity and tolerations
// allow. Resources, pod affinity and spread constraints play no part.
type scheduler struct {
	let         *Processlet
	nodes       corelisters.NodeLister
	nodesSynced cache.InformerSynced
	wake        chan struct{}

	mu      sync.Mutex
	pending map[types.UID]*v1.Pod
	bound   map[types.UID]string // pod to node
}

func newScheduler(l *Processlet, factory informers.SharedInformerFactory) *scheduler {
	nodes := factory.Core().V1().Nodes()
	return &scheduler{let: l, nodes: nodes.Lister(), nodesSynced: nodes.Informer().HasSynced, wake: make(chan struct{}, 1),
		pending: map[types.UID]*v1.Pod{}, bound: map[types.UID]string{}}
}

// enqueue takes note of a pod without a node.
func (s *scheduler) enqueue(pod *v1.Pod) {
	if pod.Spec.SchedulerName != v1.DefaultSchedulerName || len(pod.Spec.SchedulingGates) > 0 || pod.DeletionTimestamp != nil {
		return
	}
	s.mu.Lock()
	s.pending[pod.UID] = pod
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// assigned takes note of a pod on a node. One that has ended does not count.
func (s *scheduler) assigned(pod *v1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, pod.UID)
	if pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
		delete(s.bound, pod.UID)
		return
	}
	s.bound[pod.UID] = pod.Spec.NodeName
}

func (s *scheduler) removed(pod *v1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, pod.UID)
	delete(s.bound, pod.UID)
}

// run binds pods until ctx ends.
func (s *scheduler) run(ctx context.Context) {
	retry := time.NewTicker(retryUnbound)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-retry.C:
		}
		for _, pod := range s.take() {
			if err := s.bind(ctx, pod); err != nil && ctx.Err() == nil {
				s.let.logger.Error(err, "Binding failed, will be tried again", "pod", pod.Namespace+"/"+pod.Name)
				s.mu.Lock()
				s.pending[pod.UID] = pod
				s.mu.Unlock()
			}
		}
	}
}

func (s *scheduler) take() []*v1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	pods := make([]*v1.Pod, 0, len(s.pending))
	for _, pod := range s.pending {
		pods = append(pods, pod)
	}
	s.pending = map[types.UID]*v1.Pod{}
	return pods
}

func (s *scheduler) bind(ctx context.Context, pod *v1.Pod) error {
	nodes, err := s.nodes.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	s.mu.Lock()
	node := choose(pod, nodes, s.bound)
	if node != "" {
		s.bound[pod.UID] = node
	}
	s.mu.Unlock()
	if node == "" {
		return s.reportUnschedulable(ctx, pod)
	}
	err = s.let.cfg.Client.CoreV1().Pods(pod.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err == nil {
		return nil
	}
	s.mu.Lock()
	delete(s.bound, pod.UID)
	s.mu.Unlock()
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // deleted, recreated or bound by someone else: a watch event tells which
	}
	return fmt.Errorf("bind to %s: %w", node, err)
}

// reportUnschedulable says once on the pod why it has no node, and keeps it for the next round.
func (s *scheduler) reportUnschedulable(ctx context.Context, pod *v1.Pod) error {
	s.mu.Lock()
	s.pending[pod.UID] = pod
	s.mu.Unlock()
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Reason == v1.PodReasonUnschedulable {
			return nil
		}
	}
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":%q,"message":%q,"lastTransitionTime":%q}]}}`,
		pod.UID, v1.PodReasonUnschedulable, "no node fits the pod's node selector, node affinity and tolerations", time.Now().UTC().Format(time.RFC3339))
	_, err := s.let.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("report a pod that fits no node: %w", err)
	}
	return nil
}

// choose returns the name of the best node for a pod, or "".
func choose(pod *v1.Pod, nodes []*v1.Node, bound map[types.UID]string) string {
	load := map[string]int{}
	for _, node := range bound {
		load[node]++
	}
	best := ""
	for _, node := range nodes {
		if !fits(pod, node) {
			continue
		}
		if best == "" || load[node.Name] < load[best] || load[node.Name] == load[best] && node.Name < best {
			best = node.Name
		}
	}
	return best
}

func fits(pod *v1.Pod, node *v1.Node) bool {
	match, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
	if err != nil || !match {
		return false
	}
	taints := node.Spec.Taints
	if node.Spec.Unschedulable {
		taints = append(slices.Clip(taints), v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule})
	}
	hard := func(t *v1.Taint) bool { return t.Effect != v1.TaintEffectPreferNoSchedule }
	_, untolerated := scheduling.FindMatchingUntoleratedTaint(klog.Background(), taints, pod.Spec.Tolerations, hard, false)
	return !untolerated
}
