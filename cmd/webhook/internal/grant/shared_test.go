package grant

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/inject"
)

func TestShared(t *testing.T) {
	byDefault := lockBy(webLease, inject.LockByDefault)
	deployments := injected("web-1", webLease, "web", byDefault, controlled("apps/v1", "ReplicaSet"))
	second := injected("web-2", webLease, "web", byDefault, controlled("apps/v1", "ReplicaSet"))
	cronJobs := injected("web-3", webLease, "web", byDefault, controlled("batch/v1", "Job"))
	bare := injected("web", webLease, "web", byDefault)
	chosen := injected("web-4", webLease, "web", lockBy(webLease, inject.LockByAnnotation), controlled("apps/v1", "StatefulSet"))
	unknown := injected("web-5", webLease, "web", controlled("apps/v1", "StatefulSet"))
	tests := map[string]struct {
		reason string
		pods   []corev1.Pod
		want   []string // what the Events are about, and the kinds
	}{
		"one workload":  {"as it should be", []corev1.Pod{deployments, second}, nil},
		"two":           {"one of them leads, which nobody may have meant", []corev1.Pod{deployments, second, cronJobs}, []string{"Job, ReplicaSet", "Job, ReplicaSet"}},
		"three":         {"all of them are told", []corev1.Pod{bare, deployments, cronJobs}, []string{"Job, Pod, ReplicaSet", "Job, Pod, ReplicaSet", "Job, Pod, ReplicaSet"}},
		"one chose it":  {"it joined the other on purpose", []corev1.Pod{deployments, chosen}, nil},
		"one is silent": {"an older manager did not note it", []corev1.Pod{deployments, unknown}, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for i := range tc.pods {
				must(t, w.client.Create(w.ctx, &tc.pods[i]))
			}
			for range 3 { // said once
				w.pass(webLease)
			}
			if got := w.sharing(); !slices.Equal(got, tc.want) {
				t.Errorf("%s: got %q, want %q", tc.reason, got, tc.want)
			}
		})
	}

	t.Run("again", func(t *testing.T) {
		w := newWorld(t, &deployments, &cronJobs)
		w.pass(webLease)
		must(t, w.client.Delete(w.ctx, &cronJobs))
		w.pass(webLease)
		cronJobs.ResourceVersion = ""
		must(t, w.client.Create(w.ctx, &cronJobs))
		w.pass(webLease)
		if got := w.sharing(); len(got) != 4 {
			t.Errorf("two meetings were told of with %d events", len(got))
		}
		if len(w.shared.told) != 1 {
			t.Errorf("%d locks are remembered", len(w.shared.told))
		}
	})
}

// sharing returns the kinds in the Events about shared locks.
func (w *world) sharing() (kinds []string) {
	w.t.Helper()
	for {
		select {
		case e := <-w.events.Events:
			_, rest, ok := strings.Cut(e, "Warning LockShared Lease shop/web is the lock of workloads of different kinds (")
			if list, _, _ := strings.Cut(rest, ")"); ok {
				kinds = append(kinds, list)
			}
		default:
			return kinds
		}
	}
}
