package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/elector-io/elector/test/cluster/internal/control"
)

// What a cluster puts into its directory. Only these are ever removed.
const (
	lockFile = "cluster.lock"
	logsDir  = "logs"
	podsDir  = "pods"
	helmDir  = "helm"
)

var contents = []string{podsDir, helmDir, "etcd", "pki", "kubeconfig", "kubeconfig.new", "control.sock", "audit.log", "audit-policy.yaml"}

func socketPath(dir string) string { return filepath.Join(dir, "control.sock") }

// directory is where one cluster lives. A lock says that it does, and a janitor cleans up should this process be killed.
type directory struct {
	path    string
	made    bool // by us, so it goes with the rest
	lock    *os.File
	janitor *exec.Cmd
	alive   io.WriteCloser // the janitor waits for its end
}

// openDirectory takes a directory that is new, empty, or left over from a cluster that is gone.
func openDirectory(path string) (*directory, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the directory: %w", err)
	}
	d := &directory{path: path}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		d.made = true
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("create the directory: %w", err)
	}
	if d.lock, err = lockDirectory(path); err != nil {
		return nil, err
	}
	if err := removeContents(path); err != nil {
		return nil, err
	}
	if err := d.startJanitor(); err != nil {
		return nil, err
	}
	for _, sub := range []string{logsDir, podsDir} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o755); err != nil {
			return nil, fmt.Errorf("create a directory: %w", err)
		}
	}
	return d, nil
}

func lockDirectory(path string) (*os.File, error) {
	name := filepath.Join(path, lockFile)
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the directory's lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("a cluster runs in %s: %w", path, err)
	}
	// The file may have been removed by its former holder after it was opened here: then the lock is worth nothing.
	held, err := lock.Stat()
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("look at the directory's lock: %w", err)
	}
	if named, err := os.Stat(name); err != nil || !os.SameFile(held, named) {
		lock.Close()
		return nil, fmt.Errorf("a cluster in %s is just going, try again", path)
	}
	return lock, nil
}

// removeContents removes what clusters make, logs of a failed one included, but the lock.
func removeContents(path string) error {
	var failed error
	for _, name := range append([]string{logsDir}, contents...) {
		failed = errors.Join(failed, os.RemoveAll(filepath.Join(path, name)))
	}
	return failed
}

// close removes everything, or everything but the logs. The lock goes last: who waits for it finds nothing else.
func (d *directory) close(keepLogs bool) error {
	// One byte tells the janitor that there is nothing left to do.
	_, err := d.alive.Write([]byte{0})
	err = errors.Join(err, d.alive.Close(), d.janitor.Wait())
	for _, name := range contents {
		err = errors.Join(err, os.RemoveAll(filepath.Join(d.path, name)))
	}
	if !keepLogs {
		err = errors.Join(err, os.RemoveAll(filepath.Join(d.path, logsDir)))
	}
	err = errors.Join(err, os.Remove(filepath.Join(d.path, lockFile)))
	if d.made && !keepLogs {
		_ = os.Remove(d.path) // fails if somebody put something there, which is then not ours to remove
	}
	return errors.Join(err, d.lock.Close())
}

const janitorCommand = "clean-up-after"

// startJanitor starts a process that outlives this one, in a session of its own. It shares the lock, so that no other cluster begins in the
// directory before it is done.
func (d *directory) startJanitor() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	made := "kept"
	if d.made {
		made = "made"
	}
	d.janitor = &exec.Cmd{Path: self, Args: []string{"cluster", janitorCommand, d.path, made}, Dir: "/",
		ExtraFiles: []*os.File{d.lock}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}, Env: []string{"GOMAXPROCS=1"}}
	if d.alive, err = d.janitor.StdinPipe(); err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	if err := d.janitor.Start(); err != nil {
		return fmt.Errorf("start the janitor: %w", err)
	}
	return nil
}

// clean is the janitor's life: wait until the cluster's process is gone; if it did not say that all is done, remove what it left.
func clean(alive io.Reader, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	path, made := args[0], args[1] == "made"
	if said, _ := io.ReadAll(alive); len(said) > 0 {
		return nil
	}
	// The kernel is killing the cluster's processes; until it is done they may still write.
	var err error
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 50 {
		if err = removeContents(path); err == nil {
			break
		}
		<-tick.C
	}
	err = errors.Join(err, os.Remove(filepath.Join(path, lockFile)))
	if made {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// down stops the cluster in a directory and waits until nothing of it is left. Where none runs, it removes what one has left.
func down(ctx context.Context, path string, out io.Writer) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("find the directory: %w", err)
	}
	// Opened before the stop: the holder's end is seen on this very file, even when it is removed by then.
	lock, err := os.Open(filepath.Join(path, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(out, "no cluster in %s\n", path)
		return removeContents(path)
	}
	if err != nil {
		return fmt.Errorf("open the directory's lock: %w", err)
	}
	defer lock.Close()
	if tryLock(lock) {
		fmt.Fprintf(out, "no cluster in %s, only what one has left\n", path)
		return errors.Join(removeContents(path), os.Remove(filepath.Join(path, lockFile)))
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for asked := false; !tryLock(lock); {
		if !asked {
			err := control.Post(ctx, socketPath(path), "stop")
			if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
				return err
			}
			asked = err == nil // a cluster that is just starting has no socket yet, one that is just ending none any more
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	fmt.Fprintln(out, "stopped")
	return nil
}

func tryLock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
