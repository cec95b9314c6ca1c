//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// foreignLock is a Deployment whose lock is somebody else's Lease.
const foreignLock = `
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: taken}
spec: {holderIdentity: somebody}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {elector.io/enabled: "true", elector.io/lock: taken}
    spec:
      containers: [{name: app, image: app, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: single, annotations: {elector.io/enabled: "true", elector.io/lock: taken}}
spec:
  containers: [{name: app, image: app, command: [sleep, "3600"]}]
`

// TestRefusalIsTold holds that who looks at the workload learns why its pods get no leader, and what to do.
func TestRefusalIsTold(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	create := cluster.Kubectl(t.Context(), "-n", s.name, "create", "-f", "-")
	create.Stdin = strings.NewReader(foreignLock)
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, kind := range []string{"Deployment", "Pod"} {
		eventually(t, "the Event on the "+kind, func(ctx context.Context) error {
			events, err := cluster.Client().CoreV1().Events(s.name).List(ctx, metav1.ListOptions{
				FieldSelector: "involvedObject.kind=" + kind + ",reason=LockNotGranted",
			})
			if err != nil {
				return err
			}
			for _, e := range events.Items {
				if e.Type == "Warning" && strings.Contains(e.Message, "Lease "+s.name+"/taken exists and is not elector's") {
					return nil
				}
			}
			return fmt.Errorf("there are %d others", len(events.Items))
		})
	}
	// What kubectl describe shows is matched by UID as well.
	if out := s.kubectl("describe", "deployment", "web"); !strings.Contains(out, "LockNotGranted") {
		t.Errorf("kubectl describe deployment does not show it:\n%s", out)
	}
}
