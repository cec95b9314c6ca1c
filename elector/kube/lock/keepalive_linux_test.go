package lock

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/elector-io/elector/elector"
)

// TestKeepAlive asks the kernel how long it would take to find out that the other end of a silent connection is gone.
func TestKeepAlive(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	l, err := New(serverOf(server.URL, nil), Config{Candidate: elector.Description{
		Settings: elector.Settings{Lock: testLock}, Namespace: "default", Identity: "web-0_u0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	var used net.Conn
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { used = got.Conn }})
	if _, err := l.Put(ctx, elector.Record{}, elector.Record{Holder: "web-0_u0"}); err == nil || context.Cause(ctx) != nil {
		t.Fatal(err)
	}
	raw, err := used.LocalAddr().(end).of.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	seconds := map[int]int{}
	err = raw.Control(func(fd uintptr) {
		for _, option := range []int{unix.SO_KEEPALIVE, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
			level := unix.IPPROTO_TCP
			if option == unix.SO_KEEPALIVE {
				level = unix.SOL_SOCKET
			}
			seconds[option], _ = unix.GetsockoptInt(int(fd), level, option)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	after := time.Duration(seconds[unix.TCP_KEEPIDLE]+seconds[unix.TCP_KEEPINTVL]*seconds[unix.TCP_KEEPCNT]) * time.Second
	if seconds[unix.SO_KEEPALIVE] != 1 || after != 30*time.Second {
		t.Errorf("keep-alive is %d, and the end is found out after %v, want half a minute", seconds[unix.SO_KEEPALIVE], after)
	}
}
