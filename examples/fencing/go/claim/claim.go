// Package claim tells whether this pod leads, and with which fencing token.
package claim

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Token returns the token of this pod's claim, and whether it leads at all. What cannot be understood is no leadership.
func Token() (token int64, leads bool) {
	dir := os.Getenv("ELECTOR_STATUS_DIR")
	if dir == "" {
		dir = "/var/run/elector"
	}
	return TokenIn(filepath.Join(dir, "status.json"))
}

// TokenIn is Token for a status.json elsewhere.
func TokenIn(path string) (token int64, leads bool) {
	var status struct {
		Role, Mode         string
		FencingToken       int64
		ValidUntilBoottime int64 // absent in leader-for-life
	}
	file, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil || json.Unmarshal(data, &status) != nil || status.Role != "leader" || status.FencingToken <= 0 {
		return 0, false
	}
	var now unix.Timespec
	leads = status.Mode == "leader-for-life" ||
		unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) == nil && now.Nano()/1e6 < status.ValidUntilBoottime
	return status.FencingToken, leads
}
