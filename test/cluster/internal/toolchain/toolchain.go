// Package toolchain provides the programs Kubernetes clusters are made of, compiled from Go modules.
//
// There are two sets of them: what the embedded cluster runs, and what a cluster with real kubelets needs besides. A set is compiled when
// it is first asked for, so that who wants the one does not wait for the other.
//
// A set is compiled once per content of go.mod, go.sum, the build flags and the Go version, into a cache outside the checkout. The
// directory of one such content appears there by rename, complete or not at all. Two builders of the same content take turns, and
// the second finds the work done. A later call runs no compiler and needs no network: it only looks whether the directory is there.
//
// It does not check the cached files themselves: who writes into the cache owns the result.
package toolchain

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// unusedFor is the age at which a directory of another content is removed from the cache: 350 MB each.
const unusedFor = 14 * 24 * time.Hour

// Set is programs that are compiled together.
type Set struct {
	// suffix tells the directories of two sets apart.
	suffix string
	// packages has the package of every program.
	packages map[string]string
}

var (
	// ControlPlane is what the embedded cluster runs, and the clients that talk to it.
	ControlPlane = Set{packages: map[string]string{
		"etcd":                    "go.etcd.io/etcd/server/v3",
		"helm":                    "helm.sh/helm/v4/cmd/helm",
		"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
		"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
		"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
	}}
	// Node is what a cluster with real kubelets needs besides.
	Node = Set{suffix: "-node", packages: map[string]string{
		"kube-proxy":     "k8s.io/kubernetes/cmd/kube-proxy",
		"kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
		"kubeadm":        "k8s.io/kubernetes/cmd/kubeadm",
		"kubelet":        "k8s.io/kubernetes/cmd/kubelet",
	}}
)

// SetOf returns the set that a program belongs to.
func SetOf(name string) (Set, error) {
	for _, set := range []Set{ControlPlane, Node} {
		if _, ok := set.packages[name]; ok {
			return set, nil
		}
	}
	return Set{}, fmt.Errorf("no tool %q, there are %s, and %s", name, ControlPlane, Node)
}

// String lists the programs.
func (s Set) String() string {
	return strings.Join(slices.Sorted(maps.Keys(s.packages)), ", ")
}

// Config says what to build and where.
type Config struct {
	// GoMod and GoSum are the files that pin every version. Required.
	GoMod, GoSum []byte
	// Cache is the directory that holds one directory per content. Empty means Dir().
	Cache string
	// Progress receives lines for people while the compiler runs. Nothing is written when there is nothing to build. Required.
	Progress io.Writer
}

// Dir is the cache of this user: $ELECTOR_CACHE, or elector below the user's cache directory.
func Dir() (string, error) {
	if dir := os.Getenv("ELECTOR_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the cache, set ELECTOR_CACHE: %w", err)
	}
	return filepath.Join(dir, "elector"), nil
}

