package elector

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
	if last, err := dir.Withdraw(); last != nil || err != nil {
		t.Fatalf("where nobody has been: %v, %v", last, err)
	}
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	renewed, until := at.Add(time.Second), at.Add(11*time.Second)
	boottime := int64(86400123)
	leader := Status{
		Role: RoleLeader, Identity: "web-0_uid", Leader: "web-0", Lock: "web", Namespace: "default", Mode: ModeLease,
		FencingToken: 7, Since: at, Renewed: &renewed, ValidUntil: &until, ValidUntilBoottime: &boottime, LockVersion: 9,
	}
	if err := dir.Announce(leader); err != nil {
		t.Fatal(err)
	}
	if got := read("leader"); got != "web-0\n" {
		t.Errorf("leader file: %q", got)
	}
	const want = `{"role":"leader","identity":"web-0_uid","leader":"web-0","lock":"web","namespace":"default","mode":"lease",` +
		`"fencingToken":7,"since":"2026-11-20T12:00:00.000Z","renewed":"2026-11-20T12:00:01.000Z",` +
		`"validUntil":"2026-11-20T12:00:11.000Z","validUntilBoottime":86400123,"lockVersion":9}` + "\n"
	if got := read("status.json"); got != want {
		t.Errorf("status.json:\n got %s\nwant %s", got, want)
	}
	if err := dir.Announce(Status{Role: RoleStandby, Identity: "web-0_uid", Since: at}); err != nil {
		t.Fatal(err)
	}
	if got := read("leader"); got != "none" {
		t.Errorf("leader file of a standby: %q", got)
	}
	const wantStandby = `{"role":"standby","identity":"web-0_uid","leader":"","lock":"","namespace":"","mode":"","since":"2026-11-20T12:00:00.000Z"}` + "\n"
	if got := read("status.json"); got != wantStandby {
		t.Errorf("status.json of a standby:\n got %s\nwant %s", got, wantStandby)
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

func TestStatusTimes(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	for name, test := range map[string]struct {
		reason, want string
		time         time.Time
	}{
		"whole second": {"the fraction is there all the same", "2026-11-20T12:00:00.000Z", time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)},
		"tenth":        {"zeros at the end stay", "2026-11-20T12:00:00.100Z", time.Date(2026, 11, 20, 12, 0, 0, 1e8, time.UTC)},
		"nanoseconds":  {"rounded up, a claim would last too long", "2026-11-20T12:00:00.999Z", time.Date(2026, 11, 20, 12, 0, 0, 999_999_999, time.UTC)},
		"other zone":   {"readers replace Z and know nothing else", "2026-11-20T12:00:00.000Z", time.Date(2026, 11, 20, 13, 0, 0, 0, berlin)},
		"zero":         {"nothing has happened yet", "0001-01-01T00:00:00.000Z", time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := json.Marshal(Status{Since: test.time, Renewed: &test.time, ValidUntil: &test.time})
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(data, &got); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"since", "renewed", "validUntil"} {
				if got[key] != test.want {
					t.Errorf("%s is %q, want %q: %s", key, got[key], test.want, test.reason)
				}
			}
		})
	}
}

