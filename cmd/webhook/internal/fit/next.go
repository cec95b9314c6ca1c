package fit

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/elector"
)

// nextOf returns what elector.io/next is to say: the fit candidates of the newest
// revision that has any besides the leader, and the leader if it is fit and not of an
// older revision. If there are more than sixteen, the oldest stay; of the leader's own
// StatefulSet the first do, before all others. The same pods make the same list, so a
// cluster at rest needs no writes, and neither does a pod that comes to sixteen that
// stay before it.
//
// A StatefulSet's pods are in their own order: rollouts and scale-downs go from the
// last to the first, so that any but the first may have to hand over again. That is
// written long before one begins, when nobody can be too late with it.
//
// It is empty if nobody but the leader is fit: it could only make somebody wait, as
// the next pod of a workload that has one.
func nextOf(leader candidates.Pod, others []candidates.Pod) string {
	listed := slices.DeleteFunc(slices.Clone(others), func(p candidates.Pod) bool { return !isFit(p) })
	if len(listed) == 0 {
		return ""
	}
	newest := revisionsOf(listed)[0]
	stays := revisionsOf(append(slices.Clone(listed), leader))[0] == leader.Revision
	listed = slices.DeleteFunc(listed, func(p candidates.Pod) bool { return p.Revision != newest })
	if stays && isFit(leader) {
		listed = append(listed, leader)
	}
	// A pod says itself whose it is, so other sets' ordinals do not count here.
	rank := func(p candidates.Pod) int {
		if n, ok := ordinalOf(p); ok && p.Owner == leader.Owner {
			return n
		}
		return math.MaxInt
	}
	slices.SortFunc(listed, func(a, b candidates.Pod) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Created, b.Created), cmp.Compare(a.Name, b.Name))
	})
	listed = listed[:min(len(listed), elector.MaxNext)]
	slices.SortFunc(listed, func(a, b candidates.Pod) int {
		n, _ := ordinalOf(a)
		m, _ := ordinalOf(b)
		return cmp.Or(cmp.Compare(n, m), cmp.Compare(a.Name, b.Name))
	})
	var names []string
	for _, p := range listed {
		names = append(names, p.Name)
	}
	return elector.FormatNext(names)
}

// ordinalOf is the pod's place in its StatefulSet, 0 and false if it has none: because
// no set made it, or because no set would make one of this name, such as web--1.
func ordinalOf(p candidates.Pod) (n int, ok bool) {
	digits, ok := strings.CutPrefix(p.Name, p.Owner.Name+"-")
	if !ok || p.Owner.Kind != "StatefulSet" {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || strconv.Itoa(n) != digits {
		return 0, false // somebody else's pod
	}
	return n, true
}

// revisionsOf returns the revisions of the pods, the newest first: the one with the
// pod that was made last. A workload that went back to an older revision makes new
// pods of it.
func revisionsOf(pods []candidates.Pod) (revisions []string) {
	made := map[string]int64{}
	for _, p := range pods {
		at, ok := made[p.Revision]
		if !ok {
			revisions = append(revisions, p.Revision)
		}
		if !ok || p.Created > at {
			made[p.Revision] = p.Created
		}
	}
	slices.SortFunc(revisions, func(a, b string) int { return cmp.Or(cmp.Compare(made[b], made[a]), cmp.Compare(a, b)) })
	return revisions
}

const (
	// notePause is between two notes on a lock.
	notePause = time.Second
	// A lock gets notesAtOnce notes in a row of pods that come back, and one more each
	// noteEvery: pods that become Ready and unready again and again must not make a
	// write each time. New pods do not count, of which rollouts in a row have many, nor
	// does who is named because another one leads: both cost more than a write already.
	// Who leaves had to come.
	notesAtOnce, noteEvery = 20, 10 * time.Second
)

// notes bound how often a lock is written to.
type notes struct {
	last time.Time // when the last note was written
	full time.Time // when there will be notesAtOnce again
}

// pause is how long to wait with the next one at least.
func (n *notes) pause(now time.Time) time.Duration {
	if n.last.IsZero() {
		return 0
	}
	return max(0, notePause-now.Sub(n.last))
}

// wait is how long to wait with the next one if somebody comes back.
func (n *notes) wait(now time.Time) time.Duration {
	return max(n.pause(now), n.full.Add(-(notesAtOnce-1)*noteEvery).Sub(now))
}

// wrote takes down that one was written, and whether somebody came back.
func (n *notes) wrote(now time.Time, back bool) {
	n.last = now
	if !back {
		return
	}
	if n.full.Before(now) {
		n.full = now
	}
	n.full = n.full.Add(noteEvery)
}

// renewal is the last one of a Lease that was seen at the API server.
type renewal struct {
	at   time.Time // by the holder's clock
	seen time.Time // by ours
}

// overdue returns how soon to look again at a Lease whose holder seems to be dead; 0
// if it does not. Every write to such a lock can cost a candidate that polls, and so
// does not know who wrote, another lease of patience.
func (m *memory) overdue(lock client.Object, now time.Time) time.Duration {
	lease, ok := lock.(*coordinationv1.Lease)
	if !ok || lease.Spec.RenewTime == nil || lease.Spec.LeaseDurationSeconds == nil {
		return 0
	}
	if at := lease.Spec.RenewTime.Time; !at.Equal(m.renewed.at) {
		m.renewed = renewal{at: at, seen: now}
	}
	half := time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second / 2 // holders renew sooner
	if now.Sub(m.renewed.seen) < half {
		return 0
	}
	return min(max(half, notePause), adoptedPause)
}
