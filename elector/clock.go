package elector

import (
	"time"

	"github.com/elector-io/elector/elector/internal/boottime"
)

// Clock measures the time that claims and leases last. It must keep counting
// while the machine is suspended and never be set; only its differences mean
// something.
type Clock interface {
	// Now is the time since some fixed moment.
	Now() time.Duration
	// NewAlarm returns an alarm that is not set.
	NewAlarm() (Alarm, error)
}

// Alarm wakes one goroutine. Waking too often is allowed, waking late is not.
type Alarm interface {
	// Set replaces the time at which C is sent to; a time in the past sends at once.
	Set(at time.Duration)
	C() <-chan struct{}
	Close()
}

// bootClock is the machine's, which goes on while it is suspended.
type bootClock struct{ boottime.Clock }

func newBootClock() (Clock, error) {
	clock, err := boottime.New()
	return bootClock{clock}, err
}

// NewAlarm returns the clock's alarm as an Alarm.
func (c bootClock) NewAlarm() (Alarm, error) { return c.Clock.NewAlarm() }
