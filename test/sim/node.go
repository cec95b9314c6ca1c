package sim

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"sync"
	"time"

	"github.com/elector-io/elector/elector"
)

// node is a machine: a clock with a rate of its own, and a switch that suspends
// everything on it.
type node struct {
	rate  float64
	start time.Time
	// stagger is how long the last goroutine takes to go on when the machine wakes.
	// Each takes a time of its own: those that go on at one instant meet in the
	// engine's select, which chooses among what is ready by chance, and in the
	// scheduler's queue, whose order depends on what else the processor does. Only
	// events at distinct instants have the same order in every run.
	stagger time.Duration

	mu     sync.Mutex
	asleep chan struct{} // closed at wake-up; nil while awake
	woke   time.Time
	alarms uint64
}

func newNode(rate float64) *node { return &node{rate: rate, start: time.Now()} }

// Now implements elector.Clock: like CLOCK_BOOTTIME it goes on in suspend.
func (n *node) Now() time.Duration { return n.local(time.Since(n.start)) }

func (n *node) local(elapsed time.Duration) time.Duration {
	return time.Duration(float64(elapsed) * n.rate)
}

// NewAlarm implements elector.Clock.
func (n *node) NewAlarm() (elector.Alarm, error) {
	n.mu.Lock()
	n.alarms++
	a := &alarm{node: n, id: n.alarms, c: make(chan struct{}, 1)}
	n.mu.Unlock()
	a.timer = time.AfterFunc(1<<62, a.ring)
	return a, nil
}

type alarm struct {
	node  *node
	id    uint64
	timer *time.Timer
	c     chan struct{}
}

func (a *alarm) ring() {
	a.node.waitAwake(a.id)
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
		n.asleep, n.woke = nil, time.Now()
	}
}

func (n *node) suspended() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asleep != nil
}

// up tells whether the node is awake and everything on it has gone on.
func (n *node) up() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asleep == nil && time.Since(n.woke) > n.stagger
}

// waitAwake waits for the node to be awake; who tells those apart that wait.
func (n *node) waitAwake(who uint64) { n.awake(context.Background(), who) }

// awake waits for the node to be awake, or for ctx to end, and tells which.
func (n *node) awake(ctx context.Context, who uint64) bool {
	for {
		n.mu.Lock()
		asleep := n.asleep
		n.mu.Unlock()
		if asleep == nil {
			return true
		}
		select {
		case <-asleep:
		case <-ctx.Done():
			return false
		}
		if n.stagger > 0 && !sleep(ctx, n.offset(who)) {
			return false
		}
	}
}

// theLoop is who a candidate's own loop is. It goes on before everything that has
// news for it, or it would find several at once.
const theLoop = 0

// offset is how long who takes to go on at this wake-up.
func (n *node) offset(who uint64) time.Duration {
	if who == theLoop {
		return 1
	}
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, []uint64{who, uint64(time.Since(n.start))})
	return 2 + time.Duration(h.Sum64()%uint64(n.stagger))
}
