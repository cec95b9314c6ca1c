package role

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
)

const (
	// patience is how many failures in a row a pod has before its lock's leader waits
	// for it no more: with the pauses between them some three seconds, which an API
	// server may well need to recover.
	patience = 3
	// firstPause is after a pod's first failure; it doubles up to longestPause. What
	// makes requests fail may be the pod itself, and its author may want them sent.
	firstPause, longestPause = time.Second, 2 * time.Minute
)

// failing knows the pods whose label could not be written, during one claim of the
// manager. It holds no pod that it was not told to keep. The zero value is ready.
type failing struct {
	mu   sync.Mutex
	pods map[locks.Lock]map[types.UID]failure
}

type failure struct {
	inARow int
	due    time.Time // when the pod is to be tried again
}

// note takes down that the pod failed, and returns how often in a row it has.
func (f *failing) note(pod candidates.Pod) (inARow int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pods == nil {
		f.pods = map[locks.Lock]map[types.UID]failure{}
	}
	if f.pods[pod.Lock] == nil {
		f.pods[pod.Lock] = map[types.UID]failure{}
	}
	inARow = f.pods[pod.Lock][pod.UID].inARow + 1
	pause := longestPause
	if doubled := firstPause << min(inARow-1, 16); doubled < longestPause {
		pause = doubled
	}
	f.pods[pod.Lock][pod.UID] = failure{inARow, time.Now().Add(pause)}
	return inARow
}

// forget is told that the pod did not fail.
func (f *failing) forget(pod candidates.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods[pod.Lock], pod.UID)
}

// keep forgets those of the lock's pods that are not among the given ones.
func (f *failing) keep(l locks.Lock, pods ...candidates.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pods[l]) > 0 {
		there := map[types.UID]bool{}
		for _, pod := range pods {
			there[pod.UID] = true
		}
		maps.DeleteFunc(f.pods[l], func(uid types.UID, _ failure) bool { return !there[uid] })
	}
	if len(f.pods[l]) == 0 {
		delete(f.pods, l)
	}
}

// inARow is how often the pod failed since it did not.
func (f *failing) inARow(pod candidates.Pod) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pods[pod.Lock][pod.UID].inARow
}

// paused reports whether it is too early to try the pod again.
func (f *failing) paused(pod candidates.Pod) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.pods[pod.Lock][pod.UID].due)
}

// next is how long the first pause lasts of those of the lock's pods; 0 if there
// is none.
func (f *failing) next(l locks.Lock) (pause time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, failed := range f.pods[l] {
		if left := time.Until(failed.due); left > 0 && (pause == 0 || left < pause) {
			pause = left
		}
	}
	return pause
}
