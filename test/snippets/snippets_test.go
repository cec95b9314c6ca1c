// Package snippets runs what the README tells applications to do, as it stands there, on the oldest shells, Go and Python that it
// promises, against files of all kinds. What can't be read or understood must be no leadership.
package snippets

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/embedded"
)

// snippet is the README's function leads in a language, with paths replaced.
func snippet(t *testing.T, language string, oldnew ...string) string {
	t.Helper()
	root, err := embedded.Root()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```" + language + "\n(.*?leads.*?)```").FindSubmatch(readme)
	if m == nil {
		t.Fatalf("the README has no function leads in %s", language)
	}
	text := string(m[1])
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("the README's function leads in %s does not read %s", language, oldnew[i])
		}
		text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
	}
	return text
}

// in replaces the path of status.json by one in the working directory.
var in = []string{"/var/run/elector/status.json", "status.json"}

// program makes a snippet one that answers for each of the directories that are its arguments, in a line: "<directory> <true or false>".
var program = map[string]struct{ before, after string }{
	"sh": {after: `
for dir in "$@"; do
	(cd "$dir" && if leads; then echo "$dir true"; else echo "$dir false"; fi)
done
`},
	// The line of go:build makes it Go 1.21, whatever go.mod says.
	"go": {"//go:build go1.21\n\npackage main\n\nimport (\n\"encoding/json\"\n\"fmt\"\n\"io\"\n\"os\"\n\n\"golang.org/x/sys/unix\"\n)\n\n", `
func main() {
	for _, dir := range os.Args[1:] {
		if err := os.Chdir(dir); err != nil {
			panic(err)
		}
		fmt.Println(dir, leads())
	}
}
`},
	"python": {after: `
import os, sys

for directory in sys.argv[1:]:
    os.chdir(directory)
    try:
        print(directory, str(leads()).lower())
    except BaseException as e:
        print(directory, "raised", repr(e))
`},
}

// runners are the programs that run the snippets.
var runners = map[string]struct {
	language string
	command  []string
}{
	"dash":    {"sh", []string{"dash", "-u"}},
	"busybox": {"sh", []string{"busybox", "sh", "-u"}},
	"bash":    {"sh", []string{"bash", "--posix", "-u"}},
	"python3": {"python", []string{"python3"}},
	"pypy3":   {"python", []string{"pypy3"}}, // Debian's and Ubuntu's is Python 3.9
	"go":      {"go", []string{"go"}},
}

// lookFor skips a test whose program is not there, which does not happen in CI.
func lookFor(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("not tested with it:", err)
		}
		t.Skip("not tested with it:", err)
	}
}

func TestSnippets(t *testing.T) {
	t.Parallel()
	for name, test := range runners {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lookFor(t, test.command[0])
			source := program[test.language].before + snippet(t, test.language, in...) + program[test.language].after
			command := append(slices.Clone(test.command), writeFile(t, t.TempDir(), "leads."+test.language, source))
			if test.language == "go" {
				command = []string{build(t, command[len(command)-1])}
			}
			answers(t, command, cases(t))
		})
	}
}

// build compiles a file against the packages of this module.
func build(t *testing.T, source string) (binary string) {
	t.Helper()
	root, err := embedded.Root()
	if err != nil {
		t.Fatal(err)
	}
	return buildIn(t, root, source)
}

// buildIn compiles a file against the packages of the module of a directory.
func buildIn(t *testing.T, dir, source string) (binary string) {
	t.Helper()
	binary = strings.TrimSuffix(source, ".go")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compiling Go: %v\n%s", err, out)
	}
	return binary
}

// answers runs command once for all cases and compares.
func answers(t *testing.T, command []string, cases map[string]testCase) {
	t.Helper()
	base, dirs := t.TempDir(), map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(cases)) {
		dir := filepath.Join(base, strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		dirs[dir] = name
		if file := cases[name].file; file != missing {
			writeFile(t, dir, elector.StatusFile, file)
		}
	}
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], slices.Sorted(maps.Keys(dirs))...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v: %v", command, err)
	}
	got := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		dir, answer, _ := strings.Cut(lines.Text(), " ")
		got[dirs[dir]] = answer
	}
	for name, c := range cases {
		if want := strconv.FormatBool(c.leads); got[name] != want {
			t.Errorf("%s: leads is %q, want %q: %s\n%.300s", name, got[name], want, c.reason, c.file)
		}
	}
	if t.Failed() {
		t.Logf("it complained:\n%s", &stderr)
	}
}

type testCase struct {
	reason, file string
	leads        bool
}

// missing stands for no file.
const missing = "missing"

