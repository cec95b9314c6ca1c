package network

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

func claim(t *testing.T) *Range {
	t.Helper()
	r, err := Claim()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestClaimsDiffer(t *testing.T) {
	seen := map[byte]bool{}
	for range 20 {
		r := claim(t)
		if seen[r.second] {
			t.Fatalf("127.%d.0.0/16 was given away twice", r.second)
		}
		seen[r.second] = true
	}
}

func TestAddressesMapBothWays(t *testing.T) {
	r := &Range{second: 77}
	tests := map[string]struct {
		reason, reported, wire string
	}{
		"Pod":           {reason: "a pod's address", reported: "10.77.130.9", wire: "127.77.130.9"},
		"OtherCluster":  {reason: "an address of another range is not ours to map", reported: "10.78.130.9", wire: "10.78.130.9"},
		"OutsideOfHere": {reason: "a manual endpoint stays as it is", reported: "192.168.77.1", wire: "192.168.77.1"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := r.Wire(netip.MustParseAddr(tc.reported)); got.String() != tc.wire {
				t.Errorf("%s: Wire(%s) = %s, want %s", tc.reason, tc.reported, got, tc.wire)
			}
		})
	}
	if got := r.Reported(netip.MustParseAddr("127.77.130.9")); got.String() != "10.77.130.9" {
		t.Errorf("Reported = %s, want 10.77.130.9", got)
	}
}

func TestPodAddressesAreUnique(t *testing.T) {
	r := &Range{second: 77, used: map[netip.Addr]bool{}}
	first, err := r.AllocatePod()
	if err != nil {
		t.Fatal(err)
	}
	r.ReleasePod(first)
	seen := map[netip.Addr]bool{}
	for range (lastPodThird - firstPodThird + 1) * 254 {
		a, err := r.AllocatePod()
		if err != nil {
			t.Fatal(err)
		}
		if seen[a] || r.ServiceCIDR().Contains(a) || a == r.ControlPlane() {
			t.Fatalf("%s was given away before or is not a pod's", a)
		}
		if len(seen) == 0 && a == first {
			t.Errorf("%s was given away again at once", a)
		}
		seen[a] = true
	}
	if _, err := r.AllocatePod(); err == nil {
		t.Error("an address beyond the last was given away")
	}
}

// echo is a server that sends back what it gets.
func echo(t *testing.T, at netip.Addr) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func dial(t *testing.T, l *Link) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// roundTrip sends a byte and waits for it to come back.
func roundTrip(c net.Conn, wait time.Duration) error {
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	return readByte(c, wait)
}

func readByte(c net.Conn, wait time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

const (
	long  = 5 * time.Second
	short = 50 * time.Millisecond
)

func newLink(t *testing.T) *Link {
	t.Helper()
	r := claim(t)
	l, err := NewLink(r.Links(), echo(t, r.ControlPlane()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestPartitionCutsAndHeals(t *testing.T) {
	l := newLink(t)
	c := dial(t, l)
	if err := roundTrip(c, long); err != nil {
		t.Fatal(err)
	}
	l.Set(Partitioned)
	if err := roundTrip(c, long); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v on an old connection, want it cut", err)
	}
	// It may be cut so soon that already Dial sees it.
	if fresh, err := net.Dial("tcp4", l.Addr().String()); err == nil {
		defer fresh.Close()
		if roundTrip(fresh, long) == nil {
			t.Error("a new connection works during a partition")
		}
	}
	l.Set(Healthy)
	if err := roundTrip(dial(t, l), long); err != nil {
		t.Errorf("got %v after healing", err)
	}
}

func TestStallHoldsBytesBack(t *testing.T) {
	l := newLink(t)
	old := dial(t, l)
	if err := roundTrip(old, long); err != nil {
		t.Fatal(err)
	}
	l.Set(Stalled)
	fresh := dial(t, l)
	for name, c := range map[string]net.Conn{"old": old, "new": fresh} {
		if err := roundTrip(c, short); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s connection: got %v during a stall, want silence", name, err)
		}
	}
	l.Set(Healthy)
	for name, c := range map[string]net.Conn{"old": old, "new": fresh} {
		if err := readByte(c, long); err != nil {
			t.Errorf("%s connection: the byte held back did not arrive: %v", name, err)
		}
	}
}

func TestPartitionAfterStall(t *testing.T) {
	l := newLink(t)
	c := dial(t, l)
	l.Set(Stalled)
	if err := roundTrip(c, short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	l.Set(Partitioned)
	if err := readByte(c, long); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the connection cut", err)
	}
}

func TestCloseEndsAStalledLink(t *testing.T) {
	l := newLink(t)
	dial(t, l)
	l.Set(Stalled)
	l.Close() // must not wait for bytes that never move
}
