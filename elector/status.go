package elector

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Role is what a candidate is at the moment.
type Role string

const (
	// RoleLeader is held by at most one candidate of a lock at a time.
	RoleLeader Role = "leader"
	// RoleStandby is everybody else's.
	RoleStandby Role = "standby"
)

// Status is what a candidate tells its application. Its JSON form is
// status.json and GET /status: on one line, role first, the rest in the order
// below, so that a shell can read it.
type Status struct {
	Role Role `json:"role"`
	// Identity is this candidate's holder identity: <pod name>_<pod uid>.
	Identity string `json:"identity"`
	// Leader is the name of the leader's pod, as far as this candidate knows;
	// empty when nobody is known to lead.
	Leader    string `json:"leader"`
	Lock      string `json:"lock"`
	Namespace string `json:"namespace"`
	Mode      Mode   `json:"mode"`
	// FencingToken grows with every change of leader. Absent on standbys.
	FencingToken uint64 `json:"fencingToken,omitempty"`
	// Since is when the role last changed.
	Since time.Time `json:"since"`
	// Renewed is when the last successful renewal of the claim was sent. Absent
	// on standbys and in leader-for-life.
	Renewed *time.Time `json:"renewed,omitempty"`
	// ValidUntil is when the claim ends unless it is renewed before. Absent on
	// standbys and in leader-for-life.
	ValidUntil *time.Time `json:"validUntil,omitempty"`
	// ValidUntilBoottime is the same moment in milliseconds of CLOCK_BOOTTIME,
	// rounded down, for readers on the same kernel that trust no wall clock. It
	// means nothing after a reboot. Absent where ValidUntil is.
	ValidUntilBoottime *int64 `json:"validUntilBoottime,omitempty"`
	// HeldUntilBoottime is until when the lock is held, though nobody claims it, unless
	// it is renewed before: for work of the last claim that has not ended. Milliseconds
	// of CLOCK_BOOTTIME, rounded down. What works on has to end before. Absent on
	// leaders, on standbys without such work, and in leader-for-life.
	HeldUntilBoottime *int64 `json:"heldUntilBoottime,omitempty"`
	// LockVersion is the lock's resourceVersion as it was last known in this
	// claim. A sidecar that is restarted resumes the claim from exactly that.
	// Absent on standbys, but for one that was stopped in leader-for-life and so
	// left its lock to its Pod.
	LockVersion uint64 `json:"lockVersion,omitempty"`
	// Reason is why this process does not contend at all, in words for people. Absent
	// on candidates.
	Reason string `json:"reason,omitempty"`
}

// MarshalJSON writes times with a fixed width: in UTC, with three digits of
// fraction, as in "2026-11-20T12:00:00.000Z". What is finer is cut off, so that a
// validUntil is never too late. Decoding takes any RFC 3339.
func (s Status) MarshalJSON() ([]byte, error) {
	type asDeclared Status
	return json.Marshal(struct {
		asDeclared

		// These hide their namesakes, which end here so that the order stays.
		Since              wallTime  `json:"since"`
		Renewed            *wallTime `json:"renewed,omitempty"`
		ValidUntil         *wallTime `json:"validUntil,omitempty"`
		ValidUntilBoottime *int64    `json:"validUntilBoottime,omitempty"`
		HeldUntilBoottime  *int64    `json:"heldUntilBoottime,omitempty"`
		LockVersion        uint64    `json:"lockVersion,omitempty"`
		Reason             string    `json:"reason,omitempty"`
	}{
		asDeclared(s), wallTime(s.Since), (*wallTime)(s.Renewed), (*wallTime)(s.ValidUntil), s.ValidUntilBoottime, s.HeldUntilBoottime, s.LockVersion, s.Reason,
	})
}

// wallTime is a time in a form that Python before 3.11 can read: its
// fromisoformat wants three or six digits of fraction, or none.
type wallTime time.Time

// MarshalText writes t with three digits of fraction.
func (t wallTime) MarshalText() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z07:00"), nil
}

// The files in the status directory.
const (
	LeaderFile = "leader"
	StatusFile = "status.json"
)

// StatusDir is the directory in which the application reads whether it leads.
// Every file in it is complete at any moment: it is written under another name
// and renamed.
type StatusDir string

// Withdraw removes the leader file, whoever left it, and makes the directory if
// there is none. It is what a process does before anything else.
//
// It returns the status that an earlier process left, or nil if there is none
// that elector could have written; whether it was this candidate's is for the
// caller to compare. Its times may be of a boot before: only its other fields
// mean something to a process that did not write it.
func (d StatusDir) Withdraw() (last *Status, err error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil { //nolint:gosec // the application runs as another user and has to read it
		return nil, fmt.Errorf("making the status directory: %w", err)
	}
	if err := d.removeLeader(); err != nil {
		return nil, err
	}
	return d.last(), nil
}

// maxStatus is many times what a status needs: names in it have at most 253
// bytes.
const maxStatus = 64 << 10

// last is what status.json says, if it is a status. A file that is not is as good
// as none, so there are no errors.
func (d StatusDir) last() *Status {
	path := filepath.Join(string(d), StatusFile)
	// Opening a named pipe would wait for its writer.
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() > maxStatus {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	s := new(Status)
	if err := json.Unmarshal(data, s); err != nil || !s.plausible() {
		return nil
	}
	return s
}

// plausible reports whether elector could have written s.
func (s Status) plausible() bool {
	return (s.Role == RoleLeader || s.Role == RoleStandby) && (s.Mode == ModeLease || s.Mode == ModeLeaderForLife) && s.Identity != ""
}

// Announce writes s. A leader's status.json is written before the leader file
// appears; a standby's leader file is gone before anything else is done. After
// an error the directory claims no more than it did before, and no leadership
// if s is a standby's and the leader file could be removed.
func (d StatusDir) Announce(s Status) error {
	if s.Role != RoleLeader {
		return errors.Join(d.removeLeader(), d.writeStatus(s))
	}
	if err := d.writeStatus(s); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(string(d), LeaderFile)); err == nil {
		return nil // a renewal; the file was removed when the last claim ended
	}
	return d.write(LeaderFile, []byte(NameOf(s.Identity)+"\n"))
}

func (d StatusDir) removeLeader() error {
	err := os.Remove(filepath.Join(string(d), LeaderFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the leader file: %w", err)
	}
	return nil
}

func (d StatusDir) writeStatus(s Status) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding the status: %w", err)
	}
	err = d.write(StatusFile, append(data, '\n'))
	if err != nil && s.Role != RoleLeader {
		// No status is better than one that still claims.
		err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(string(d), StatusFile))))
	}
	return err
}

// write replaces the file name in one step.
func (d StatusDir) write(name string, data []byte) error {
	path := filepath.Join(string(d), name)
	temporary := filepath.Join(string(d), "."+name+".tmp")
	err := os.WriteFile(temporary, data, 0o644) //nolint:gosec // the application runs as another user and has to read it
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the status: %w", err), ignoreMissing(os.Remove(temporary)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
