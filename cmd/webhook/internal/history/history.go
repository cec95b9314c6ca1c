// Package history tells who became leader of a lock, after whom and why, where
// people look: with an Event on the leader's pod and on the workload that made it.
//
// # What is told
//
// What was seen. Package role calls when it has labelled another leader, so a lock's
// label is the memory that outlives a manager: a leader that has it when a manager
// begins is not told again, and one that came while no manager watched is told late,
// with what its predecessor's pod still shows. Leaders that came and went between
// two writes of the label are left out, and so are those that are no pods, and one
// whose label a manager wrote that ended before it told.
//
// Who may write a lock may have made the reason up, as they might the leader.
//
// # How often
//
// Of each lock six changes are told, and then one in five minutes, with the number
// of those in between, so that candidates which take turns all day fill no
// namespace. The metric counts all of them. Beyond that the allowances of package
// event bound what is told of a namespace.
package history

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/lru"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

const (
	// atOnce is how many changes of a lock are told one after the other: more than
	// the rollout of a large workload makes. pause is between those after that.
	atOnce, pause = 6, 5 * time.Minute
	// remembered bounds how many locks' allowances are. One that was forgotten begins
	// anew.
	remembered = 4096
	// maxNote is what API servers take, in bytes.
	maxNote = 1024
)

// Config configures a History. All fields are required.
type Config struct {
	// Events writes the Events. It tells the same of the same object as often as it is
	// told to.
	Events events.EventRecorder
	// Metrics registers those of this package.
	Metrics prometheus.Registerer
}

// History tells of leaders.
type History struct {
	events  events.EventRecorder
	changes *prometheus.CounterVec

	mu   sync.Mutex
	told *lru.Cache // *allowance by locks.Lock
}

// allowance is what may be told of a lock.
type allowance struct {
	flowcontrol.PassiveRateLimiter
	untold int // since the last that was
}

// New validates the configuration.
func New(c Config) (*History, error) {
	if c.Events == nil || c.Metrics == nil {
		return nil, errors.New("history needs an event recorder and a registerer of metrics")
	}
	h := &History{
		events: c.Events, told: lru.New(remembered),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elector_webhook_leader_changes_total",
			Help: "Leaders of locks that were labelled after another one, by reason.",
		}, []string{"reason"}),
	}
	for _, r := range reasons {
		h.changes.WithLabelValues(string(r))
	}
	if err := c.Metrics.Register(h.changes); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return h, nil
}

// Became tells of a change.
func (h *History) Became(c Change) {
	why := c.reason()
	h.changes.WithLabelValues(string(why)).Inc()
	skipped, ok := h.allow(c.Lock)
	if !ok {
		return
	}
	note := c.note(why)
	if skipped > 0 {
		note += fmt.Sprintf("; %d changes before it were not told", skipped)
	}
	h.events.Eventf(c.Leader.Object(), c.Lock.At(c.Version), corev1.EventTypeNormal, "BecameLeader", "Elect", "%s", cut(note))
}

// allow reports whether a change of the lock may be told, and how many were not
// since the last one.
func (h *History) allow(l locks.Lock) (skipped int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known, found := h.told.Get(l)
	if !found {
		known = &allowance{PassiveRateLimiter: flowcontrol.NewTokenBucketPassiveRateLimiter(float32(1/pause.Seconds()), atOnce)}
		h.told.Add(l, known)
	}
	a := known.(*allowance)
	if !a.TryAccept() {
		a.untold++
		return 0, false
	}
	skipped, a.untold = a.untold, 0
	return skipped, true
}

// Change is another leader of a lock.
type Change struct {
	Lock locks.Lock
	// Version is that of the lock's object.
	Version string
	Leader  candidates.Pod
	// Parting is how the holder before it lost the lock, if that was seen.
	Parting locks.Parting
	// Before is the pod of the leader before, as it was seen last; none if there was
	// none, or nobody knows.
	Before candidates.Pod
	// Gone tells that it is there no more.
	Gone bool
}

// reason is why a leader came, in the metric.
type reason string

const (
	// first is that nobody led before, as far as is known.
	first reason = "first"
	// rollout and deleted are that the pod before it was deleted, in favour of another
	// version of its workload or not.
	rollout reason = "rollout"
	deleted reason = "deleted"
	// ended is that it has failed, or done its work.
	ended reason = "ended"
	// expired is that it did not renew.
	expired reason = "expired"
	// released is that it released the lock, or that somebody else did: asked by its
	// application, or evicted, which its pod tells later.
	released reason = "released"
	// switchover is that somebody asked for it, and unfit that package fit did.
	switchover reason = "switchover"
	unfit      reason = "unfit"
	// unseen is that no manager watched.
	unseen reason = "unseen"
)

var reasons = []reason{first, rollout, deleted, ended, expired, released, switchover, unfit, unseen}

func (c Change) reason() reason {
	known := c.Before != candidates.Pod{}
	if c.Parting.Holder != "" && c.Before.Identity() != c.Parting.Holder {
		known = false // it held the lock for too short a time to be labelled, or is no pod
	}
	switch {
	case c.Parting.How == locks.Unseen && !known:
		return first
	case c.Parting.Asked && strings.HasPrefix(c.Parting.Why, locks.WhyUnfit):
		return unfit
	case c.Parting.Asked:
		return switchover
	case c.Parting.How == locks.Taken:
		return expired
	case known && (c.Gone || c.Before.Deleting):
		if c.Leader.Revision != "" && c.Before.Revision != "" && c.Leader.Revision != c.Before.Revision {
			return rollout
		}
		return deleted
	case known && c.Before.Ended():
		return ended
	case c.Parting.How == locks.Unseen:
		return unseen
	}
	return released
}

// note is the sentence for people.
func (c Change) note(why reason) string {
	before := c.Before.Name
	if c.Parting.Holder != "" {
		before = elector.NameOf(c.Parting.Holder)
	}
	if len(validation.IsDNS1123Subdomain(before)) > 0 {
		before = strconv.Quote(before) // somebody else's word
	}
	became := c.Leader.Name + " became leader of " + c.Lock.String()
	after := became + " after " + before
	switch why {
	case first:
		return became + ": nobody led before, as far as is known"
	case rollout:
		return after + ", which was deleted in a rollout"
	case deleted:
		return after + ", which was deleted"
	case ended:
		return after + ", which has ended with phase " + string(c.Before.Phase)
	case expired:
		return after + ", which did not renew the lock in time"
	case switchover:
		return after + asked(" on request", c.Parting.Why)
	case unfit:
		return after + asked(", which was not fit", strings.TrimPrefix(c.Parting.Why, locks.WhyUnfit))
	case unseen:
		return after + ", while no manager watched"
	case released:
	}
	switch {
	case c.Parting.How == locks.Emptied:
		return after + ", whom somebody took out of the lock"
	case c.Parting.How == locks.Deleted && c.Lock.Mode == elector.ModeLease:
		return after + ", whose lock was deleted"
	}
	return after + ", which released the lock"
}

// asked adds what somebody asked for the handover for.
func asked(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + strconv.Quote(why)
}

// cut is the note as far as API servers take it.
func cut(note string) string {
	return strings.ToValidUTF8(note[:min(len(note), maxNote)], "")
}
