package gate

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// killDescendants kills all processes that descend from this one, by their groups as
// well: those that a group's members start meanwhile belong to it, and a signal to
// a group misses none.
func killDescendants() {
	self, own := os.Getpid(), unix.Getpgrp()
	for _, p := range descendants(self, processes()) {
		if p.group != own && p.group > 1 {
			_ = unix.Kill(-p.group, unix.SIGKILL)
		}
		_ = unix.Kill(p.pid, unix.SIGKILL)
	}
}

// process is one, as /proc tells of it.
type process struct{ pid, parent, group int }

// processes are all that there are; those that end meanwhile are left out.
func processes() (all []process) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what could be read has to do
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		p := process{pid: pid}
		var state string
		// The name, in brackets, may have any characters.
		if _, err := fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &p.parent, &p.group); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// descendants are those of all processes that descend from one.
func descendants(of int, all []process) (found []process) {
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	for parents := []int{of}; len(parents) > 0; parents = parents[1:] {
		found = append(found, children[parents[0]]...)
		for _, p := range children[parents[0]] {
			parents = append(parents, p.pid)
		}
	}
	return found
}
