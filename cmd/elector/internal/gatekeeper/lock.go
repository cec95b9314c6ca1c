package gatekeeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/elector-io/elector/elector/gate"
)

const (
	// lookForOpening is how often a leader looks whether a program has been started.
	lookForOpening = 100 * time.Millisecond
	// lookAgain is how long to wait after an error of the lock's.
	lookAgain = time.Second
)

// Lock is the lock on the file that a wrapper locks, shared with the other wrappers of
// the pod, before it starts its program. The kernel keeps it for everything that
// inherited it: it is free when nothing that was started lives. Its methods may be called from any goroutine.
type Lock struct {
	path string

	mu   sync.Mutex
	file *os.File
}

// OpenLock makes the file in the status directory if there is none.
func OpenLock(statusDir string) (*Lock, error) {
	l := &Lock{path: filepath.Join(statusDir, gate.LockFile)}
	var err error
	if l.file, err = l.open(); err != nil {
		return nil, err
	}
	if err := l.file.Chmod(0o444); err != nil { // whatever the umask says
		return nil, fmt.Errorf("opening the gate's lock: %w", errors.Join(err, l.file.Close()))
	}
	return l, nil
}

func (l *Lock) open() (*os.File, error) {
	file, err := os.OpenFile(l.path, os.O_RDONLY|os.O_CREATE, 0o444) //nolint:gosec // the wrappers run as other users
	if err != nil {
		return nil, fmt.Errorf("opening the gate's lock: %w", err)
	}
	return file, nil
}

// Held tells whether something lives that a wrapper of this pod started, or is about
// to be started. What cannot be found out counts as held.
func (l *Lock) Held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	free, err := tryLock(l.file)
	if err != nil {
		klog.ErrorS(err, "looking whether the gate is held")
	}
	return !free
}

// whenFree is closed when nothing holds the lock any more. It costs a thread that
// waits in the kernel, which nothing but that ends.
func (l *Lock) whenFree() <-chan struct{} {
	free := make(chan struct{})
	go func() {
		defer close(free)
		for {
			err := l.waitFree()
			if err == nil {
				return
			}
			klog.ErrorS(err, "waiting for the gate's lock")
			<-time.After(lookAgain)
		}
	}()
	return free
}

func (l *Lock) waitFree() error {
	file, err := l.open() // the lock belongs to what was opened: Held has its own
	if err != nil {
		return err
	}
	defer file.Close()
	return awaitLock(file)
}

// AwaitFree waits until nothing holds the lock, or ctx ends.
func (l *Lock) AwaitFree(ctx context.Context) {
	if !l.Held() {
		return
	}
	select {
	case <-l.whenFree():
	case <-ctx.Done():
	}
}

// Guard is elector.Callbacks.OnStartedLeading of a candidate whose pod is behind the
// gate: it returns when ctx, the claim's, has ended and nothing lives any more that was
// started in it. When all of it ends while the claim goes on, ended is called.
func (l *Lock) Guard(ctx context.Context, ended func()) {
	tick := time.NewTicker(lookForOpening)
	defer tick.Stop()
	for ctx.Err() == nil {
		if !l.Held() {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			continue
		}
		select {
		case <-l.whenFree():
			ended()
		case <-ctx.Done():
		}
	}
	// A wrapper locks before it looks whether the claim holds, and the end of the claim
	// has been told before ctx ended: what starts from now on lets go by itself.
	l.AwaitFree(context.WithoutCancel(ctx))
}
