package gate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const leads = `{"role":"leader","identity":"web-0_u","leader":"web-0","mode":"lease","fencingToken":7,"validUntilBoottime":9000}`

func TestLook(t *testing.T) {
	t.Parallel()
	file := func(name, text string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	leader := file("leader", "web-0\n")
	for name, tc := range map[string]struct {
		reason string
		make   []func(dir string) error
		want   Sight
	}{
		"empty":             {"nothing has begun", nil, Sight{}},
		"claim":             {"a claim is what both files say", []func(string) error{leader, file("status.json", leads)}, Sight{7, 9 * time.Second}},
		"withdrawn":         {"the leader file goes first", []func(string) error{file("status.json", leads)}, Sight{}},
		"no status":         {"the leader file says not until when", []func(string) error{leader}, Sight{}},
		"garbage":           {"it is no status", []func(string) error{leader, file("status.json", "\x00{")}, Sight{}},
		"half":              {"it is no status", []func(string) error{leader, file("status.json", leads[:40])}, Sight{}},
		"too much":          {"it is no status", []func(string) error{leader, file("status.json", leads[:1]+strings.Repeat(" ", maxStatus)+leads[1:])}, Sight{}},
		"as much as may be": {"it is one", []func(string) error{leader, file("status.json", leads[:1]+strings.Repeat(" ", maxStatus-len(leads))+leads[1:])}, Sight{7, 9 * time.Second}},
		"held":              {"the lock is held for work", []func(string) error{file("status.json", `{"role":"standby","mode":"lease","heldUntilBoottime":9000}`)}, Sight{0, 9 * time.Second}},
		"standby":           {"it has no claim", []func(string) error{file("status.json", `{"role":"standby","mode":"lease"}`)}, Sight{}},
		"no end":            {"it could not be stopped", []func(string) error{leader, file("status.json", `{"role":"leader","mode":"lease","fencingToken":7}`)}, Sight{}},
		"for life":          {"it could not be stopped", []func(string) error{leader, file("status.json", strings.Replace(leads, `"lease"`, `"leader-for-life"`, 1))}, Sight{}},
		"no token":          {"a claim has one", []func(string) error{leader, file("status.json", strings.Replace(leads, "7", "0", 1))}, Sight{}},
		"below zero":        {"no time is", []func(string) error{leader, file("status.json", strings.Replace(leads, "9000", "-9000", 1))}, Sight{}},
		"beyond all times":  {"no time is", []func(string) error{leader, file("status.json", strings.Replace(leads, "9000", "9223372036854775807", 1))}, Sight{}},
		"no number":         {"it is no status", []func(string) error{leader, file("status.json", strings.Replace(leads, "9000", `"9000"`, 1))}, Sight{}},
		"another role":      {"it is no status", []func(string) error{leader, file("status.json", strings.Replace(leads, "leader", "king", 1))}, Sight{}},
		"a pipe":            {"its writer is not waited for", []func(string) error{leader, func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "status.json"), 0o600) }}, Sight{}},
		"a directory":       {"it is no status", []func(string) error{leader, func(dir string) error { return os.Mkdir(filepath.Join(dir, "status.json"), 0o700) }}, Sight{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, m := range tc.make {
				if err := m(dir); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Look(dir)
			if err != nil || got != tc.want {
				t.Errorf("%s: %+v, %v, want %+v", tc.reason, got, err, tc.want)
			}
		})
	}
	t.Run("no directory", func(t *testing.T) {
		t.Parallel()
		if got, err := Look(filepath.Join(t.TempDir(), "absent")); err != nil || got != (Sight{}) {
			t.Errorf("%+v, %v: what is not there is no claim", got, err)
		}
	})
}

// FuzzParse holds that nothing in the file makes a claim that says not until when, or
// that any other reader of JSON would not see.
func FuzzParse(f *testing.F) {
	for _, s := range []string{leads, "", "{}", `{"role":"standby","mode":"lease","heldUntilBoottime":9000}`, leads + leads, `{"ROLE":"leader"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := parse(data)
		if got.Token != 0 && got.Until <= 0 || got.Until < 0 {
			t.Errorf("%q gives %+v", data, got)
		}
		if got != (Sight{}) && !json.Valid(data) {
			t.Errorf("%q is no JSON and gives %+v", data, got)
		}
	})
}

func TestSign(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		reason string
		name   string
		closed bool
		opened time.Duration
	}{
		"closed":  {"as it says", signClosed, true, 0},
		"line":    {"as the kernel shows it", signClosed + "\n", true, 0},
		"open":    {"as it says", signOpen(1234567 * time.Millisecond), false, 1234567 * time.Millisecond},
		"years":   {"the kernel keeps 15 bytes", signOpen(100 * 365 * 24 * time.Hour), false, 100 * 365 * 24 * time.Hour},
		"another": {"it is no gate", "pause", false, 0},
		"alike":   {"it is no gate", "gate:!", false, 0},
		"nothing": {"it is no gate", "", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if len(tc.name) > 15 && tc.name[len(tc.name)-1] != '\n' {
				t.Errorf("%q is more than the kernel keeps", tc.name)
			}
			if isClosed, opened := readSign(tc.name); isClosed != tc.closed || opened != tc.opened {
				t.Errorf("%s: %v, %v, want %v, %v", tc.reason, isClosed, opened, tc.closed, tc.opened)
			}
		})
	}
}
