// Package survey finds out who contends for which lock, and who leads: what the
// lock objects and the pods say, put side by side for people.
//
// It reads what its user may read, once, and keeps of each object a few hundred
// bytes whatever it says. It promises no more than those objects: a label, a note or
// a holder may be forged by whoever may write it. All text in what it returns can be
// shown on a terminal.
package survey

import (
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/terminal"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/inject"
)

// Key names one lock.
type Key struct {
	Namespace string
	Mode      elector.Mode
	Name      string
}

// Resource is the lock object's resource, and its group.
func (k Key) Resource() (resource, group string) {
	if k.Mode == elector.ModeLeaderForLife {
		return "configmaps", ""
	}
	return "leases", coordinationv1.GroupName
}

// String is what kubectl calls the lock: lease.coordination.k8s.io/web.
func (k Key) String() string {
	if k.Mode == elector.ModeLeaderForLife {
		return "configmap/" + k.Name
	}
	return "lease." + coordinationv1.GroupName + "/" + k.Name
}

// Short is the shortest word that names the lock and no other of its namespace, as
// people write it and Parse reads it: lease/web.
func (k Key) Short() string {
	if k.Mode == elector.ModeLeaderForLife {
		return "configmap/" + k.Name
	}
	return "lease/" + k.Name
}

// Lock is a lock, and those who contend for it.
type Lock struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Mode      elector.Mode `json:"mode"`
	// Exists tells whether the object is there. Before anybody has led it is not,
	// and in leader-for-life also when nobody leads.
	Exists bool `json:"exists"`
	// Holder is the identity in the lock, empty if it is free.
	Holder string `json:"holder,omitempty"`
	// Leader is the name in Holder: of a pod, if elector elected it.
	Leader string `json:"leader,omitempty"`
	// Node is the leader's, if its pod is among the candidates.
	Node string `json:"node,omitempty"`
	// Since is when the leader acquired the lock, by its own clock.
	Since *time.Time `json:"since,omitempty"`
	// Renewed is when it last renewed it, by its own clock.
	Renewed *time.Time `json:"renewed,omitempty"`
	// LeaseSeconds is what it promised to renew within.
	LeaseSeconds int32 `json:"leaseSeconds,omitempty"`
	// Changes is how often the leader changed, if the lock counts that.
	Changes *int32 `json:"changes,omitempty"`
	// Token is the fencing token of the claim, 0 if the lock does not tell.
	Token uint64 `json:"fencingToken,omitempty"`
	// Next are the pods that the manager would have next.
	Next []string `json:"next,omitempty"`
	// Handover is a request that has not been obeyed yet.
	Handover string `json:"handover,omitempty"`
	// Standbys are all candidates but the leader, FitStandbys those that are fit; nil
	// where pods cannot be read.
	Standbys    *int `json:"standbys,omitempty"`
	FitStandbys *int `json:"fitStandbys,omitempty"`
	// Note says in a sentence what is out of the ordinary.
	Note string `json:"note,omitempty"`
	// Candidates are the pods that contend.
	Candidates []Candidate `json:"candidates"`

	// UID is the object's.
	UID types.UID `json:"-"`
	// Elected tells that an elector holds the lock, which obeys requests. Another
	// program leaves no note of its claim.
	Elected bool     `json:"-"`
	holder  string   // as it is written
	wish    string   // the request as it is written
	foreign bool     // not elector's, and not handed over to it
	pod     presence // of the holder, where it is no candidate
}

// Key names the lock.
func (l *Lock) Key() Key { return Key{l.Namespace, l.Mode, l.Name} }

// HeldBy reports whether the very same candidate holds both.
func (l *Lock) HeldBy(other *Lock) bool { return l.holder == other.holder }

// Asks reports whether the lock still asks for this handover.
func (l *Lock) Asks(h elector.Handover) bool { return l.wish == h.String() }

// LeadingCandidate is the leader's pod, nil if it is not among the candidates.
func (l *Lock) LeadingCandidate() *Candidate {
	for i := range l.Candidates {
		if l.Candidates[i].leads {
			return &l.Candidates[i]
		}
	}
	return nil
}

// presence tells what is known of a leader that is no candidate.
type presence int

const (
	unknown presence = iota
	gone
	there
)

// ofLease reads a Lease.
func ofLease(lease *coordinationv1.Lease) Lock {
	l := ofObject(lease, elector.ModeLease)
	spec := &lease.Spec
	if l.holder != "" {
		if spec.AcquireTime != nil {
			l.Since = &spec.AcquireTime.Time
		}
		if spec.RenewTime != nil {
			l.Renewed = &spec.RenewTime.Time
		}
		if spec.LeaseDurationSeconds != nil {
			l.LeaseSeconds = *spec.LeaseDurationSeconds
		}
	}
	if l.Changes = spec.LeaseTransitions; l.Changes == nil {
		l.Changes = new(int32)
	}
	return l
}

