package elector

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// bootClock is CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC, which Go's timers use, it
// counts the time a suspended machine slept through (clock_gettime(2)).
type bootClock struct{}

func (bootClock) Now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // can't fail once it has not: newBootClock tried
	return time.Duration(ts.Nano())
}

// NewAlarm makes a timerfd on CLOCK_BOOTTIME, so that a claim that ran out
// during a suspend ends the moment the machine wakes, not a timer later.
func (bootClock) NewAlarm() (Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating a timer: %w", err)
	}
	a := &bootAlarm{fd: fd, file: os.NewFile(uintptr(fd), "timerfd"), c: make(chan struct{}, 1)}
	a.reader.Go(a.read)
	return a, nil
}

type bootAlarm struct {
	fd     int
	file   *os.File
	c      chan struct{}
	reader sync.WaitGroup
}

func (a *bootAlarm) read() {
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

func (a *bootAlarm) Set(at time.Duration) {
	// A zero it_value would disarm the timer.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(at), 1))}
	_ = unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil) // fails for bad arguments only
}

func (a *bootAlarm) C() <-chan struct{} { return a.c }

func (a *bootAlarm) Close() {
	_ = a.file.Close()
	a.reader.Wait()
}

// newBootClock is the clock of this machine. Linux has had it since 2.6.39.
func newBootClock() (Clock, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return nil, fmt.Errorf("reading CLOCK_BOOTTIME: %w", err)
	}
	return bootClock{}, nil
}
