package history

import (
	"fmt"
	"time"
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

// Check finds claims on one lock that overlap and tokens that do not grow. The claims must be in the order of Made and Seen.
func Check(claims []Claim) Report {
	r := Report{Claims: len(claims), Gap: Forever}
	var open *Claim // of those before on the lock, the one that ends last
	var highest map[string]uint64
	for i := range claims {
		c := &claims[i]
		if i == 0 || claims[i-1].lock() != c.lock() {
			r.Locks++
			open, highest = nil, map[string]uint64{}
		}
		if c.Lock == "" || c.Identity == "" || c.Token == 0 {
			r.fault("a claim without lock, identity or token: %s", c)
		}
		for identity, token := range highest {
			if identity != c.Identity && token >= c.Token {
				r.fault("%s: token %d of %s comes after %d of %s", c.Lock, c.Token, c.Identity, token, identity)
			} else if identity == c.Identity && token > c.Token {
				r.fault("%s: token %d of %s comes after its own %d", c.Lock, c.Token, c.Identity, token)
			}
		}
		if i > 0 && claims[i-1].lock() == c.lock() && claims[i-1].Identity != c.Identity {
			r.Handovers++
		}
		if open != nil && open.Identity != c.Identity {
			r.Gap = min(r.Gap, c.Begin-open.End)
			if c.Begin < open.End {
				r.fault("%s: two lead for %s:\n  %s\n  %s", c.Lock, min(open.End, c.End)-c.Begin, open, c)
			}
		}
		if open == nil || c.End > open.End {
			open = c
		}
		highest[c.Identity] = max(highest[c.Identity], c.Token)
	}
	return r
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

func (r *Report) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

func (c *Claim) String() string {
	end := c.End.String()
	if c.End == Forever {
		end = "..."
	}
	text := fmt.Sprintf("%s (%s) claims %s from %s to %s with token %d", c.Identity, c.Mode, c.Lock, c.Begin, end, c.Token)
	if c.Reason != "" {
		text += ", " + c.Reason
	}
	return text
}
