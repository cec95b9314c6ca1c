// Package network gives an embedded cluster addresses of its own on the loopback interface, and forwards TCP between them.
//
// A cluster owns one 127.X.0.0/16. Linux answers on every address of 127.0.0.0/8 without any being configured, so this needs no root
// and no network namespace. Services live in 127.X.0.0/17, pods in 127.X.128.0 to 127.X.254.0, the control plane and the nodes in 127.X.255.0.
// The API refuses loopback addresses for endpoints, so a pod reports 10.X.y.z where it is reached at 127.X.y.z: see Wire and Reported.
package network

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
)

// claimPort is bound on the last address of the cluster's range for as long as the cluster lives. Whoever binds it owns the range,
// and the kernel takes it back when the owner dies.
const claimPort = 7410

const (
	firstSecond, lastSecond = 16, 251
	firstPodThird           = 128
	lastPodThird            = 254
	ownThird                = 255
)

// Range is the part of 127.0.0.0/8 that one cluster owns.
type Range struct {
	second byte
	claim  net.Listener

	mu   sync.Mutex
	next int
	used map[netip.Addr]bool
}

// Claim takes a range that no other cluster on this machine has. Close gives it back.
func Claim() (*Range, error) {
	var failed error
	offset := rand.IntN(lastSecond - firstSecond + 1)
	for i := range lastSecond - firstSecond + 1 {
		r := &Range{second: byte(firstSecond + (offset+i)%(lastSecond-firstSecond+1)), used: map[netip.Addr]bool{}}
		l, err := net.Listen("tcp4", netip.AddrPortFrom(r.addr(ownThird, 254), claimPort).String())
		if err != nil {
			failed = err
			continue
		}
		r.claim = l
		return r, nil
	}
	return nil, fmt.Errorf("no free range in 127.0.0.0/8: %w", failed)
}

// Close lets others have the range.
func (r *Range) Close() error { return r.claim.Close() }

// ServiceCIDR is where the API server allocates cluster IPs.
func (r *Range) ServiceCIDR() netip.Prefix { return netip.PrefixFrom(r.addr(0, 0), 17) }

// KubernetesService is the cluster IP of the Service "kubernetes": the first of the range.
func (r *Range) KubernetesService() netip.Addr { return r.addr(0, 1) }

// ControlPlane is the address of etcd and the API server.
func (r *Range) ControlPlane() netip.Addr { return r.addr(ownThird, 1) }

// Links is the address on which every pod finds its own way to the API server, each at a port of its own.
func (r *Range) Links() netip.Addr { return r.addr(ownThird, 2) }

// Node is the address of the n-th node, counted from 0.
func (r *Range) Node(n int) netip.Addr { return r.addr(ownThird, byte(10+n)) }

// MaxNodes is how many addresses Node has.
const MaxNodes = 200

// AllocatePod returns a wire address that no other pod has. Addresses are handed out in turn, so that one is not reused at once.
func (r *Range) AllocatePod() (netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const size = (lastPodThird - firstPodThird + 1) * 254
	for range size {
		a := r.addr(byte(firstPodThird+r.next/254), byte(1+r.next%254))
		r.next = (r.next + 1) % size
		if !r.used[a] {
			r.used[a] = true
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("every pod address is in use")
}

// ReleasePod gives a wire address back.
func (r *Range) ReleasePod(a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, a)
}

// Reported is the address under which the API knows what is reached at a wire address.
func (r *Range) Reported(wire netip.Addr) netip.Addr {
	b := wire.As4()
	return netip.AddrFrom4([4]byte{10, b[1], b[2], b[3]})
}

// Wire is where a reported address of this cluster is reached. Other addresses are returned as they are.
func (r *Range) Wire(reported netip.Addr) netip.Addr {
	if !reported.Is4() {
		return reported
	}
	b := reported.As4()
	if b[0] != 10 || b[1] != r.second {
		return reported
	}
	return netip.AddrFrom4([4]byte{127, b[1], b[2], b[3]})
}

// FreePort returns a TCP port that nobody listens on at an address of this range.
// Another program could take it before it is used, but none has a reason to bind an address of this range.
func FreePort(a netip.Addr) (uint16, error) {
	l, err := net.Listen("tcp4", netip.AddrPortFrom(a, 0).String())
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

func (r *Range) addr(third, fourth byte) netip.Addr {
	return netip.AddrFrom4([4]byte{127, r.second, third, fourth})
}
