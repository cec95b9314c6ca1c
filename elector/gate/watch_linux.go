package gate

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watch tells that something in a directory was replaced or removed.
type watch struct {
	dir  string
	file *os.File // nil if there are no more instances of inotify
	c    chan struct{}
	err  error
}

func newWatch(dir string) *watch {
	w := &watch{dir: dir, c: make(chan struct{}, 1)}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		w.err = fmt.Errorf("watching files: %w", err)
		return w
	}
	w.file = os.NewFile(uintptr(fd), "inotify")
	go w.read()
	return w
}

// renew watches the directory that has the name now. Usually it has been watched
// before, and nothing changes.
func (w *watch) renew() error {
	if w.file == nil {
		return w.err
	}
	control, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	if controlErr := control.Control(func(fd uintptr) {
		_, err = unix.InotifyAddWatch(int(fd), w.dir, unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_ONLYDIR)
	}); controlErr != nil {
		return controlErr
	}
	if err != nil {
		return fmt.Errorf("watching %s: %w", w.dir, err)
	}
	return nil
}

// read says that there was an event, whatever it was: everything is looked at anew
// anyhow.
func (w *watch) read() {
	var events [4096]byte
	for {
		if _, err := w.file.Read(events[:]); err != nil {
			return // closed
		}
		select {
		case w.c <- struct{}{}:
		default:
		}
	}
}

func (w *watch) close() {
	if w.file != nil {
		_ = w.file.Close()
	}
}
