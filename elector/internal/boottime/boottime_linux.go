package boottime

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC, which Go's timers use, it
// counts the time a suspended machine slept through (clock_gettime(2)).
type Clock struct{}

// New is the clock of this machine. Linux has had it since 2.6.39.
func New() (Clock, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return Clock{}, fmt.Errorf("reading CLOCK_BOOTTIME: %w", err)
	}
	return Clock{}, nil
}

// Now is the time since the machine was started.
func (Clock) Now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // can't fail once it has not: New tried
	return time.Duration(ts.Nano())
}

// NewAlarm makes a timerfd on CLOCK_BOOTTIME, so that a claim that ran out
// during a suspend ends the moment the machine wakes, not a timer later.
func (Clock) NewAlarm() (*Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating a timer: %w", err)
	}
	a := &Alarm{fd: fd, file: os.NewFile(uintptr(fd), "timerfd"), c: make(chan struct{}, 1)}
	a.reader.Go(a.read)
	return a, nil
}

// Alarm wakes one goroutine.
type Alarm struct {
	fd     int
	file   *os.File
	c      chan struct{}
	reader sync.WaitGroup
}

func (a *Alarm) read() {
	var expirations [8]byte
	for {
		if _, err := a.file.Read(expirations[:]); err != nil {
			return // closed
		}
		select {
		case a.c <- struct{}{}:
		default:
		}
	}
}

// Set replaces the time at which C is sent to; a time in the past sends at once.
func (a *Alarm) Set(at time.Duration) {
	// A zero it_value would disarm the timer.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(at), 1))}
	_ = unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil) // fails for bad arguments only
}

// C is sent to when it is time.
func (a *Alarm) C() <-chan struct{} { return a.c }

// Close ends the alarm.
func (a *Alarm) Close() {
	_ = a.file.Close()
	a.reader.Wait()
}
