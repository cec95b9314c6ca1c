//go:build !linux

package boottime

import "time"

// Clock stands in on systems without CLOCK_BOOTTIME, for development: on some of
// them it stops while the machine is suspended, and then so does the protection
// against it.
type Clock struct{ start time.Time }

// New is a clock that begins now.
func New() (Clock, error) { return Clock{start: time.Now()}, nil }

// Now is the time since the clock began.
func (c Clock) Now() time.Duration { return time.Since(c.start) }

// NewAlarm makes an alarm that is not set.
func (c Clock) NewAlarm() (*Alarm, error) {
	a := &Alarm{clock: c, c: make(chan struct{}, 1)}
	a.timer = time.AfterFunc(1<<62, func() {
		select {
		case a.c <- struct{}{}:
		default:
		}
	})
	return a, nil
}

// Alarm wakes one goroutine.
type Alarm struct {
	clock Clock
	timer *time.Timer
	c     chan struct{}
}

// Set replaces the time at which C is sent to; a time in the past sends at once.
func (a *Alarm) Set(at time.Duration) { a.timer.Reset(at - a.clock.Now()) }

// C is sent to when it is time.
func (a *Alarm) C() <-chan struct{} { return a.c }

// Close ends the alarm.
func (a *Alarm) Close() { a.timer.Stop() }
