//go:build unix

package gatekeeper

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// tryLock tells whether nobody has file locked.
func tryLock(file *os.File) (free bool, err error) {
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err == nil {
		err = unix.Flock(int(file.Fd()), unix.LOCK_UN)
	}
	return err == nil, err
}

// awaitLock waits until nobody has file locked.
func awaitLock(file *os.File) error {
	for {
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err // what is locked is let go when file is closed
		}
	}
}
