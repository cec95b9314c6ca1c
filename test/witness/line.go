// Package witness is an application that looks whether its pod leads, in every way that elector offers, and writes down what it sees:
// by the leader file alone, by the leader file and status.json as the README tells applications to, and by HTTP.
//
// What it says of leadership is never longer than the truth: a claim is seen from the end of the first look that said yes to the begin
// of the last one. So two witnesses that lead at a time are two leaders, on however busy a machine. It may miss what is shorter than the
// time between two looks; a leader file that goes and comes back it does not miss.
package witness

import (
	"encoding/json"
	"time"

	"golang.org/x/sys/unix"
)

// Line is one line of its log, as JSON.
type Line struct {
	Event string `json:"event"`
	// Clock is when it happened, in nanoseconds of CLOCK_BOOTTIME. Of EventLeads it is after the look that said so, of
	// EventStill and EventLooked before: between the two the app was told that it leads, and perhaps a little longer.
	Clock time.Duration `json:"clock"`
	// By is how it was told, in events of leadership.
	By By `json:"by,omitempty"`
	// Took is how long the look took, of EventLeads.
	Took time.Duration `json:"took,omitempty"`
	// Of status.json, in events of leadership.
	Lock     string `json:"lock,omitempty"`
	Identity string `json:"identity,omitempty"`
	Mode     string `json:"mode,omitempty"`
	Token    uint64 `json:"token,omitempty"`
	// Of EventSees: whether there is a leader file, what is in it, and status.json.
	Leads  bool            `json:"leads,omitempty"`
	Name   string          `json:"name,omitempty"`
	Status json.RawMessage `json:"status,omitempty"`
	// Found is in EventStarted only.
	Found *Found `json:"found,omitempty"`
	// Note is for people, and for the few tests that know what it says.
	Note string `json:"note,omitempty"`
}

// Found is what an application finds around it.
type Found struct {
	// Env are the variables meant for applications.
	Env map[string]string `json:"env"`
	// Token tells whether it has a ServiceAccount token.
	Token bool `json:"token"`
}

// Epoch is what a storage has taken with one fencing token, by its own clock.
type Epoch struct {
	Token uint64 `json:"token"`
	// First and Last are its first and last write, in nanoseconds of CLOCK_BOOTTIME.
	First time.Duration `json:"first"`
	Last  time.Duration `json:"last"`
	// Writes counts what was taken, and Refused what came with a lower token meanwhile.
	Writes  int `json:"writes"`
	Refused int `json:"refused"`
}

// By is a way to look.
type By string

// The ways.
const (
	// ByFile believes the leader file alone. It is wrong while a sidecar is dead or frozen.
	ByFile By = "file"
	// ByStatus believes the leader file as long as status.json says that the claim is valid.
	ByStatus By = "status"
	// ByHTTP asks the sidecar.
	ByHTTP By = "http"
)

// The events.
const (
	// EventStarted is the app's first.
	EventStarted = "started"
	// EventWrite says in Note what became of writing into the status directory: "refused: ..." or "done".
	EventWrite = "write"
	// EventSees is what is in the status directory, at first and after every change.
	EventSees = "sees"
	// EventLeads is when the app saw for the first time that it leads, or with another token.
	EventLeads = "leads"
	// EventStill is a look that said so again; one is logged every now and then.
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

// Now is CLOCK_BOOTTIME, by which all containers of a machine can be compared.
func Now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // Linux has had it since 2.6.39
	return time.Duration(ts.Nano())
}
