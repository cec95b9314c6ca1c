//go:build integration

package examples

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/elector-io/elector/test/embedded"
)

// process is one whose lines are read one after the other.
type process struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	lines chan string
	all   bytes.Buffer // of both, after lines is closed
}

func start(t *testing.T, name string, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, lines: make(chan string, 1000)}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&p.all, lines.Text())
			select {
			case p.lines <- lines.Text():
			default: // nobody waits for what a sidecar says
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		for range p.lines {
		}
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, &p.all)
		}
	})
	return p
}

// says waits until the program says a line that begins so, and returns the rest of it.
func (p *process) says(prefix string) string {
	p.t.Helper()
	timeout := time.NewTimer(embedded.Patience)
	defer timeout.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("%s has ended before it said %q", p.name, prefix)
			}
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return rest
			}
		case <-timeout.C:
			p.t.Fatalf("%s does not say %q", p.name, prefix)
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func await(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	timeout := time.NewTimer(embedded.Patience)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		t.Fatal("never happened:", what)
	}
}

// addresses counts those that freeAddress gave.
var addresses atomic.Uint32

// freeAddress returns an address of a host that is not given again: nobody else takes its port until it is listened at.
func freeAddress(t *testing.T) string {
	t.Helper()
	n := addresses.Add(1)
	l, err := net.Listen("tcp", fmt.Sprintf("127.60.%d.%d:0", n>>8&255, n&255))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// link forwards connections, and holds up what it is told to: bytes are late then, as they may be in any network.
type link struct {
	listener net.Listener
	to       string

	mu      sync.Mutex
	pattern string        // what is to be held; empty if nothing is
	held    chan struct{} // closed when something is held
	free    chan struct{} // closed when it may go on
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.forward(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); l.release(); wg.Wait() })
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

// hold makes the next bytes that contain pattern wait for release.
func (l *link) hold(pattern string) (held <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pattern, l.held, l.free = pattern, make(chan struct{}), make(chan struct{})
	return l.held
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pattern = ""; l.free != nil {
		close(l.free)
		l.free = nil
	}
}

// pass waits if these bytes are to be held.
func (l *link) pass(data []byte) {
	l.mu.Lock()
	free := l.free
	if l.pattern == "" || free == nil || !bytes.Contains(data, []byte(l.pattern)) {
		l.mu.Unlock()
		return
	}
	close(l.held)
	l.pattern = ""
	l.mu.Unlock()
	<-free
}

func (l *link) forward(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer to.Close()
	var wg sync.WaitGroup
	copyAll := func(to, from net.Conn, pass func([]byte)) {
		defer to.Close() // ends the other way, too
		defer from.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				pass(buffer[:n])
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	wg.Go(func() { copyAll(to, from, l.pass) })
	wg.Go(func() { copyAll(from, to, func([]byte) {}) })
	wg.Wait()
}
