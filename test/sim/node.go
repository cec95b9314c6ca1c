package sim

import (
	"context"
	"sync"
	"time"

	"github.com/elector-io/elector/elector"
)

// node is a machine: a clock with a rate of its own, and a switch that suspends
// everything on it.
type node struct {
	rate  float64
	start time.Time

	mu     sync.Mutex
	asleep chan struct{} // closed at wake-up; nil while awake
}

func newNode(rate float64) *node { return &node{rate: rate, start: time.Now()} }

// Now implements elector.Clock: like CLOCK_BOOTTIME it goes on in suspend.
func (n *node) Now() time.Duration { return n.local(time.Since(n.start)) }

func (n *node) local(elapsed time.Duration) time.Duration {
	return time.Duration(float64(elapsed) * n.rate)
}

// NewAlarm implements elector.Clock.
func (n *node) NewAlarm() (elector.Alarm, error) {
	a := &alarm{node: n, c: make(chan struct{}, 1)}
	a.timer = time.AfterFunc(1<<62, a.ring)
	return a, nil
}

type alarm struct {
	node  *node
	timer *time.Timer
	c     chan struct{}
}

func (a *alarm) ring() {
	a.node.waitAwake()
	select {
	case a.c <- struct{}{}:
	default:
	}
}

func (a *alarm) Set(at time.Duration) {
	local := at - a.node.Now()
	// The real time that local takes; one more nanosecond than rounding down gives,
	// as waking early would only be asked to wait again.
	wait := min(float64(local)/a.node.rate+1, float64(1<<62))
	a.timer.Reset(time.Duration(max(wait, 0)))
}

func (a *alarm) C() <-chan struct{} { return a.c }
func (a *alarm) Close()             { a.timer.Stop() }

func (n *node) suspend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.asleep == nil {
		n.asleep = make(chan struct{})
	}
}

func (n *node) resume() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.asleep != nil {
		close(n.asleep)
		n.asleep = nil
	}
}

func (n *node) suspended() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asleep != nil
}

// waitAwake waits for the node to be awake.
func (n *node) waitAwake() { n.awake(context.Background()) }

// awake waits for the node to be awake, or for ctx to end, and tells which.
func (n *node) awake(ctx context.Context) bool {
	n.mu.Lock()
	asleep := n.asleep
	n.mu.Unlock()
	if asleep == nil {
		return true
	}
	select {
	case <-asleep:
		return true
	case <-ctx.Done():
		return false
	}
}
