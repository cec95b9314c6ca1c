package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The files in the status directory, which the elector writes.
const (
	// LockFile is the file on which every gate takes a share of the lock.
	LockFile   = "gate.lock"
	leaderFile = "leader"
	statusFile = "status.json"
)

// maxStatus is many times what a status needs, in bytes.
const maxStatus = 64 << 10

// status is what a gate reads of status.json. Package elector has it whole, and with
// it much that the wrapper, which is in every container, has no use for.
type status struct {
	Role               string `json:"role"`
	Mode               string `json:"mode"`
	FencingToken       uint64 `json:"fencingToken"`
	ValidUntilBoottime int64  `json:"validUntilBoottime"`
	HeldUntilBoottime  int64  `json:"heldUntilBoottime"`
}

// Look reads what the status directory says. What is not there, or no status, is no
// claim; an error is one that may go away.
func Look(dir string) (Sight, error) {
	data, err := readStatus(filepath.Join(dir, statusFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Sight{}, nil
	}
	if err != nil {
		return Sight{}, fmt.Errorf("reading the status: %w", err)
	}
	sight := parse(data)
	if sight.Token == 0 {
		return sight, nil
	}
	// Who withdraws a claim removes this file first.
	switch _, err := os.Lstat(filepath.Join(dir, leaderFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return Sight{}, nil
	case err != nil:
		return Sight{}, fmt.Errorf("looking for the leader file: %w", err)
	}
	return sight, nil
}

// readStatus reads a file, of which it takes no more than tells that it is no status.
func readStatus(path string) ([]byte, error) {
	// Opening a named pipe would wait for its writer.
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxStatus+1))
}

// parse reads the text of status.json. In leader-for-life a claim has no end before
// which anything could be stopped, and so is none for a gate.
func parse(data []byte) Sight {
	var s status
	if len(data) > maxStatus || json.Unmarshal(data, &s) != nil || s.Mode != "lease" {
		return Sight{}
	}
	switch s.Role {
	case "leader":
		if until := moment(s.ValidUntilBoottime); until > 0 && s.FencingToken != 0 {
			return Sight{Token: s.FencingToken, Until: until}
		}
	case "standby":
		return Sight{Until: moment(s.HeldUntilBoottime)}
	}
	return Sight{}
}

// moment is a time of CLOCK_BOOTTIME in milliseconds, 0 if there can't be one such.
func moment(ms int64) time.Duration {
	if ms < 0 || ms > int64(forever/time.Millisecond) {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}
