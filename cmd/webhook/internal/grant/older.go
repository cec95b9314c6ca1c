package grant

import (
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Managers before inject.DefaultLock called the lock of a workload in
// leader-for-life after the workload alone. Pods that they injected keep that
// lock, and those of the same workload that are injected now have another: both
// would have a leader. So the new lock is not granted before the old one's pods are
// gone, and until then one of those leads. A manager that is away grants nothing,
// which is safe, too.

// withheld says why a lock must not be granted yet, given the pods that contend
// for it, or is empty.
func withheld(l lock, pods []candidates.Pod, source candidates.Source) string {
	old, ok := olderLock(l)
	if !ok || !slices.ContainsFunc(pods, byDefault) || !slices.ContainsFunc(source.OfLock(old), isOlder) {
		return ""
	}
	return fmt.Sprintf("%s is not granted as a lock yet: pods that an older manager injected contend for %s, and each would have a leader. It is granted when they are gone; or name the lock with the annotation %s%s",
		l, old, inject.Prefix, elector.FieldLock)
}

// olderLock returns the lock that an older manager would have given to the
// workload which has l by default.
func olderLock(l lock) (lock, bool) {
	if l.Mode != elector.ModeLeaderForLife {
		return lock{}, false
	}
	workload, ok := strings.CutSuffix(l.Name, strings.TrimPrefix(inject.DefaultLock("x", l.Mode), "x"))
	return lock{Namespace: l.Namespace, Mode: l.Mode, Name: workload}, ok && workload != ""
}

func byDefault(pod candidates.Pod) bool { return pod.LockBy == inject.LockByDefault }

// isOlder reports whether the pod may contend for a lock that nobody chose, and
// that would be called otherwise today.
func isOlder(pod candidates.Pod) bool {
	return pod.Contends() && pod.LockBy == "" && pod.Lock.Mode == elector.ModeLeaderForLife
}

// olderPods is the source of locks that may have been withheld because of a pod.
func olderPods() locks.Watched {
	watched := candidates.Watched(isOlder, nil)
	about := watched.Locks
	watched.Locks = func(obj client.Object) []lock {
		of := about(obj)
		for i := range of {
			of[i].Name = inject.DefaultLock(of[i].Name, of[i].Mode)
		}
		return of
	}
	return watched
}
