// Package judge decides whether two candidates of one lock led at a time, and whether fencing tokens grew.
//
// It is told who claimed to lead, with which token, from when to when, and knows nothing of where that comes from: logs, files,
// callbacks, a simulation. All times of one lock must be of one clock. A verdict is as good as what it is told: if no claim is longer
// than the truth, every overlap is one; if none is shorter, no overlap is missed. A witness of the first kind can't accuse the innocent.
package judge

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Forever is the end of a claim that has none yet.
const Forever = time.Duration(1<<63 - 1)

// Claim is a period in which a candidate claimed to lead.
type Claim struct {
	// Who is the candidate; another Pod of the same name is another one.
	Who   string
	Token uint64
	// Begin and End are of any one clock. End does not belong to the claim, but a claim whose end is its begin was there at that moment.
	// One that ends before it begins was there at some moment between the two, nobody knows which: it overlaps with none.
	Begin, End time.Duration
	// Note is for people: it is in the text of a violation.
	Note string
}

// Kind says which rule is violated.
type Kind string

// The rules.
const (
	// Overlap is two candidates that claim at a time.
	Overlap Kind = "overlap"
	// Token is a claim whose token is not above those of other candidates' claims that began before, or is below one of its own.
	Token Kind = "token"
	// Nameless is a claim without a candidate, or without a token where there should be one. It has no Before.
	Nameless Kind = "nameless"
)

// Violation is a claim, After, that should not have begun when it did, or as it did, because of another, Before, that began earlier.
type Violation struct {
	Kind          Kind
	Before, After Claim
}

// Verdict is what became of one lock.
type Verdict struct {
	Claims int
	// Handovers are the claims that followed another candidate's, on its release or its expiry.
	Handovers int
	// Gap is the shortest time between two candidates' claims: negative when they overlap, Forever when there was no handover.
	Gap time.Duration
	// Violations are in the order of the claims that should not have begun.
	Violations []Violation
}

// Lock is what happened on one lock. Its zero value has seen nothing.
//
// What is told of one candidate must be in order; different candidates may be told of one after the other, as logs do. Of claims that
// begin at the same time the one that is told first is the earlier one, so that a virtual clock need not move between them. It keeps all
// claims, and a verdict looks at all of them: it is made for tests, with thousands of claims at most. A copy shares them; see Clone.
type Lock struct {
	// Tokenless is for those who see who leads but not the token: then tokens are not looked at.
	Tokenless bool

	claims []Claim // in the order of their begin
}

// Add tells of a claim whole.
func (l *Lock) Add(c Claim) {
	i, _ := slices.BinarySearchFunc(l.claims, c.Begin, func(other Claim, begin time.Duration) int {
		return cmp.Or(cmp.Compare(other.Begin, begin), -1) // behind those of the same begin
	})
	l.claims = slices.Insert(l.claims, i, c)
}

// Began tells that a candidate claims from a moment on. If it did already, that claim ends: a candidate that resumes its claim after a
// restart need not have said that it ended.
func (l *Lock) Began(who string, token uint64, at time.Duration) {
	if c := l.last(who); c != nil && c.End == Forever {
		c.End = at
	}
	l.Add(Claim{Who: who, Token: token, Begin: at, End: Forever})
}

// Until tells when a candidate's last claim ends if nothing else is told: a lease that may be renewed, or as far as somebody has seen
// it. The last word counts, also when it comes later than the end that was told before.
func (l *Lock) Until(who string, end time.Duration) {
	if c := l.last(who); c != nil {
		c.End = end
	}
}

// Ended tells that a candidate's last claim ended, if it had not before. A candidate that never claimed may be said to have ended.
func (l *Lock) Ended(who string, at time.Duration) {
	if c := l.last(who); c != nil {
		c.End = min(c.End, at)
	}
}

