package elector

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStatusDir(t *testing.T) {
	dir := StatusDir(filepath.Join(t.TempDir(), "made"))
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(string(dir), name))
		if errors.Is(err, os.ErrNotExist) {
			return "none"
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if err := dir.Withdraw(); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	leader := Status{
		Role: RoleLeader, Identity: "web-0_uid", Leader: "web-0", Lock: "web", Namespace: "default", Mode: ModeLease,
		FencingToken: 7, Since: at, Renewed: &at, ValidUntil: &at,
	}
	if err := dir.Announce(leader); err != nil {
		t.Fatal(err)
	}
	if got := read("leader"); got != "web-0\n" {
		t.Errorf("leader file: %q", got)
	}
	const want = `{"role":"leader","identity":"web-0_uid","leader":"web-0","lock":"web","namespace":"default","mode":"lease",` +
		`"fencingToken":7,"since":"2026-11-20T12:00:00Z","renewed":"2026-11-20T12:00:00Z","validUntil":"2026-11-20T12:00:00Z"}` + "\n"
	if got := read("status.json"); got != want {
		t.Errorf("status.json:\n got %s\nwant %s", got, want)
	}
	if err := dir.Announce(Status{Role: RoleStandby, Identity: "web-0_uid", Since: at}); err != nil {
		t.Fatal(err)
	}
	if got := read("leader"); got != "none" {
		t.Errorf("leader file of a standby: %q", got)
	}
	if got := read("status.json"); !strings.Contains(got, `"role":"standby"`) || strings.Contains(got, "validUntil") {
		t.Errorf("status.json of a standby: %s", got)
	}
	entries, err := os.ReadDir(string(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v %v", entries, err)
	}
}

// TestStatusDirFull uses a directory where the name of a temporary file is taken,
// which fails writes for root too.
func TestStatusDirFull(t *testing.T) {
	dir := StatusDir(t.TempDir())
	if err := dir.Announce(Status{Role: RoleLeader, Identity: "web-0_uid"}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(string(dir), ".status.json.tmp", "in-the-way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := dir.Announce(Status{Role: RoleStandby, Identity: "web-0_uid"}); err == nil {
		t.Error("a status that could not be written is no error")
	}
	for _, name := range []string{LeaderFile, StatusFile} {
		if _, err := os.Stat(filepath.Join(string(dir), name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s still claims: %v", name, err)
		}
	}
	if err := dir.Announce(Status{Role: RoleLeader, Identity: "web-0_uid"}); err == nil {
		t.Error("a claim that could not be written is no error")
	}
	if _, err := os.Stat(filepath.Join(string(dir), LeaderFile)); !errors.Is(err, os.ErrNotExist) {
		t.Error("there is a leader file without a status")
	}
}

func TestNameOf(t *testing.T) {
	for identity, want := range map[string]string{
		"web-0_3b1c": "web-0", "host_a_b": "host_a", "plain": "plain", "_odd": "_odd", "": "",
	} {
		if got := NameOf(identity); got != want {
			t.Errorf("NameOf(%q) = %q, want %q", identity, got, want)
		}
	}
}

// TestBootClock compares the alarm with the clock it is set by.
func TestBootClock(t *testing.T) {
	clock, err := newBootClock()
	if err != nil {
		t.Fatal(err)
	}
	alarm, err := clock.NewAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer alarm.Close()
	for _, in := range []time.Duration{-time.Second, 0, 20 * time.Millisecond} {
		at := clock.Now() + in
		alarm.Set(at)
		<-alarm.C()
		if now := clock.Now(); now < at {
			t.Errorf("woken %v early", at-now)
		}
	}
	alarm.Set(forever)
	alarm.Set(clock.Now())
	<-alarm.C()
}
