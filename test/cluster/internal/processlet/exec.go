package processlet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"
)

// Streams are what a command in a container reads and writes. Any may be nil.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// TTY gives the command a terminal. Then everything it writes goes to Out.
	TTY bool
	// Resize delivers sizes of the terminal: columns and rows.
	Resize <-chan [2]uint16
}

// ExitError is the end of a command that ran and failed.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("command ended with exit code %d", e.Code) }

// exec runs a command in a container until it ends, or ctx does. Its end by itself with another code than 0 is an *ExitError.
func (r *run) exec(ctx context.Context, argv []string, s Streams) error {
	cmd := r.proc.Command(argv, r.env)
	var err error
	if s.TTY {
		err = runOnTerminal(ctx, cmd, s)
	} else {
		err = runOnPipes(ctx, cmd, s)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &ExitError{Code: exit.ExitCode()}
	}
	return err
}

// outputGrace is how long output is still read after a command has ended, should something it left behind keep its pipes open.
const outputGrace = time.Second

func runOnPipes(ctx context.Context, cmd *exec.Cmd, s Streams) error {
	cmd.Stdout, cmd.Stderr = s.Out, s.Err
	cmd.WaitDelay = outputGrace
	if s.In != nil {
		// Not cmd.Stdin: Wait would wait for a client that never closes its end.
		in, err := cmd.StdinPipe()
		if err != nil {
			return fmt.Errorf("make a pipe: %w", err)
		}
		// Ends with the client's stream or with the pipe; the server closes the stream after the command's end.
		go func() {
			_, _ = io.Copy(in, s.In)
			in.Close()
		}()
	}
	return start(ctx, cmd)
}

// start runs a command to its end or kills it when ctx ends.
func start(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run a command: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

func runOnTerminal(ctx context.Context, cmd *exec.Cmd, s Streams) error {
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	output := make(chan struct{})
	if s.In != nil {
		go func() { _, _ = io.Copy(master, s.In) }() // ends with the client's stream or the terminal
	}
	resized, stopResizing := context.WithCancel(ctx)
	defer stopResizing()
	go resize(resized, master, s.Resize)
	if err := cmd.Start(); err != nil {
		slave.Close()
		return fmt.Errorf("run a command: %w", err)
	}
	slave.Close()
	go func() {
		defer close(output)
		if s.Out != nil {
			_, _ = io.Copy(s.Out, master) // ends with an error when the terminal's other end is closed
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err = cmd.Wait()
	select {
	case <-output:
	case <-time.After(outputGrace):
	}
	return err
}

func resize(ctx context.Context, terminal *os.File, sizes <-chan [2]uint16) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			_ = unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: size[0], Row: size[1]})
		}
	}
}

func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	return master, slave, nil
}

// hook runs a postStart or preStop handler.
func (r *run) hook(ctx context.Context, h *v1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		return r.exec(ctx, r.pod.expandAll(h.Exec.Command, &variables{}), Streams{})
	case h.HTTPGet != nil:
		return r.httpGet(ctx, h.HTTPGet)
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		}
	}
	return errUnsupported
}
