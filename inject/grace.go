package inject

import (
	"time"

	"github.com/elector-io/elector/elector"
)

const (
	// minStopGrace leaves the app 0.2s before it is killed. maxStopGrace catches 30h
	// written for 30s: for as long a dead leader has no successor, and half of it again.
	minStopGrace, maxStopGrace = 500 * time.Millisecond, time.Hour
)

// killLead is how long before the claim's end the wrapper has killed everything, with
// what the kernel needs for it: it kills 0.3s before.
const killLead = 500 * time.Millisecond

// hasRoom reports whether a claim has room for the grace: what is left of it when a
// renewal is due, a third of the renew-deadline after the last, and two tries have
// failed since, is not less. Otherwise one slow request would stop the app.
func hasRoom(s elector.Settings, grace time.Duration) bool {
	return 2*s.RenewDeadline >= 3*(grace+killLead+2*s.RetryPeriod)
}

// leastFor returns the smallest durations of whole seconds with that retry-period that
// have room for the grace. The lease-duration is in the proportion that usual has.
func leastFor(grace, retry time.Duration, usual elector.Settings) elector.Settings {
	deadline := wholeSeconds((3*(grace+killLead+2*retry) + 1) / 2)
	// A deadline of days in seconds times 24h in milliseconds is within an int64.
	lease, of := int64(deadline/time.Second)*usual.LeaseDuration.Milliseconds(), usual.RenewDeadline.Milliseconds()
	usual.LeaseDuration = time.Duration((lease+of-1)/of) * time.Second
	usual.RenewDeadline, usual.RetryPeriod = deadline, retry
	return usual
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// leastClaim is what has to be left of a claim for the wrapper to start the app on
// it, in whole milliseconds: a renewal that is late by one try leaves the grace.
func leastClaim(s elector.Settings, grace time.Duration) time.Duration {
	return (grace + s.RenewDeadline/3 + s.RetryPeriod + time.Millisecond - 1).Truncate(time.Millisecond)
}
