package locks

import (
	"strings"
	"unicode"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// WhyUnfit is how the manager begins Handover.Why when it asks a leader that is not
// fit.
const WhyUnfit = "fit: "

// Said is what a lock object says of who holds the lock, or did. Whoever may write
// the object may have written that.
type Said struct {
	// Version is the object's resourceVersion; empty if there is no object.
	Version string
	// Holder is the identity of who holds the lock, empty if nobody does.
	Holder string
	// By is who released it, empty if nobody did.
	By string
	// Asked tells that the release was asked for, or, of a ConfigMap that is held, is
	// asked for: its deletion says nothing any more. Why is what for, at most
	// elector.MaxWhy bytes that people can read.
	Asked bool
	Why   string
}

// SaidBy returns what a lock object says that went through Trim.
func SaidBy(trimmed client.Object) Said {
	kept := trimmed.GetAnnotations()
	s := Said{Version: trimmed.GetResourceVersion(), Holder: kube.HolderOf(trimmed), By: kept[keptBy]}
	key := keptWhy
	if !isLease(trimmed) {
		key = keptAsked
	}
	s.Why, s.Asked = kept[key]
	return s
}

// maxIdentity is more than any candidate's identity has, in bytes.
const maxIdentity = 300

// keepRelease adds what a Lease says of its release. A ConfigMap is deleted then.
func keepRelease(obj metav1.Object, kept map[string]string) {
	if !isLease(obj) || kube.HolderOf(obj) != "" {
		return
	}
	note := kube.NoteOf(obj)
	if !note.Released || len(note.Holder) > maxIdentity {
		return
	}
	kept[keptBy] = note.Holder
	if note.To != "" || note.Why != "" {
		kept[keptWhy] = readable(note.Why)
	}
}

func isLease(obj metav1.Object) bool {
	_, is := obj.(*coordinationv1.Lease)
	return is
}

// readable is text of somebody's without what disturbs a terminal or a line, not
// longer than it may be.
func readable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), elector.MaxWhy)], "")
}

// Parting is how a holder lost a lock.
type Parting struct {
	// Holder is who it was.
	Holder string
	How    How
	// Asked and Why are those of Said.
	Asked bool
	Why   string
}

// How a holder lost a lock.
type How int

const (
	// Unseen is that nobody saw it.
	Unseen How = iota
	// Released is that the holder, or package reap for it, freed the lock.
	Released
	// Deleted is that the lock's object went, by which leaders for life part.
	Deleted
	// Emptied is that somebody else took the holder out.
	Emptied
	// Taken is that another one held it next, as after an expiry.
	Taken
)

// PartingOf returns how the holder before lost the lock, if it did.
func PartingOf(before, after Said) (Parting, bool) {
	if before.Holder == "" || before.Holder == after.Holder {
		return Parting{}, false
	}
	p := Parting{Holder: before.Holder}
	switch {
	case after.Version == "":
		p.How, p.Asked, p.Why = Deleted, before.Asked, before.Why
	case after.Holder != "":
		p.How = Taken
	case after.By == before.Holder:
		p.How, p.Asked, p.Why = Released, after.Asked, after.Why
	default:
		p.How = Emptied
	}
	return p, true
}