// Build returns the directory with the programs of a set, after compiling them if no one has done so before.
func Build(ctx context.Context, cfg Config, set Set) (string, error) {
	if cfg.Cache == "" {
		dir, err := Dir()
		if err != nil {
			return "", err
		}
		cfg.Cache = dir
	}
	home := filepath.Join(cfg.Cache, contentHash(cfg, buildFlags(cfg.GoMod), runtime.Version())+set.suffix)
	bin := filepath.Join(home, "bin")
	if complete(bin) {
		now := time.Now()
		return bin, ignoreReadOnly(os.Chtimes(home, now, now))
	}
	if err := os.MkdirAll(cfg.Cache, 0o755); err != nil {
		return "", fmt.Errorf("create the cache: %w", err)
	}
	unlock, err := lock(ctx, home+".lock", cfg.Progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if complete(bin) {
		return bin, nil
	}
	if err := compile(ctx, cfg, set, home); err != nil {
		return "", err
	}
	return bin, prune(cfg.Cache, home)
}

// Path returns the path of one program in a directory that Build returned.
func Path(bin, name string) (string, error) {
	if _, err := SetOf(name); err != nil {
		return "", err
	}
	return filepath.Join(bin, name), nil
}

// buildFlags tell Kubernetes its version, which a program built outside of its repository does not know by itself.
func buildFlags(goMod []byte) []string {
	const version = "k8s.io/component-base/version"
	git := kubernetesVersion(goMod)
	major, rest, _ := strings.Cut(strings.TrimPrefix(git, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return []string{"-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", strings.Join([]string{"-s -w",
		"-X " + version + ".gitVersion=" + git,
		"-X " + version + ".gitMajor=" + major,
		"-X " + version + ".gitMinor=" + minor}, " ")}
}

// kubernetesVersion is the version of k8s.io/kubernetes that go.mod requires.
func kubernetesVersion(goMod []byte) string {
	for line := range strings.Lines(string(goMod)) {
		words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(words) >= 2 && words[0] == "k8s.io/kubernetes" {
			return words[1]
		}
	}
	return "v0.0.0"
}

// contentHash names everything that decides what the compiled programs are.
func contentHash(cfg Config, flags []string, goVersion string) string {
	h := sha256.New()
	for _, part := range [][]byte{cfg.GoMod, cfg.GoSum, []byte(strings.Join(flags, "\x00")), []byte(goVersion)} {
		fmt.Fprintf(h, "%d\x00", len(part))
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func complete(bin string) bool {
	_, err := os.Stat(bin)
	return err == nil
}

func ignoreReadOnly(err error) error {
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	return err
}

// lock takes an flock, which the kernel frees when its holder dies, however that happens.
func lock(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the cache's lock: %w", err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := false; ; said = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !said {
			fmt.Fprintln(progress, "another process compiles the cluster's programs, waiting for it")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// compile builds all programs of a set with one go command, which keeps every core busy while one of them is linked.
func compile(ctx context.Context, cfg Config, set Set, home string) error {
	stage := fmt.Sprintf("%s.%d", home, os.Getpid())
	defer func() { _ = os.RemoveAll(stage) }() // it is gone, or of no use and harmless
	out := filepath.Join(stage, "bin")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("create the build directory: %w", err)
	}
	for name, content := range map[string][]byte{"go.mod": cfg.GoMod, "go.sum": cfg.GoSum} {
		if err := os.WriteFile(filepath.Join(stage, name), content, 0o644); err != nil {
			return fmt.Errorf("write the build module: %w", err)
		}
	}
	args := append(append([]string{"build", "-v"}, buildFlags(cfg.GoMod)...), "-o", out+string(filepath.Separator))
	args = slices.AppendSeq(args, maps.Values(set.packages))
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = stage
	// The caller's own settings for its own module must not leak into this build.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "GOOS=", "GOARCH=", "PWD="+stage)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	fmt.Fprintf(cfg.Progress, "compiling %s (once; several minutes)\n", set)
	start := time.Now()
	if err := runReporting(cmd, cfg.Progress, out, start); err != nil {
		return err
	}
	if err := nameProperly(out); err != nil {
		return err
	}
	if err := os.Rename(stage, home); err != nil {
		return fmt.Errorf("put the programs in place: %w", err)
	}
	fmt.Fprintf(cfg.Progress, "compiled in %.0f s, kept in %s\n", time.Since(start).Seconds(), home)
	return nil
}

// nameProperly gives the files in a directory the names of their programs.
func nameProperly(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for the programs: %w", err)
	}
	for _, f := range files {
		if err := os.Rename(filepath.Join(dir, f.Name()), filepath.Join(dir, programName(f.Name()))); err != nil {
			return fmt.Errorf("name a program: %w", err)
		}
	}
	return nil
}

// programName turns a file name the go command chose into the program's own: etcd's main package is the root of module .../server/v3.
func programName(file string) string {
	if file == "server" {
		return "etcd"
	}
	return file
}

// runReporting runs the go command and tells every few seconds how far it is, and once when each program is there.
func runReporting(cmd *exec.Cmd, progress io.Writer, out string, start time.Time) error {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("read the go command's output: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run the go command: %w", err)
	}
	var packages, modules atomic.Int64
	var complaints []string
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			switch line := lines.Text(); {
			case strings.HasPrefix(line, "go: downloading "):
				modules.Add(1)
			case strings.ContainsAny(line, ": "):
				complaints = append(complaints, line)
			default:
				packages.Add(1)
			}
		}
	}()
	heartbeat(progress, out, start, read, &packages, &modules)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("compile the cluster's programs: %w\n%s", err, strings.Join(complaints, "\n"))
	}
	return nil
}

func heartbeat(progress io.Writer, out string, start time.Time, done <-chan struct{}, packages, modules *atomic.Int64) {
	seen := map[string]bool{}
	report := func() {
		found, _ := os.ReadDir(out)
		for _, f := range found {
			if !seen[f.Name()] {
				seen[f.Name()] = true
				fmt.Fprintf(progress, "  %-24s ready after %3.0f s\n", programName(f.Name()), time.Since(start).Seconds())
			}
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-done:
			report()
			return
		case <-tick.C:
			report()
			if n%10 == 0 {
				fmt.Fprintf(progress, "  %3.0f s: %d modules downloaded, %d packages compiled\n", time.Since(start).Seconds(), modules.Load(), packages.Load())
			}
		}
	}
}

// prune removes what no one has asked for in a long time. A directory in use was touched by its last Build.
func prune(cache, keep string) error {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return fmt.Errorf("look for old builds: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(cache, e.Name())
		info, err := e.Info()
		if err != nil || path == keep || !e.IsDir() || time.Since(info.ModTime()) < unusedFor || !complete(filepath.Join(path, "bin")) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove an old build: %w", err)
		}
	}
	return nil
}
