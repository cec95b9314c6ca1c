package sandbox

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// needNamespaces skips where the system forbids what the package is made of.
func needNamespaces(t *testing.T) {
	t.Helper()
	if err := Check(t.TempDir()); err != nil {
		t.Skip(err)
	}
}

func start(t *testing.T, spec Spec) (*Process, func() string) {
	t.Helper()
	dir := t.TempDir()
	spec.Root = filepath.Join(dir, "root")
	if err := os.Mkdir(spec.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	if spec.Env == nil {
		spec.Env = []string{"PATH=/usr/bin:/bin"}
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p, err := Start(spec, out)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		<-p.Done()
	})
	return p, func() string {
		content, err := os.ReadFile(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
}

func waitFor(t *testing.T, output func() string, want string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for output() != want {
		<-tick.C
	}
}

func ended(t *testing.T, p *Process) Exit {
	t.Helper()
	select {
	case <-p.Done():
		return p.Exit()
	case <-time.After(10 * time.Second):
		t.Fatal("the container did not end")
		return Exit{}
	}
}

func TestContainerSees(t *testing.T) {
	needNamespaces(t)
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		reason string
		spec   Spec
		script string
		want   string
		code   int
	}{
		"ReadOnlyVolume": {
			reason: "a read-only mount must refuse a write at its true path",
			spec:   Spec{Mounts: []Mount{{Source: volume, Target: "/var/run/elector", ReadOnly: true}}},
			script: `cat /var/run/elector/file; touch /var/run/elector/x 2>/dev/null || echo " refused"`,
			want:   "content refused\n",
		},
		"NewTargets": {
			reason: "targets that the host does not have must appear, next to what is there",
			spec:   Spec{Mounts: []Mount{{Source: volume, Target: "/data/deep"}, {Source: volume, Target: "/etc/new/deep"}}},
			script: `cat /data/deep/file /etc/new/deep/file; test -f /etc/passwd && echo " both"`,
			want:   "contentcontent both\n",
		},
		"NestedVolumes": {
			reason: "a volume inside of a volume must win over the outer one",
			spec:   Spec{Mounts: []Mount{{Source: volume, Target: "/data/outer/inner"}, {Source: t.TempDir(), Target: "/data/outer"}}},
			script: `ls /data/outer; cat /data/outer/inner/file`,
			want:   "inner\ncontent",
		},
		"SingleFile": {
			reason: "a subPath of a file must be mountable",
			spec:   Spec{Mounts: []Mount{{Source: filepath.Join(volume, "file"), Target: "/etc/single"}}},
			script: `cat /etc/single`,
			want:   "content",
		},
		"ReadOnlyRoot": {
			reason: "readOnlyRootFilesystem must leave only the volumes writable",
			spec:   Spec{ReadOnlyRoot: true, Mounts: []Mount{{Source: t.TempDir(), Target: "/data"}}},
			script: `touch /x /run/x /tmp/x 2>/dev/null || echo refused; touch /data/x && echo written; : > /dev/null`,
			want:   "refused\nwritten\n",
		},
		"EmptyRun":  {reason: "nothing of the host's /run may show", script: `ls -A /run /var/run/`, want: "/run:\n\n/var/run/:\n"},
		"ProcessID": {reason: "the command must be process 1", script: `echo $$`, want: "1\n"},
		"HostName":  {reason: "the host name is the pod's", spec: Spec{Hostname: "web-0"}, script: `uname -n`, want: "web-0\n"},
		"ExitCode":  {reason: "the exit code must come through", script: `exit 75`, code: 75},
		"Binary": {
			reason: "the image's binary must be at the entrypoint",
			spec:   Spec{Binaries: map[string]string{"/elector": "/bin/sh"}},
			script: `test -x /elector && echo there`,
			want:   "there\n",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.spec.Argv = []string{"sh", "-c", tc.script}
			p, output := start(t, tc.spec)
			exit := ended(t, p)
			if got := output(); got != tc.want || exit.Code != tc.code {
				t.Errorf("%s: got %q and exit code %d, want %q and %d", tc.reason, got, exit.Code, tc.want, tc.code)
			}
		})
	}
	if _, err := os.Stat("/data"); err == nil {
		t.Error("a mount point was made on the host")
	}
}

