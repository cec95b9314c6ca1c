package elector

import (
	"encoding/json"
	"fmt"
	"strings"
)

// HandoverAnnotation on a lock object asks its holder for a handover. Its value is
// a Handover in JSON. Whoever may patch the lock may ask, and could as well
// overwrite the holder: so the right to steer is plain RBAC.
const HandoverAnnotation = "elector.io/handover"

// NextAnnotation on a lock object names the candidates that go first when it
// becomes free, in this order: names of pods, separated by commas. The second waits
// 0.75 s longer than it has to in any case, the others and those that it does not
// name a second.
const NextAnnotation = "elector.io/next"

// MaxWhy bounds Handover.Why, in bytes, and MaxNext how many NextAnnotation names:
// enough that one of them answers.
const (
	MaxWhy  = 256
	MaxNext = 16
)

const (
	// maxHandover bounds the value of HandoverAnnotation, in bytes.
	maxHandover = 1 << 10
	// maxNextText is how much of NextAnnotation is read, in bytes: as many of the longest
	// names.
	maxNextText = MaxNext * (maxNameLength + 1)
)

// Handover is a request that the holder of a lock let another candidate lead. It
// is obeyed by the holder alone, once, and only for the claim that it speaks of.
type Handover struct {
	// Token is the fencing token of the claim that is to end. A request for another
	// claim is without effect: nothing is replayed, or restored from a backup.
	Token uint64 `json:"token"`
	// To is the name of the candidate that is to follow, or empty for any. The others
	// leave it the lock for a second at most, so one that is gone keeps nobody waiting.
	// It has no effect in leader-for-life.
	To string `json:"to,omitempty"`
	// Why is for people: who asks, and what for. At most MaxWhy bytes.
	Why string `json:"why,omitempty"`
}

// Validate reports the first thing that is wrong with the request, as a FieldError.
func (h Handover) Validate() error {
	switch {
	case h.Token == 0:
		return &FieldError{Field: HandoverAnnotation + " token", Value: "0", Allowed: "it must be the fencing token of the claim that is to end"}
	case h.To != "" && !isName(h.To):
		return &FieldError{Field: HandoverAnnotation + " to", Value: h.To, Allowed: "it must be the name of a pod, or absent"}
	case len(h.Why) > MaxWhy:
		return &FieldError{Field: HandoverAnnotation + " why", Value: h.Why, Allowed: fmt.Sprintf("it must have at most %d bytes", MaxWhy)}
	case len(h.String()) > maxHandover:
		return &FieldError{Field: HandoverAnnotation + " why", Value: h.Why, Allowed: fmt.Sprintf("with its control characters escaped, the request must have at most %d bytes", maxHandover)}
	}
	return nil
}

// String returns the value of HandoverAnnotation.
func (h Handover) String() string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // no browser reads it, and an escape takes six bytes
	if err := encoder.Encode(h); err != nil {
		return "" // two strings and a number can be encoded
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// ParseHandover reads the value of HandoverAnnotation. The error is a FieldError.
func ParseHandover(value string) (Handover, error) {
	if len(value) > maxHandover {
		return Handover{}, &FieldError{Field: HandoverAnnotation, Value: value, Allowed: fmt.Sprintf("it must have at most %d bytes", maxHandover)}
	}
	var h Handover
	if err := json.Unmarshal([]byte(value), &h); err != nil {
		return Handover{}, &FieldError{
			Field: HandoverAnnotation, Value: value, Allowed: `it must be like {"token":461,"to":"web-2","why":"maintenance"}`,
		}
	}
	return h, h.Validate()
}

// FormatNext returns the value of NextAnnotation that names the given pods, of
// which it keeps the first MaxNext.
func FormatNext(names []string) string {
	return strings.Join(names[:min(len(names), MaxNext)], ",")
}

// ParseNext reads the value of NextAnnotation. What cannot be a pod's name is left
// out, and so is what comes after MaxNext of them: a forged value costs the others a
// second at most, as any value does. One that is too long for so many is not read.
func ParseNext(value string) []string {
	if len(value) > maxNextText {
		return nil
	}
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if len(names) == MaxNext {
			break
		}
		if isName(name) {
			names = append(names, name)
		}
	}
	return names
}

// isName tells whether an object of Kubernetes can have this name.
func isName(s string) bool { return len(s) <= maxNameLength && subdomain.MatchString(s) }
