package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// detachedVariable tells a process that it was started by detach. Its progress goes to descriptor 3 and nobody is to be watched.
const detachedVariable = "ELECTOR_CLUSTER_DETACHED"

const starterFD = 3

// starterPipe is the way back to a process that waits for the cluster to be ready.
type starterPipe struct{ *os.File }

// errStarterGone is why a cluster stops when nobody waits for it any more.
var errStarterGone = errors.New("the process that started the cluster is gone")

// watchStarter makes the cluster end with the process that started it, and returns where progress goes.
func watchStarter(cancel context.CancelCauseFunc, out io.Writer) (io.Writer, error) {
	if os.Getenv(detachedVariable) != "" {
		unix.CloseOnExec(starterFD)
		return starterPipe{os.NewFile(starterFD, "starter")}, nil
	}
	parent := os.Getppid()
	fd, err := unix.PidfdOpen(parent, 0)
	if err != nil {
		return nil, fmt.Errorf("watch the parent process: %w", err)
	}
	// Ends with the parent, or with this process.
	go func() {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if n, err := unix.Poll(poll, -1); n > 0 {
				cancel(errStarterGone)
				return
			} else if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return out, nil
}

// detach starts the same command again in a session of its own, shows its progress, and returns when it is ready or has failed.
func detach(ctx context.Context, args []string, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer read.Close()
	cmd := &exec.Cmd{Path: self, Args: append([]string{os.Args[0], "up"}, args...),
		Env: append(os.Environ(), detachedVariable+"=1"), ExtraFiles: []*os.File{write}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	interrupted := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer interrupted()
	last := ""
	for lines := bufio.NewScanner(read); lines.Scan(); {
		last = lines.Text()
		fmt.Fprintln(out, last)
	}
	if last == readyLine {
		return cmd.Process.Release()
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	return ctx.Err()
}