// ofConfigMap reads the metadata of a ConfigMap.
func ofConfigMap(configMap *metav1.PartialObjectMetadata) Lock {
	l := ofObject(configMap, elector.ModeLeaderForLife)
	if l.holder != "" {
		l.Since = &configMap.CreationTimestamp.Time
	}
	return l
}

func ofObject(object metav1.Object, mode elector.Mode) Lock {
	l := Lock{
		Namespace: object.GetNamespace(), Name: object.GetName(), Mode: mode, Exists: true,
		UID: object.GetUID(), Candidates: []Candidate{},
	}
	l.holder = kube.HolderOf(object)
	l.Holder, l.Leader = terminal.Text(l.holder), terminal.Text(elector.NameOf(l.holder))
	annotations := object.GetAnnotations()
	claim := kube.NoteOf(object)
	l.Token, l.Elected = kube.TokenOf(object), l.holder != "" && claim.Holder == l.holder && !claim.Released
	l.Next = elector.ParseNext(annotations[elector.NextAnnotation])
	if wish := annotations[elector.HandoverAnnotation]; wish != "" {
		l.wish = wish
		l.Handover = terminal.Text(describeWish(wish, l.Token))
	}
	l.foreign = object.GetLabels()[kube.ManagedByLabel] != kube.ManagedBy && annotations[inject.AnnotationAdopt] != "true"
	return l
}

// describeWish is a request for a handover in words. token is the claim's, 0 if it is
// not known: the leader ignores a request for another.
func describeWish(value string, token uint64) string {
	wish, err := elector.ParseHandover(value)
	if err != nil {
		return "asked for without effect: " + err.Error()
	}
	to, other, why := "", "", ""
	if wish.To != "" {
		to = " to " + wish.To
	}
	if token != 0 && wish.Token != token {
		other = fmt.Sprintf(" and not %d, so without effect", token)
	}
	if wish.Why != "" {
		why = " (" + wish.Why + ")"
	}
	return fmt.Sprintf("asked for%s, of the claim with fencing token %d%s%s", to, wish.Token, other, why)
}

// overdue is how long after its lease a renewal must be missing before it is
// said: the clocks of three machines are compared.
const overdue = 5 * time.Second

// note says what is out of the ordinary, the worst first.
func (l *Lock) note(now time.Time) string {
	leading, blind := l.LeadingCandidate(), l.Standbys == nil
	faulty := slices.IndexFunc(l.Candidates, func(c Candidate) bool { return c.fault != "" })
	switch {
	case l.foreign && l.Exists && len(l.Candidates) > 0 && leading == nil:
		return "the object is not elector's, and so not granted: name another lock, or if you know whose it is, give it to elector with the annotation elector.io/adopt"
	case l.holder == "" && len(l.Candidates) == 0 && !blind:
		return "nobody contends"
	case l.holder == "":
		return "nobody leads"
	case l.Late(now) > 0:
		return "the leader has not renewed for " + duration.HumanDuration(now.Sub(*l.Renewed))
	case leading == nil && elector.UIDOf(l.holder) == "":
		return "the leader is no pod that elector elected"
	case l.pod == gone:
		return "the leader's pod is gone"
	case leading == nil && len(l.Candidates) > 0 && !blind:
		return "the leader is a pod that elector did not inject"
	case leading == nil:
		return ""
	case !leading.Fit():
		return "the leader is not fit: " + leading.Why
	case faulty >= 0:
		return l.Candidates[faulty].Name + " has the default, because " + l.Candidates[faulty].fault
	case l.Handover != "":
		return "a handover is " + l.Handover
	case *l.FitStandbys == 0 && *l.Standbys > 0:
		return "no standby is fit"
	}
	return ""
}

// Late is for how long the leader's lease has run out, as far as clocks agree; 0 if
// it has not.
func (l *Lock) Late(now time.Time) time.Duration {
	if l.Renewed == nil || l.holder == "" || l.Renewed.After(now) {
		return 0
	}
	late := now.Sub(*l.Renewed) - time.Duration(l.LeaseSeconds)*time.Second - overdue
	return max(late, 0)
}

// join puts the candidates to the lock, if they are known, and says what follows.
func (l *Lock) join(candidates []Candidate, known bool, now time.Time) {
	if known {
		l.Standbys, l.FitStandbys = new(int), new(int)
	}
	for _, c := range candidates {
		c.leads = l.holder != "" && c.identity == l.holder
		c.Role = elector.RoleStandby
		switch {
		case c.leads:
			c.Role = elector.RoleLeader
			l.Node = c.Node
		default:
			*l.Standbys++
			if c.Fit() {
				*l.FitStandbys++
			}
		}
		l.Candidates = append(l.Candidates, c)
	}
	l.Note = terminal.Text(l.note(now))
}
