package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetStart gives back the memory that only starting up needed: the pages of
// the program's own file that are mapped. The kernel maps whole runs of a file
// around each page that is touched, which leaves nearly all of the program
// resident though a candidate at rest uses a third of it. Pages that are needed
// again come back from the page cache.
func forgetStart() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasSuffix(lines.Text(), self) {
			continue
		}
		if strings.Contains(mode, "w") {
			continue // data may have been changed and would be lost
		}
		// The address is no Go pointer, so unix.Madvise, which takes a slice, won't do.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("giving back %s: %w", lines.Text(), errno)
		}
	}
	return lines.Err()
}