func TestWithdraw(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 45e6, time.UTC)
	boottime := int64(1 << 53)
	const leader = `{"role":"leader","identity":"web-0_uid","leader":"web-0","lock":"web","namespace":"default","mode":"lease","fencingToken":7,` +
		`"since":"2026-11-20T12:00:00.045Z","renewed":"2026-11-20T12:00:00.045Z","validUntil":"2026-11-20T12:00:00.045Z",` +
		`"validUntilBoottime":9007199254740992,"lockVersion":18446744073709551615}`
	written := func(change func(*Status)) *Status {
		s := &Status{
			Role: RoleLeader, Identity: "web-0_uid", Leader: "web-0", Lock: "web", Namespace: "default", Mode: ModeLease, FencingToken: 7,
			Since: at, Renewed: &at, ValidUntil: &at, ValidUntilBoottime: &boottime, LockVersion: math.MaxUint64,
		}
		change(s)
		return s
	}
	for name, test := range map[string]struct {
		reason, file string
		want         *Status
	}{
		"leader": {"what was written comes back", leader, written(func(*Status) {})},
		"earlier version": {
			"it wrote times of any width, and neither validUntilBoottime nor lockVersion",
			strings.NewReplacer(".045Z", "Z", `,"validUntilBoottime":9007199254740992,"lockVersion":18446744073709551615`, "").Replace(leader),
			written(func(s *Status) {
				whole := at.Truncate(time.Second)
				s.Since, s.Renewed, s.ValidUntil, s.ValidUntilBoottime, s.LockVersion = whole, &whole, &whole, nil, 0
			}),
		},
		"later version": {
			"what it has more is passed over", strings.Replace(leader, "{", `{"later":[1],`, 1), written(func(*Status) {}),
		},
		"standby": {
			"it has no claim", `{"role":"standby","identity":"web-0_uid","mode":"leader-for-life"}`,
			&Status{Role: RoleStandby, Identity: "web-0_uid", Mode: ModeLeaderForLife},
		},
		"empty":            {"it is no JSON", "", nil},
		"truncated":        {"it is no JSON", leader[:len(leader)-1], nil},
		"two":              {"it is no JSON", leader + leader, nil},
		"binary":           {"it is no JSON", "\x00\xff\xfe{\x01}", nil},
		"deep":             {"it is no JSON that anybody reads", strings.Repeat("[", maxStatus), nil},
		"null":             {"it says nothing", "null", nil},
		"object":           {"it says nothing", "{}", nil},
		"array":            {"it is no object", "[" + leader + "]", nil},
		"wrong type":       {"a version is a number", strings.Replace(leader, "18446744073709551615", `"1"`, 1), nil},
		"negative version": {"a version is not negative", strings.Replace(leader, "18446744073709551615", "-1", 1), nil},
		"large version":    {"a version has 64 bits", strings.Replace(leader, "18446744073709551615", "18446744073709551616", 1), nil},
		"no time":          {"nobody knows what was meant", strings.Replace(leader, "2026-11-20T", "yesterday ", 1), nil},
		"role":             {"nobody knows what is meant", strings.Replace(leader, `"role":"leader"`, `"role":"king"`, 1), nil},
		"mode":             {"nobody knows what is meant", strings.Replace(leader, `"mode":"lease"`, `"mode":"luck"`, 1), nil},
		"nobody":           {"nobody's claim can't be resumed", strings.Replace(leader, `"web-0_uid"`, `""`, 1), nil},
		"large":            {"the largest that is read", leader + strings.Repeat(" ", maxStatus-len(leader)), written(func(*Status) {})},
		"huge":             {"it would cost memory to find out", leader + strings.Repeat(" ", maxStatus-len(leader)+1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, withdraw(t, []byte(test.file))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

// withdraw returns what is read of a status.json, beside a leader file that has
// to go in any case.
func withdraw(t *testing.T, file []byte) *Status {
	t.Helper()
	dir := StatusDir(t.TempDir())
	for name, content := range map[string][]byte{StatusFile: file, LeaderFile: []byte("web-0\n")} {
		if err := os.WriteFile(filepath.Join(string(dir), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	last, err := dir.Withdraw()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(string(dir), LeaderFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leader file: %v", err)
	}
	return last
}

// What is no file is no status, and nothing waits for it.
func TestWithdrawNoFile(t *testing.T) {
	for name, made := range map[string]func(path string) error{
		"directory":  func(path string) error { return os.Mkdir(path, 0o700) },
		"named pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link":       func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := StatusDir(t.TempDir())
			if err := made(filepath.Join(string(dir), StatusFile)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(string(dir), LeaderFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if last, err := dir.Withdraw(); last != nil || err != nil {
				t.Errorf("got %v, %v", last, err)
			}
			if _, err := os.Stat(filepath.Join(string(dir), LeaderFile)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the leader file: %v", err)
			}
		})
	}
}

// TestWithdrawFails leaves a claim that could not be taken back to the caller to
// report, as an error.
func TestWithdrawFails(t *testing.T) {
	dir := StatusDir(t.TempDir())
	if err := os.MkdirAll(filepath.Join(string(dir), LeaderFile, "in-the-way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if last, err := dir.Withdraw(); last != nil || err == nil {
		t.Errorf("got %v, %v", last, err)
	}
	if _, err := StatusDir(filepath.Join(string(dir), LeaderFile, "in-the-way", "\x00")).Withdraw(); err == nil {
		t.Error("a directory that can't be made is no error")
	}
}

// FuzzWithdraw looks for a file that ends the process, keeps the leader file, or
// is taken for a status that would be written otherwise.
func FuzzWithdraw(f *testing.F) {
	f.Add([]byte(`{"role":"leader","identity":"web-0_uid","mode":"lease","fencingToken":7,"since":"2026-11-20T12:00:00.045+01:00",` +
		`"validUntil":"2026-11-20T12:00:00Z","validUntilBoottime":-1,"lockVersion":9}`))
	f.Add([]byte(`{"role":"standby","identity":"\ud800","mode":"leader-for-life","x":[{}]}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		last := withdraw(t, file)
		if last == nil {
			return
		}
		data, err := json.Marshal(last)
		if err != nil {
			t.Fatalf("%q is read as %+v, which can't be written: %v", file, last, err)
		}
		if len(data) > maxStatus {
			return // characters that are written longer than they came
		}
		again := withdraw(t, data)
		if again == nil {
			t.Fatalf("%q is written as %s, which can't be read", file, data)
		}
		data2, err := json.Marshal(again)
		if err != nil || !bytes.Equal(data, data2) {
			t.Errorf("%q is written as %s, then as %s, %v", file, data, data2, err)
		}
	})
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
