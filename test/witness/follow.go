package witness

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// change is what the kernel told of a status directory.
type change int

const (
	changed change = iota + 1 // something was renamed into it, or removed
	removed                   // the leader file was removed
)

// follow tells of changes in a directory, and closes the channel when it can't any more. Where it can't at all, because the machine has
// no inotify left, the channel is nil. stop ends it.
func follow(dir string) (changes <-chan change, stop func()) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}
	}
	file := os.NewFile(uintptr(fd), "inotify") // which lets Close end a Read
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_DELETE|unix.IN_MOVED_TO); err != nil {
		file.Close()
		return nil, func() {}
	}
	c, done, ended := make(chan change), make(chan struct{}), make(chan struct{})
	go func() { // stop waits for it
		defer close(ended)
		defer close(c)
		buffer := make([]byte, 64<<10)
		for {
			n, err := file.Read(buffer)
			if err != nil {
				return
			}
			what := changed
			if removes(buffer[:n]) {
				what = removed
			}
			select {
			case c <- what:
			case <-done:
				return
			}
		}
	}()
	return c, func() {
		close(done)
		file.Close()
		<-ended
	}
}

// removes tells whether the leader file was removed. An event is four numbers, the first the watch, the second the mask, the last the
// length of the name after them.
func removes(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask, length := binary.NativeEndian.Uint32(events[4:]), binary.NativeEndian.Uint32(events[12:])
		end := min(len(events), unix.SizeofInotifyEvent+int(length))
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00")
		if mask&unix.IN_DELETE != 0 && name == leaderFile {
			return true
		}
		events = events[end:]
	}
	return false
}
