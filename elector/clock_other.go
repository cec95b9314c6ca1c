//go:build !linux

package elector

import "time"

// monotonicClock stands in on systems without CLOCK_BOOTTIME, for development:
// on some of them it stops while the machine is suspended, and then so does the
// protection against it.
type monotonicClock struct{ start time.Time }

func (c monotonicClock) Now() time.Duration { return time.Since(c.start) }

func (c monotonicClock) NewAlarm() (Alarm, error) {
	a := &monotonicAlarm{clock: c, c: make(chan struct{}, 1)}
	a.timer = time.AfterFunc(1<<62, func() {
		select {
		case a.c <- struct{}{}:
		default:
		}
	})
	return a, nil
}

type monotonicAlarm struct {
	clock monotonicClock
	timer *time.Timer
	c     chan struct{}
}

func (a *monotonicAlarm) Set(at time.Duration) { a.timer.Reset(at - a.clock.Now()) }
func (a *monotonicAlarm) C() <-chan struct{}   { return a.c }
func (a *monotonicAlarm) Close()               { a.timer.Stop() }

func newBootClock() (Clock, error) { return monotonicClock{start: time.Now()}, nil }
