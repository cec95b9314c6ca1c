package inject

import (
	"cmp"
	"encoding/json"
	"time"

	"github.com/elector-io/elector/elector"
)

// HandoverWhen is what must be wrong with a leader's application before the
// manager asks it to hand over.
type HandoverWhen string

const (
	// HandoverBroken is a container that crashes again and again, has ended for good,
	// or cannot be started. The default.
	HandoverBroken HandoverWhen = "broken"
	// HandoverUnready is a pod that is not Ready, or broken.
	HandoverUnready HandoverWhen = "unready"
	// HandoverNever leaves the leader to itself.
	HandoverNever HandoverWhen = "never"
)

const (
	defaultUnreadyFor = 30 * time.Second
	// minUnreadyFor is above what a container takes that is restarted, and
	// maxUnreadyFor catches 30h written for 30m.
	minUnreadyFor, maxUnreadyFor = 5 * time.Second, time.Hour
)

// Failover is when leadership leaves a pod whose application does not work. The
// manager reads it from the pod, whenever it was injected, and also if it was
// annotated since.
type Failover struct {
	When HandoverWhen
	// For is how long without a break.
	For time.Duration
}

var defaultFailover = Failover{When: HandoverBroken, For: defaultUnreadyFor}

// FailoverOf returns what a pod's annotations ask for. What they do not say, or
// what is refused when a pod is made and was written there since, is the default.
// The error says what was, first; the rest is obeyed.
func FailoverOf(annotations map[string]string) (Failover, error) {
	p := plan{failover: defaultFailover}
	var when, unreadyFor error
	if v, ok := annotations[Prefix+keyHandoverWhen]; ok {
		when = readHandoverWhen(&p, v)
	}
	if v, ok := annotations[Prefix+keyUnreadyFor]; ok {
		unreadyFor = readUnreadyFor(&p, v)
	}
	if keepsLeader(annotations) {
		p.failover.When = HandoverNever
	}
	return p.failover, cmp.Or(when, unreadyFor)
}

// keepsLeader reports whether the sidecar hands over to nobody, because the kubelet is
// the gate: it started the app, and would not stop it.
func keepsLeader(annotations map[string]string) bool {
	if _, gated := annotations[Prefix+keyGate]; !gated {
		return false
	}
	var note Status
	return json.Unmarshal([]byte(annotations[AnnotationStatus]), &note) == nil && note.Mode == elector.ModeLeaderForLife
}

func readHandoverWhen(p *plan, value string) error {
	switch when := HandoverWhen(value); when {
	case HandoverBroken, HandoverUnready, HandoverNever:
		p.failover.When = when
		return nil
	}
	return refuse(keyHandoverWhen, value, "use %s, %s or %s", HandoverBroken, HandoverUnready, HandoverNever)
}

func readUnreadyFor(p *plan, value string) error {
	d, err := time.ParseDuration(value)
	if err != nil || d < minUnreadyFor || d > maxUnreadyFor {
		return refuse(keyUnreadyFor, value, "use a duration with its unit, from 5s to 1h, such as 30s")
	}
	p.failover.For = d
	return nil
}
