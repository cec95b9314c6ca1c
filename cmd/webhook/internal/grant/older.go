package grant

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Managers before inject.DefaultLock called the lock of a workload in
// leader-for-life after the workload alone. Pods that they injected keep that
// lock, and those of the same workload that are injected now have another: both
// would have a leader. So of the two names the one that is granted first stays, and
// the other waits until that one's pods are gone. A manager that is away grants
// nothing, which is safe, too.

// withheld says why a lock must not be granted yet, given what the cache has about
// it, or is empty. again is when to ask again, 0 if there will be news. What is
// granted already is not taken back: a leader may have it.
//
// The caller holds the pair's lock, so that the two names are judged, and granted,
// one after the other. What was granted then is read from the API server, as the
// cache may not have it yet.
func (g *Granter) withheld(ctx context.Context, l lock, have state) (reason string, again time.Duration, err error) {
	if have.role != nil || l.Mode != elector.ModeLeaderForLife {
		return "", 0, nil
	}
	if old, ok := olderLock(l); ok && slices.ContainsFunc(have.pods, byDefault) && slices.ContainsFunc(g.Candidates.OfLock(old), isOlder) {
		return fmt.Sprintf("%s is not granted as a lock yet: pods that an older manager injected contend for %s, and each would have a leader. It is granted when they are gone; or let all contend for one, with the annotation %s%s: %s",
			l, old, inject.Prefix, elector.FieldLock, old.Name), 0, nil
	}
	today := newerLock(l)
	if !slices.ContainsFunc(have.pods, isOlder) || !slices.ContainsFunc(g.Candidates.OfLock(today), byDefault) {
		return "", 0, nil
	}
	var granted metav1.PartialObjectMetadata
	granted.SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind("Role"))
	err = g.Live.Get(ctx, client.ObjectKey{Namespace: today.Namespace, Name: roleName(today)}, &granted)
	switch {
	case apierrors.IsNotFound(err):
		return "", 0, nil
	case err != nil:
		return "", 0, fmt.Errorf("reading the role of %s: %w", today, err)
	}
	return fmt.Sprintf("%s is not granted as a lock yet: an older manager injected the pod, and pods of today contend for %s, so each would have a leader. It is granted when they are gone; make the pod anew to have it contend with them",
		l, today), maxRefusedPause, nil
}

// pairs are the locks that withheld asks its caller to hold: one for both names of
// a workload's lock, and by chance for others'.
type pairs [64]sync.Mutex

func (p *pairs) lock(l lock) (unlock func()) {
	if old, ok := olderLock(l); ok {
		l = old
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, l.String()) // never fails
	one := &p[h.Sum32()%uint32(len(p))]
	one.Lock()
	return one.Unlock
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

// newerLock is the lock that is called today what l was called by older managers.
func newerLock(l lock) lock {
	l.Name = inject.DefaultLock(l.Name, l.Mode)
	return l
}

func byDefault(pod candidates.Pod) bool { return pod.LockBy == inject.LockByDefault }

// isOlder reports whether the pod may contend for a lock that nobody chose, and
// that would be called otherwise today.
func isOlder(pod candidates.Pod) bool {
	return pod.Contends() && pod.LockBy == "" && pod.Lock.Mode == elector.ModeLeaderForLife
}

// olderPods is the source of locks that may have been withheld because of a pod
// that an older manager injected.
func olderPods() locks.Watched {
	watched := candidates.Watched(isOlder, nil)
	about := watched.Locks
	watched.Locks = func(obj client.Object) []lock {
		of := about(obj)
		for i := range of {
			of[i] = newerLock(of[i])
		}
		return of
	}
	return watched
}
