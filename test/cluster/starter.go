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

// detachedVariable tells a process that it was started by detach: its output is a pipe to a process that waits for the cluster to be
// ready and then ends, which is no reason to stop.
const detachedVariable = "ELECTOR_CLUSTER_DETACHED"

func detached() bool { return os.Getenv(detachedVariable) != "" }

// errStarterGone is why a cluster stops when nobody waits for it any more.
var errStarterGone = errors.New("the process that started the cluster is gone")

// watchStarter makes the cluster end with the process that started it.
func watchStarter(cancel context.CancelCauseFunc) error {
	if detached() {
		return nil
	}
	parent := os.Getppid()
	fd, err := unix.PidfdOpen(parent, 0)
	if err != nil {
		return fmt.Errorf("watch the parent process: %w", err)
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
	return nil
}

// leaveStarter lets go of the process that waits for the cluster: from now on output goes to a file.
func leaveStarter(log string) error {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer f.Close()
	for _, stream := range []*os.File{os.Stdout, os.Stderr} {
		if err := unix.Dup3(int(f.Fd()), int(stream.Fd()), 0); err != nil {
			return fmt.Errorf("redirect output to the log: %w", err)
		}
	}
	return nil
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
		Env: append(os.Environ(), detachedVariable+"=1"), Stdout: write, Stderr: write, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	interrupted := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
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
		return fmt.Errorf("the cluster did not start: %w", err)
	}
	return ctx.Err()
}