// last is the candidate's latest claim, nil if it has none.
func (l *Lock) last(who string) *Claim {
	for i := range slices.Backward(l.claims) {
		if l.claims[i].Who == who {
			return &l.claims[i]
		}
	}
	return nil
}

// Claims returns all claims in the order of their begin.
func (l *Lock) Claims() []Claim { return slices.Clone(l.claims) }

// Clone returns a Lock that has seen the same and goes its own way: for a search that tries one thing and then another.
func (l *Lock) Clone() *Lock { return &Lock{Tokenless: l.Tokenless, claims: slices.Clone(l.claims)} }

// Violations are those of the verdict.
func (l *Lock) Violations() []Violation { return l.Verdict().Violations }

// Verdict judges what has been told so far. Claims that did not end lead on.
func (l *Lock) Verdict() Verdict {
	v := Verdict{Claims: len(l.claims), Gap: Forever}
	var standing []*Claim // of the claims before, those that are not over
	var longest *Claim    // the one that ends last
	var top *Claim        // the last one with the highest token
	for i := range l.claims {
		c := &l.claims[i]
		if l.nameless(c) {
			v.Violations = append(v.Violations, Violation{Kind: Nameless, After: *c})
		}
		standing = slices.DeleteFunc(standing, func(before *Claim) bool { return before.End <= c.Begin })
		for _, before := range standing {
			if before.Who != c.Who && c.End >= c.Begin {
				v.Violations = append(v.Violations, Violation{Overlap, *before, *c})
			}
		}
		standing = append(standing, c)
		if !l.Tokenless && c.Token != 0 {
			if stale(c, top) {
				v.Violations = append(v.Violations, Violation{Token, *top, *c})
			}
			if top == nil || c.Token >= top.Token {
				top = c
			}
		}
		if i > 0 && l.claims[i-1].Who != c.Who {
			v.Handovers++
		}
		if longest != nil && longest.Who != c.Who {
			v.Gap = min(v.Gap, c.Begin-longest.End)
		}
		if longest == nil || c.End > longest.End {
			longest = c
		}
	}
	return v
}

func (l *Lock) nameless(c *Claim) bool { return c.Who == "" || c.Token == 0 && !l.Tokenless }

// stale tells whether the claim's token is not what it must be after the highest one before.
func stale(c, top *Claim) bool {
	return top != nil && (c.Token < top.Token || c.Token == top.Token && c.Who != top.Who)
}

// Lasts is how long the two claims overlap: Forever when neither ended, 0 when they do not.
func (v Violation) Lasts() time.Duration {
	if v.Kind != Overlap {
		return 0
	}
	end := min(v.Before.End, v.After.End)
	if end == Forever {
		return Forever
	}
	return end - v.After.Begin
}

// String is for people: one sentence, and the claims below it.
func (v Violation) String() string {
	switch {
	case v.Kind == Nameless:
		return "a claim without candidate or token:\n  " + v.After.String()
	case v.Kind == Overlap && v.Lasts() == Forever:
		return fmt.Sprintf("two lead, and go on:\n  %s\n  %s", v.Before, v.After)
	case v.Kind == Overlap:
		return fmt.Sprintf("two lead for %s:\n  %s\n  %s", v.Lasts(), v.Before, v.After)
	case v.Before.Who == v.After.Who:
		return fmt.Sprintf("token %d of %s comes after its own %d:\n  %s\n  %s", v.After.Token, v.After.Who, v.Before.Token, v.Before, v.After)
	default:
		return fmt.Sprintf("token %d of %s comes after %d of %s:\n  %s\n  %s", v.After.Token, v.After.Who, v.Before.Token, v.Before.Who, v.Before, v.After)
	}
}

func (c Claim) String() string {
	end := c.End.String()
	if c.End == Forever {
		end = "..."
	}
	text := fmt.Sprintf("%s claims from %s to %s with token %d", c.Who, c.Begin, end, c.Token)
	if c.Note != "" {
		text += ", " + c.Note
	}
	return text
}