// cases are files and what is right.
func cases(t *testing.T) map[string]testCase {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	wall, boot := time.Now(), ts.Nano()/1e6
	status := func(change func(*elector.Status)) string {
		renewed, until := wall, wall.Add(time.Hour)
		bootUntil := boot + time.Hour.Milliseconds()
		s := elector.Status{
			Role: elector.RoleLeader, Identity: "web-0_3b1c", Leader: "web-0", Lock: "web", Namespace: "default", Mode: elector.ModeLease,
			FencingToken: 7, Since: wall, Renewed: &renewed, ValidUntil: &until, ValidUntilBoottime: &bootUntil, LockVersion: 9,
		}
		change(&s)
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(data) + "\n"
	}
	leader := status(func(*elector.Status) {})
	forLife := status(func(s *elector.Status) {
		s.Mode, s.Renewed, s.ValidUntil, s.ValidUntilBoottime = elector.ModeLeaderForLife, nil, nil, nil
	})
	standby := status(func(s *elector.Status) {
		*s = elector.Status{Role: elector.RoleStandby, Identity: s.Identity, Leader: "web-1", Lock: "web", Namespace: "default", Mode: elector.ModeLease, Since: wall}
	})
	until := regexp.MustCompile(`("validUntilBoottime":)\d+`)
	with := func(value string) string { return until.ReplaceAllString(leader, "${1}"+value) }
	valid := until.FindString(leader)
	cases := map[string]testCase{
		"leader":          {"the claim holds", leader, true},
		"leader-for-life": {"the claim does not run out", forLife, true},
		"standby":         {"it says so", standby, false},
		"run out": {
			"the claim is over", status(func(s *elector.Status) {
				past, bootPast := time.Date(2020, 1, 1, 0, 0, 0, 1e6, time.UTC), int64(1)
				s.Since, s.Renewed, s.ValidUntil, s.ValidUntilBoottime = past, &past, &past, &bootPast
			}), false,
		},
		"wall clock set back": {
			"the claim is over by the clock that nobody sets", with(strconv.FormatInt(boot-1, 10)), false,
		},
		"wall clock set forward": {
			"the claim holds by the clock that nobody sets", status(func(s *elector.Status) { *s.ValidUntil = wall.Add(-time.Hour) }), true,
		},
		"no newline":      {"the line is complete", strings.TrimSpace(leader), true},
		"last":            {"nothing has to follow", strings.Replace(leader, `,"lockVersion":9`, "", 1), true},
		"unknown field":   {"a later version may add some", strings.Replace(leader, `"lockVersion":9`, `"lockVersion":9,"later":[{"x":"}"}]`, 1), true},
		"unknown role":    {"only a leader leads", strings.Replace(leader, `"role":"leader"`, `"role":"leader2"`, 1), false},
		"role of another": {"what leads is in another object", strings.Replace(standby, "{", `{"later":{"role":"leader",`+valid+`},`, 1), false},
		"time of another": {
			"what lasts is in another object",
			strings.Replace(with(strconv.FormatInt(boot-1, 10)), `"lockVersion":9`, `"lockVersion":9,"later":{`+valid+`,"x":1}`, 1), false,
		},
		"unknown mode": {
			"only a leader for life needs no end", strings.Replace(forLife, `"leader-for-life"`, `"later"`, 1), false,
		},
		"role in a name": {
			"a name is only a name", status(func(s *elector.Status) {
				s.Role, s.Leader = elector.RoleStandby, `{"role":"leader","mode":"leader-for-life",`+valid+`,`
			}), false,
		},
		"mode in a name": {
			"a name is only a name", status(func(s *elector.Status) {
				past := boot - 1
				s.Leader, s.ValidUntilBoottime = `"mode":"leader-for-life"`, &past
			}), false,
		},
		"time in a name": {
			"a name is only a name", status(func(s *elector.Status) {
				past := boot - 1
				s.Leader, s.ValidUntilBoottime = valid, &past
			}), false,
		},
		"no role":         {"nobody said so", strings.Replace(leader, `"role":"leader",`, "", 1), false},
		"no time":         {"a lease without an end is none", strings.Replace(leader, ","+valid, "", 1), false},
		"time of text":    {"it is not a number", with(`"99999999999999"`), false},
		"time of letters": {"it is not JSON", with("9999999999999x"), false},
		"time null":       {"it is not a number", with("null"), false},
		"time true":       {"it is not a number", with("true"), false},
		"time of a list":  {"it is not a number", with("[99999999999999]"), false},
		"time of a map":   {"it is not a number", with(`{"x":99999999999999}`), false},
		"time empty":      {"it is not JSON", with(""), false},
		"time negative":   {"the machine ran already", with("-99999999999999"), false},
		"time zero":       {"the machine ran already", with("0"), false},
		"time broken":     {"milliseconds are whole", with("99999999999999.5"), false},
		"time infinite":   {"Python's parser takes it", with("Infinity"), false},
		"time 1e999":      {"no machine will see it", with("1e999"), false},
		"time too large":  {"it is beyond 64 bits", with("9223372036854775808"), false},
		"time huge":       {"it is beyond everything", with(strings.Repeat("9", 5000)), false},
		"role of a list":  {"it is not a text", strings.Replace(leader, `"role":"leader"`, `"role":["leader"]`, 1), false},
		"role of a map":   {"it is not a text", strings.Replace(leader, `"role":"leader"`, `"role":{"role":"leader"}`, 1), false},
		"role null":       {"it is not a text", strings.Replace(leader, `"role":"leader"`, `"role":null`, 1), false},
		"role true":       {"it is not a text", strings.Replace(leader, `"role":"leader"`, `"role":true`, 1), false},
		"missing":         {"there is nothing to read", missing, false},
		"empty":           {"nothing is said", "", false},
		"newline":         {"nothing is said", "\n", false},
		"object":          {"nothing is said", "{}", false},
		"null":            {"nothing is said", "null", false},
		"list":            {"nothing is said", "[]", false},
		"list of it":      {"it is another thing", "[" + strings.TrimSpace(leader) + "]", false},
		"text":            {"it is another thing", `"leader"`, false},
		"word":            {"it is another thing", "leader", false},
		"number":          {"it is another thing", "1", false},
		"binary":          {"it is another thing", "\x00\xff\xfe{\x01\x80\n\x00}", false},
		"zeros":           {"a disk was full", strings.Repeat("\x00", 512), false},
		"not UTF-8":       {"it is another thing", "{\"role\":\"leader\xff\"," + valid + "}", false},
		"deep":            {"it would take a stack", strings.Repeat("[", 60000), false},
		"huge":            {"it would take memory", strings.Repeat("x", 8<<20), false},
		"huge and valid":  {"it would take memory", strings.Replace(leader, ","+valid, `,"later":"`+strings.Repeat("x", 8<<20)+`",`+valid, 1), false},
	}
	for i := range len(strings.TrimSpace(leader)) {
		cases[fmt.Sprintf("leader, first %d bytes", i)] = testCase{"the rest is not there", leader[:i], false}
	}
	for i := range len(strings.TrimSpace(forLife)) {
		cases[fmt.Sprintf("leader-for-life, first %d bytes", i)] = testCase{"the rest is not there", forLife[:i], false}
	}
	return cases
}

