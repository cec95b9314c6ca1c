// Package record reads what a lock in the Kubernetes API says, and writes what
// elector notes on it. It needs nothing of Kubernetes' libraries.
package record

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"time"

	"github.com/elector-io/elector/elector"
)

const (
	// ManagedByLabel with ManagedBy as value marks the objects elector made.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of ManagedByLabel.
	ManagedBy = "elector"
	// ClaimAnnotation is where an elector notes what the object itself has no room
	// for: who made this term of the lock, with which write, with which fencing
	// token, and whether it released the lock. A hand or another program that changes
	// the holder does not change the note with it, and so gives itself away.
	ClaimAnnotation = "elector.io/claim"
)

// note is ClaimAnnotation's form.
type note struct {
	// Holder is the identity of the elector that wrote the note.
	Holder string `json:"holder"`
	// Term is the leaseTransitions that the note speaks of. Another program's takeover
	// counts a transition, and so makes the note void.
	Term int32 `json:"term"`
	// Write names the write.
	Write string `json:"write"`
	// After is the resourceVersion that the write replaced; absent if it made the lock.
	After uint64 `json:"after,omitempty"`
	// Token is the fencing token of the term; absent until the first renewal, because
	// it is the version of the write that began the term.
	Token uint64 `json:"token,omitempty"`
	// LeaseSeconds is what the holder promised to renew within.
	LeaseSeconds int64 `json:"leaseSeconds,omitempty"`
	// Released tells that the holder freed the lock.
	Released bool `json:"released,omitempty"`
	// To and Why are the request for a handover that the release obeyed.
	To  string `json:"to,omitempty"`
	Why string `json:"why,omitempty"`
}

// maxNote is several times what a note needs.
const maxNote = 4 << 10

// ReadNote returns the note among annotations if it speaks of the given term. One
// that can't be read is as good as none.
func ReadNote(annotations map[string]string, term int32) elector.Note {
	text := annotations[ClaimAnnotation]
	var n note
	if len(text) > maxNote || json.Unmarshal([]byte(text), &n) != nil || n.Term != term || n.Holder == "" || n.LeaseSeconds < 0 || n.LeaseSeconds > maxSeconds {
		return elector.Note{}
	}
	return elector.Note{
		Holder: n.Holder, Write: n.Write, After: n.After, Token: n.Token, LeaseDuration: time.Duration(n.LeaseSeconds) * time.Second, Released: n.Released,
		To: n.To, Why: n.Why,
	}
}

// maxSeconds keeps seconds within a Duration.
const maxSeconds = int64(1<<63-1) / int64(time.Second)

// FormatNote returns the value of ClaimAnnotation for want.
func FormatNote(want elector.Record) (string, error) {
	n := want.Note
	text, err := json.Marshal(note{
		Holder: n.Holder, Term: want.Transitions, Write: n.Write, After: n.After, Token: n.Token, LeaseSeconds: int64(n.LeaseDuration / time.Second), Released: n.Released,
		To: n.To, Why: n.Why,
	})
	if err != nil {
		return "", fmt.Errorf("encoding %s: %w", ClaimAnnotation, err)
	}
	return string(text), nil
}

// readWishes reads what others ask of who contends for the lock. What is too large
// is not kept.
func readWishes(annotations map[string]string, rec *elector.Record) {
	if value, asked := annotations[elector.HandoverAnnotation]; asked {
		h, err := elector.ParseHandover(value)
		if err != nil {
			h, rec.HandoverFault = elector.Handover{}, err.Error()
		}
		rec.Handover = h
	}
	rec.Next = elector.FormatNext(elector.ParseNext(annotations[elector.NextAnnotation]))
}

// Annotations returns what the annotations become with a write of want: the note of
// want is put on, and a request for a handover that want has no more is taken off.
// Where others' annotations leave no room for a note there is none: the election goes
// on without, only slower.
func Annotations(before map[string]string, want elector.Record) (map[string]string, error) {
	text, err := FormatNote(want)
	if err != nil {
		return nil, err
	}
	after := map[string]string{}
	maps.Copy(after, before)
	if want.Handover == (elector.Handover{}) && want.HandoverFault == "" {
		delete(after, elector.HandoverAnnotation)
	}
	delete(after, ClaimAnnotation)
	if HasRoom(after, text) {
		after[ClaimAnnotation] = text
	}
	return after, nil
}

// maxAnnotations is what the API server allows all annotations of an object to take
// (apimachinery, validation.TotalAnnotationSizeLimitB).
const maxAnnotations = 256 << 10

// HasRoom tells whether a note fits beside the other annotations.
func HasRoom(annotations map[string]string, text string) bool {
	size := len(ClaimAnnotation) + len(text)
	for name, value := range annotations {
		if name != ClaimAnnotation {
			size += len(name) + len(value)
		}
	}
	return size <= maxAnnotations
}

// maxHolder is more than any identity of elector's has; other programs' are shorter.
const maxHolder = 1 << 10

// bounded is the holder as it is kept and shown: of a huge one, which somebody
// wrote to be a nuisance, the beginning and a sum that tells it from others.
func bounded(holder string) string {
	if len(holder) <= maxHolder {
		return holder
	}
	return fmt.Sprintf("%.64s…%x", holder, sumOf([]byte(holder)))
}

// sumOf tells texts apart.
func sumOf(text []byte) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write(text)
	return sum.Sum64()
}
