package history

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/elector-io/elector/test/judge"
)

// Report says what was checked, and what was wrong.
type Report struct {
	Locks  int
	Claims int
	// Handovers are the claims that followed another candidate's, on its release or its expiry.
	Handovers int
	// Gap is the shortest time between two candidates' claims on one lock.
	Gap    time.Duration
	Faults []string
}

// Check finds claims on one lock that overlap and tokens that do not grow.
func Check(claims []Claim) Report {
	r := Report{Claims: len(claims), Gap: judge.Forever}
	locks := map[string]*judge.Lock{}
	for i := range claims {
		c := &claims[i]
		if locks[c.lock()] == nil {
			locks[c.lock()] = &judge.Lock{}
		}
		locks[c.lock()].Add(c.judged())
	}
	r.Locks = len(locks)
	for _, name := range slices.Sorted(maps.Keys(locks)) {
		v := locks[name].Verdict()
		r.Handovers += v.Handovers
		r.Gap = min(r.Gap, v.Gap)
		for _, violation := range v.Violations {
			r.Faults = append(r.Faults, name+": "+violation.String())
		}
	}
	return r
}

// judged is the claim in the judge's words. One on a lock that nobody knows is nobody's: the log was cut.
func (c *Claim) judged() judge.Claim {
	j := judge.Claim{Who: c.Identity, Token: c.Token, Begin: c.Begin, End: c.End, Note: c.Reason}
	if c.Lock == "" {
		j.Who = ""
	}
	return j
}

// CheckSeen finds claims that applications saw and no sidecar had made.
func CheckSeen(seen, made []Claim) (faults []string) {
	byIdentity := map[string][]*Claim{}
	for i := range made {
		key := made[i].lock() + " " + made[i].Identity
		byIdentity[key] = append(byIdentity[key], &made[i])
	}
	for i := range seen {
		if !covered(&seen[i], byIdentity[seen[i].lock()+" "+seen[i].Identity]) {
			faults = append(faults, fmt.Sprintf("the application saw what its sidecar did not claim: %s", &seen[i]))
		}
	}
	return faults
}

// covered tells whether the claims, in the order of their begin, have the whole of c with its token. A sidecar that is restarted
// resumes its claim, and the application may not have looked in between.
func covered(c *Claim, by []*Claim) bool {
	begun, end := false, time.Duration(0)
	for _, m := range by {
		if m.Token != c.Token {
			continue
		}
		begun = begun || m.Begin <= c.Begin
		end = max(end, m.End)
	}
	return begun && (c.End <= end || c.End <= c.Begin)
}

func (c *Claim) String() string {
	return fmt.Sprintf("%s (%s): %s", c.Lock, c.Mode, c.judged())
}
