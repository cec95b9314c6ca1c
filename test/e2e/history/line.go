// Package history tells from the logs of candidates and of their applications whether two of them led at a time.
//
// All times are of CLOCK_BOOTTIME, which every container on a machine shares: nodes of a kind cluster can be compared to the
// nanosecond. Of nodes on several machines these logs prove nothing.
package history

import "time"

// Line is what the application of the end-to-end tests logs, as JSON.
type Line struct {
	Event string `json:"event"`
	// Clock is when it happened, in nanoseconds of CLOCK_BOOTTIME. Of EventLeads it is after the look that said so, of
	// EventStill and EventLooked before: between the two the app was told that it leads, and perhaps a little longer.
	Clock time.Duration `json:"clock"`
	// Of status.json, in events of leadership.
	Lock     string `json:"lock,omitempty"`
	Identity string `json:"identity,omitempty"`
	Mode     string `json:"mode,omitempty"`
	Token    uint64 `json:"token,omitempty"`
	// Note is for people, and for the few tests that know what it says.
	Note string `json:"note,omitempty"`
}

// The events of the application's log.
const (
	// EventStarted is the app's first.
	EventStarted = "started"
	// EventWrite says in Note what became of writing into the status directory: "refused: ..." or "done".
	EventWrite = "write"
	// EventLeads is when the app saw for the first time that it leads, or with another token.
	EventLeads = "leads"
	// EventStill is a look that said so again; one is logged several times a second.
	EventStill = "still"
	// EventLooked is the last look that said so.
	EventLooked = "looked"
	// EventFollows is the look that did not any more.
	EventFollows = "follows"
	// EventAsked is SIGTERM.
	EventAsked = "asked to stop"
	// EventStops is the last act of the app.
	EventStops = "stops"
)
