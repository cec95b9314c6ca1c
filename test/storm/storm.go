// Package storm is what a hostile client does to an HTTP port, over loopback and within bounds: for the tests and the benchmark of how the
// sidecar's listeners stand it.
package storm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is one way to be a nuisance.
type Kind struct {
	// Name says what is sent.
	Name string
	// Clients do it at the same time.
	Clients int
	// From is the local address that connections come from. Default: the system's choice.
	From string
	// TLS is what connections are encrypted with before it is done, if not nil.
	TLS *tls.Config
	// do does it on a connection until it is closed.
	do func(net.Conn) error
}

// Kinds are the ways that work on any port.
func Kinds() []Kind {
	line := func(i int) string { return fmt.Sprintf("X%x:\r\n", i) }
	var lines strings.Builder
	for i := range 100_000 {
		lines.WriteString(line(i))
	}
	const begin = "GET /leader HTTP/1.1\r\nHost: x\r\n"
	garbage := make([]byte, 64<<10)
	chance := rand.New(rand.NewPCG(1, 2))
	for i := range garbage {
		garbage[i] = byte(chance.Uint32())
	}
	return []Kind{
		{Name: "connections that say nothing", Clients: 3000, do: nothing},
		{Name: "headers of 1 MB without an end", Clients: 40, do: send(begin + "X: " + strings.Repeat("x", 1<<20))},
		{Name: "headers of 100,000 lines without an end", Clients: 40, do: send(begin + lines.String())},
		{Name: "headers that come by the byte", Clients: 500, do: trickle(begin + "X: ")},
		{Name: "headers just small enough, without an end", Clients: 500, do: send(begin + lines.String()[:90*len(line(16))])},
		{Name: "requests with a body that comes by the byte", Clients: 500, do: trickle("POST /resign HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")},
		{Name: "requests with a body of 1 MB", Clients: 100, do: send("POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1<<20))},
		{Name: "requests of which no answer is read", Clients: 300, do: send(strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /status HTTP/1.1\r\nHost: x\r\n\r\n", 5000))},
		{Name: "garbage after a request", Clients: 100, do: send(begin + "\r\n" + string(garbage))},
		{Name: "requests by new connections", Clients: 16, do: ask(begin + "\r\n")},
	}
}

// Events is the way that works on the port that has streams: they are asked for and not read.
func Events() Kind {
	return Kind{Name: "event streams that are not read", Clients: 500, do: send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n")}
}

var errClosed = errors.New("closed by the other side")

// closed asks the kernel, without reading.
func closed(conn net.Conn) error {
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	var failed error
	if err := raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
		return err
	}
	if failed == nil && info.State != unix.BPF_TCP_ESTABLISHED {
		return errClosed
	}
	return failed
}

// Run does it to a port until ctx ends, over and over again, and tells how many connections it had.
func (k Kind) Run(ctx context.Context, address string) (connections int64) {
	var dialer net.Dialer
	if from := net.ParseIP(k.From); from != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: from}
	}
	var n atomic.Int64
	var clients sync.WaitGroup
	defer clients.Wait()
	for range k.Clients {
		clients.Go(func() {
			for ctx.Err() == nil {
				conn, err := dialer.DialContext(ctx, "tcp", address)
				if err != nil {
					continue
				}
				n.Add(1)
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				if k.TLS != nil {
					_ = k.do(tls.Client(conn, k.TLS)) // it was thrown out
				} else {
					_ = k.do(conn)
				}
				stop()
				conn.Close()
			}
		})
	}
	<-ctx.Done()
	clients.Wait()
	return n.Load()
}

func nothing(conn net.Conn) error {
	_, err := io.Copy(io.Discard, conn)
	return err
}

// send sends it, as quickly as it is taken, and reads nothing.
func send(text string) func(net.Conn) error {
	data := []byte(text)
	return func(conn net.Conn) error {
		if _, err := conn.Write(data); err != nil {
			return err
		}
		return untilClosed(conn, nil)
	}
}

// trickle sends it and then a byte at a time.
func trickle(text string) func(net.Conn) error {
	data := []byte(text)
	return func(conn net.Conn) error {
		if _, err := conn.Write(data); err != nil {
			return err
		}
		return untilClosed(conn, []byte("x"))
	}
}

// untilClosed writes one byte after another, or nothing. It does not read: what a listener owes to a client that takes nothing is part
// of the storm. That the connection is closed shows in the write that fails, or in the socket's state.
func untilClosed(conn net.Conn, data []byte) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		if err := closed(conn); err != nil {
			return err
		}
		if _, err := conn.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// ask sends a request and reads the answer.
func ask(text string) func(net.Conn) error {
	data := []byte(text)
	return func(conn net.Conn) error {
		if _, err := conn.Write(data); err != nil {
			return err
		}
		_, err := conn.Read(make([]byte, 1<<10))
		return err
	}
}
