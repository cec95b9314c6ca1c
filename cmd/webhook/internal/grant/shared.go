package grant

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// shared tells workloads that meet on a lock which none of them chose: a
// Deployment and a CronJob of one name, say. They are one election then, and
// seldom meant to be.
type shared struct {
	mu   sync.Mutex
	told map[lock]string // what was said last
}

// tell writes an Event on a pod of each kind of workload, and so on the workload,
// if it has not been said yet.
func (s *shared) tell(recorder events.EventRecorder, l lock, pods []candidates.Pod) {
	met := meeting(pods)
	note := ""
	if len(met) > 1 {
		note = fmt.Sprintf("%s is the lock of workloads of different kinds (%s), which have one leader together: name the lock of each with the annotation %s%s, the same if this is meant",
			l, strings.Join(slices.Sorted(maps.Keys(met)), ", "), inject.Prefix, elector.FieldLock)
	}
	if !s.isNews(l, note) {
		return
	}
	for _, kind := range slices.Sorted(maps.Keys(met)) {
		recorder.Eventf(met[kind].Object(), nil, corev1.EventTypeWarning, "LockShared", "Grant", "%s", note)
	}
}

// isNews notes what is to be said about the lock, and reports whether that is
// anything new.
func (s *shared) isNews(l lock, note string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if note == "" {
		delete(s.told, l)
		return false
	}
	if s.told == nil {
		s.told = map[lock]string{}
	}
	old := s.told[l]
	s.told[l] = note
	return old != note
}

// meeting returns the first pod of each kind of controller among those whose lock
// nobody chose. A Deployment's are known by its ReplicaSets.
func meeting(pods []candidates.Pod) map[string]candidates.Pod {
	met := map[string]candidates.Pod{}
	for _, pod := range pods {
		kind := pod.Owner.Kind
		if kind == "" {
			kind = "Pod"
		}
		if first, ok := met[kind]; byDefault(pod) && (!ok || pod.Name < first.Name) {
			met[kind] = pod
		}
	}
	return met
}