func TestStartTellsWhyNot(t *testing.T) {
	needNamespaces(t)
	_, err := Start(Spec{Root: t.TempDir(), Argv: []string{"no-such-program"}, Env: []string{"PATH=/bin"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("got error %v, want one that names the program", err)
	}
}

func TestTermNeedsHandler(t *testing.T) {
	needNamespaces(t)
	deaf, _ := start(t, Spec{Argv: []string{"sleep", "100"}})
	polite, output := start(t, Spec{Argv: []string{"sh", "-c", `trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done`}})
	waitFor(t, output, "up\n")
	if deaf.Handles(syscall.SIGTERM) || !polite.Handles(syscall.SIGTERM) {
		t.Error("Handles does not tell who handles SIGTERM")
	}
	if err := errors.Join(deaf.Signal(syscall.SIGTERM), polite.Signal(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if exit := ended(t, polite); exit.Code != 3 {
		t.Errorf("exit code %d, want 3 from the handler", exit.Code)
	}
	select {
	case <-deaf.Done():
		t.Error("process 1 without a handler died of SIGTERM, in a real container it does not")
	default:
	}
	if err := deaf.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := ended(t, deaf); exit.Code != 137 || exit.Signal != 9 {
		t.Errorf("exit %+v, want code 137 by signal 9", exit)
	}
}

func TestPauseEndsOnTerm(t *testing.T) {
	needNamespaces(t)
	p, _ := start(t, Spec{})
	// The handler is in place a moment after Start: ask again until it hears.
	for {
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.Done():
			if p.Exit().Code != 0 {
				t.Errorf("exit code %d, want 0", p.Exit().Code)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestCommandInside(t *testing.T) {
	needNamespaces(t)
	p, _ := start(t, Spec{Hostname: "inside", Dir: "/data", Argv: []string{"sleep", "100"}, Mounts: []Mount{{Source: t.TempDir(), Target: "/data"}}})
	tests := map[string]struct {
		argv []string
		want string
		code int
	}{
		"Namespaces": {argv: []string{"sh", "-c", "uname -n; test -d /data && cat /proc/1/comm"}, want: "inside\nsleep\n"},
		"Directory":  {argv: []string{"pwd"}, want: "/data\n"},
		"ExitCode":   {argv: []string{"sh", "-c", "exit 42"}, code: 42},
		"Signal":     {argv: []string{"sh", "-c", "kill -9 $$"}, code: 137},
		"Missing":    {argv: []string{"no-such-program"}, code: 127},
		"Env":        {argv: []string{"sh", "-c", "echo $GREETING"}, want: "hello\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				var out bytes.Buffer
				cmd := p.Command(tc.argv, []string{"PATH=/usr/bin:/bin", "GREETING=hello"})
				cmd.Stdout = &out
				if err := cmd.Run(); (err == nil) != (tc.code == 0) {
					t.Fatalf("run: %v", err)
				}
				if out.String() != tc.want || cmd.ProcessState.ExitCode() != tc.code {
					t.Fatalf("got %q and exit code %d, want %q and %d", out.String(), cmd.ProcessState.ExitCode(), tc.want, tc.code)
				}
			}
		})
	}
}

func TestSignalAllStopsEverything(t *testing.T) {
	needNamespaces(t)
	p, output := start(t, Spec{Argv: []string{"sh", "-c", "sleep 100 & sleep 100 & echo up; wait"}})
	waitFor(t, output, "up\n")
	if err := p.SignalAll(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pids, err := p.members()
	if err != nil || len(pids) != 3 {
		t.Fatalf("members %v, error %v, want 3 processes", pids, err)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p, err := Start(Spec{Root: b.TempDir(), Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		<-p.Done()
	}
}