// The shell has no clock but a file, in hundredths of a second. Others may have put their own in its place.
func TestShellClock(t *testing.T) {
	t.Parallel()
	const (
		proc  = "proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n"
		lxcfs = proc + "lxcfs /proc/uptime fuse.lxcfs rw,nosuid,nodev,relatime 0 0\n"
	)
	clocks := map[string]struct {
		reason, uptime, mounts string
		until                  string
		leads                  bool
	}{
		"before":           {"it is 1000.129 at the latest", "1000.12 5.00\n", proc, "1000130", true},
		"perhaps after":    {"it may be 1000.129", "1000.12 5.00\n", proc, "1000129", false},
		"after":            {"it is over", "1000.12 5.00\n", proc, "1000120", false},
		"first second":     {"what begins with 0 is not octal", "0.89 0.00\n", proc, "900", true},
		"first second out": {"what begins with 0 is not octal", "0.89 0.00\n", proc, "899", false},
		"three years":      {"more than 32 bits of milliseconds", "94608000.00 5.00\n", proc, "94608000010", true},
		"three years out":  {"more than 32 bits of milliseconds", "94608000.00 5.00\n", proc, "94608000009", false},
		"no clock":         {"nobody knows the time", missing, proc, "99999999999", false},
		"empty":            {"nobody knows the time", "", proc, "99999999999", false},
		"garbage":          {"nobody knows the time", "soon\n", proc, "99999999999", false},
		"lxcfs":            {"it shows how long the container has run", "1.00 5.00\n", lxcfs, "99999999999", false},
	}
	for name, shell := range runners {
		if shell.language != "sh" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lookFor(t, shell.command[0])
			for name, clock := range clocks {
				dir := t.TempDir()
				uptime := filepath.Join(dir, "uptime")
				if clock.uptime != missing {
					writeFile(t, dir, "uptime", clock.uptime)
				}
				mounts := writeFile(t, dir, "mounts", clock.mounts)
				source := snippet(t, "sh", append(slices.Clone(in), "</proc/uptime", "<"+uptime, "/proc/self/mounts", mounts)...)
				command := append(slices.Clone(shell.command), writeFile(t, dir, "leads.sh", source+program["sh"].after))
				answers(t, command, map[string]testCase{
					name: {clock.reason, `{"role":"leader","mode":"lease","validUntilBoottime":` + clock.until + "}\n", clock.leads},
				})
			}
		})
	}
}

func writeFile(t *testing.T, dir, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
