package processlet

import (
	"context"
	"fmt"
	"runtime"
	"time"

	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Heartbeats as a kubelet sends them: a Lease of 40 s, renewed every 10 s.
const (
	heartbeatEvery   = 10 * time.Second
	heartbeatSeconds = int32(40)
)

// podsPerNode is what a node reports as its capacity. Nothing enforces it.
const podsPerNode = "1000"

func (l *Processlet) registerNodes(ctx context.Context) error {
	version, err := l.cfg.Client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("ask for the API server's version: %w", err)
	}
	for _, n := range l.cfg.Nodes {
		node, err := l.cfg.Client.CoreV1().Nodes().Create(ctx, nodeObject(n), metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("register node %s: %w", n.Name, err)
		}
		node.Status = nodeStatus(n, version.GitVersion)
		node, err = l.cfg.Client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("report node %s ready: %w", n.Name, err)
		}
		// Admission taints every new node until it is Ready. The node lifecycle controller would take the taint away a moment later.
		patch := []byte(`{"spec":{"taints":null}}`)
		if _, err := l.cfg.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("remove the taint of node %s: %w", n.Name, err)
		}
		if err := l.createLease(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

func nodeObject(n Node) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{
		v1.LabelHostname:   n.Name,
		v1.LabelOSStable:   "linux",
		v1.LabelArchStable: runtime.GOARCH,
	}}}
}

func nodeStatus(n Node, version string) v1.NodeStatus {
	capacity := v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory:           resource.MustParse("16Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
		v1.ResourcePods:             resource.MustParse(podsPerNode),
	}
	now := metav1.Now()
	condition := func(t v1.NodeConditionType, s v1.ConditionStatus, reason string) v1.NodeCondition {
		return v1.NodeCondition{Type: t, Status: s, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	return v1.NodeStatus{
		Capacity:    capacity,
		Allocatable: capacity,
		Conditions: []v1.NodeCondition{
			condition(v1.NodeMemoryPressure, v1.ConditionFalse, "KubeletHasSufficientMemory"),
			condition(v1.NodeDiskPressure, v1.ConditionFalse, "KubeletHasNoDiskPressure"),
			condition(v1.NodePIDPressure, v1.ConditionFalse, "KubeletHasSufficientPID"),
			condition(v1.NodeReady, v1.ConditionTrue, "KubeletReady"),
		},
		Addresses: []v1.NodeAddress{
			{Type: v1.NodeInternalIP, Address: n.Kubelet.Addr().String()},
			{Type: v1.NodeHostName, Address: n.Name},
		},
		DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: int32(n.Kubelet.Port())}},
		NodeInfo: v1.NodeSystemInfo{
			OperatingSystem: "linux", Architecture: runtime.GOARCH, OSImage: "embedded cluster",
			KubeletVersion: version, ContainerRuntimeVersion: "process://1",
		},
	}
}

func (l *Processlet) createLease(ctx context.Context, node *v1.Node) error {
	seconds, now := heartbeatSeconds, metav1.NowMicro()
	lease := &coordination.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, Namespace: v1.NamespaceNodeLease, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}},
		Spec: coordination.LeaseSpec{HolderIdentity: &node.Name, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
	if _, err := l.cfg.Client.CoordinationV1().Leases(v1.NamespaceNodeLease).Create(ctx, lease, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the lease of node %s: %w", node.Name, err)
	}
	return nil
}

// heartbeat renews the nodes' leases until ctx ends.
func (l *Processlet) heartbeat(ctx context.Context) {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, n := range l.cfg.Nodes {
			patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
			_, err := l.cfg.Client.CoordinationV1().Leases(v1.NamespaceNodeLease).Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
			if err != nil && ctx.Err() == nil {
				l.logger.Error(err, "Heartbeat failed", "node", n.Name)
			}
		}
	}
}
