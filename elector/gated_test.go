package elector

import (
	"fmt"
	"testing"
	"time"

	"github.com/elector-io/elector/elector/gate"
)

// In gated plans of the exploration there is a gate before each application: the
// wrapper's own machine over a lock file that its child has. It outlives the sidecar's
// processes. The oracle is that no two children live at a time.

// A gate kills 0.3 s before the end of a claim, so times are longer here.
var gatedSettings = Settings{
	Lock: "web", Mode: ModeLease, LeaseDuration: 6 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: time.Second,
}

const (
	gatedSlowTick, gatedFastTick = time.Second, 1500 * time.Millisecond

	gatedGrace = time.Second
	gatedLeast = gatedGrace + 4*time.Second/renewFraction
)

// gated is a candidate's gate.
type gated struct {
	machine gate.Machine
	frozen  bool // alone: its child goes on
	child   bool // lives, and so has the lock
	told    bool // the child was told to end
	token   uint64
	foreign bool   // another claim than the child's was seen
	spoilt  bool   // somebody took the lock from the child's claim
	waits   bool   // a process of the sidecar waits for the child's end before it contends
	last    Status // what the process before it told
}

// closeGate has a new wrapper before the application of i.
func (m *model) closeGate(i int) {
	m.procs[i].gate = gated{machine: *gate.NewMachine(gatedGrace, gatedLeast), frozen: m.procs[i].gate.frozen, waits: m.procs[i].gate.waits, last: m.procs[i].gate.last}
}

// sight is what the wrapper of i reads.
func (p *proc) sight() gate.Sight {
	if p.told.Role == RoleLeader {
		return gate.Sight{Token: p.told.FencingToken, Until: p.end}
	}
	return gate.Sight{Until: p.held}
}

// turnGate does what the wrapper's loop does at each wakeup.
func (m *model) turnGate(i int) {
	if !m.gated {
		return
	}
	p := &m.procs[i]
	g := &p.gate
	for !g.frozen {
		s := p.sight()
		g.foreign = g.foreign || g.child && s.Token != 0 && s.Token != g.token
		g.machine.See(s, p.clock)
		action, _ := g.machine.Next(p.clock)
		switch action {
		case gate.Wait:
			return
		case gate.Lock:
			g.machine.Locked()
		case gate.Unlock:
			g.machine.Unlocked()
		case gate.Start:
			g.machine.Started()
			g.child, g.token, g.spoilt = true, s.Token, m.erased[i] > 0
		case gate.Terminate:
			g.machine.Terminated()
			g.told = true
		case gate.Kill:
			m.closeGate(i)
			return // it starts anew a moment later
		}
	}
}

// workGate is what the sidecar of i has to do with its gate: its work ends with the
// child.
func (m *model) workGate(i int) {
	p := &m.procs[i]
	m.turnGate(i)
	if p.alive && p.c.busy && !p.c.claiming && !p.gate.child {
		p.c.worked(p.clock)
	}
}

// restart starts a process of candidate i, which withdraws what the last one told and
// then waits for the end of the child that lives of it.
func (m *model) restart(i int) {
	p := &m.procs[i]
	if m.gated {
		p.gate.last = p.told
		p.told, p.held = Status{Role: RoleStandby}, 0
		m.turnGate(i)
		if p.gate.waits = p.gate.child; p.gate.waits {
			return
		}
	}
	m.start(i)
}

// gateNatural are what waits for the ends of children, and the ends of those that were
// told to: by default they do not listen.
func (m *model) gateNatural() (begins, ends []action) {
	for i := range m.procs {
		g := &m.procs[i].gate
		if g.child && g.told {
			ends = append(ends, action{name: fmt.Sprintf("ends %d", i), do: func(m *model) {
				m.closeGate(i)
				m.turn(i)
			}})
		}
		if g.waits && !g.child {
			begins = append(begins, action{name: fmt.Sprintf("begin %d", i), do: func(m *model) {
				m.procs[i].gate.waits = false
				m.start(i)
			}})
		}
	}
	if m.polite {
		return append(begins, ends...), nil
	}
	return begins, ends
}

// gateInterference is what may happen to gates and children.
func (m *model) gateInterference(i int) []action {
	var all []action
	add := func(kind kind, what string, do func(m *model, p *proc)) {
		if m.faults[kind] < limits[kind] {
			all = append(all, action{fmt.Sprintf("%s %d", what, i), func(m *model) {
				m.faults[kind]++
				do(m, &m.procs[i])
				m.turn(i)
			}, kind})
		}
	}
	g := &m.procs[i].gate
	if g.frozen {
		all = append(all, action{name: fmt.Sprintf("thaw %d", i), do: func(m *model) {
			m.procs[i].gate.frozen = false
			m.turnGate(i)
			m.turn(i)
		}})
	} else {
		add(freezing, "freeze", func(_ *model, p *proc) { p.gate.frozen = true })
	}
	if g.child {
		add(killing, "kill gate", func(m *model, _ *proc) { m.closeGate(i) })
		add(exiting, "exit", func(m *model, p *proc) {
			m.closeGate(i)
			p.c.yield(p.clock)
		})
	}
	return all
}

// checkChildren looks for two children that live at a time, and returns why they are
// excused, if they are.
func (m *model) checkChildren() (excuse string) {
	for i := range m.procs {
		for j := range i {
			a, b := &m.procs[i].gate, &m.procs[j].gate
			switch {
			case !a.child || !b.child:
			case a.frozen || b.frozen:
				excuse = "a gate is frozen while its application runs on"
			case a.spoilt || b.spoilt:
				excuse = "a hand erased the claim of an application that still ends"
			default:
				m.fail("the applications of %d and %d run at a time", j, i)
			}
		}
	}
	return excuse
}

// oneChild tells whether the leader's application runs, and no other.
func (m *model) oneChild() bool {
	if !m.gated {
		return true
	}
	for i := range m.procs {
		if m.procs[i].gate.child != m.claims(i) {
			return false
		}
	}
	return true
}

// gate writes down a gate's state. What the machine knows of its child's claim is
// seen in what it would do.
func (h digester) gate(p *proc) {
	g := &p.gate
	if !h.m.gated {
		return
	}
	h.flag(g.frozen, g.child, g.told, g.foreign, g.spoilt, g.waits)
	h.since(p.held, p.clock)
	h.number(int64(h.m.version-g.token), int64(h.m.version-g.last.FencingToken), int64(h.m.version-g.last.LockVersion))
	machine := g.machine
	machine.Signalled()
	_, kill := machine.Next(p.clock)
	h.since(kill, p.clock)
}

// TestExploreGates explores what may happen to candidates with gates.
func TestExploreGates(t *testing.T) {
	type plan struct{ candidates, deviations, steps, sample int }
	plans := []plan{{2, 3, 12, 7}, {2, 1, 60, 3}, {3, 1, 40, 7}, {2, 2, 60, 101}}
	if *exploreFor > 0 {
		plans = []plan{{2, 3, 12, 1}, {2, 1, 60, 1}, {3, 1, 60, 1}, {2, 2, 60, 13}, {3, 2, 60, 101}, {2, 5, 14, 1}}
	}
	start := time.Now()
	for n, p := range plans {
		t.Run(fmt.Sprintf("%d candidates, %d deviations in %d steps, 1 of %d", p.candidates, p.deviations, p.steps, p.sample), func(t *testing.T) {
			x := &exploration{seen: map[[2]uint64]int{}, excuses: map[string]int{}, sample: uint64(p.sample)}
			if *exploreFor > 0 {
				x.end = start.Add(*exploreFor * time.Duration(n+1) / time.Duration(len(plans)))
			}
			defer func() {
				if r := recover(); r != nil {
					t.Fatalf("%v\n(-explore.trace 'gates/%d/...' replays it)", r, p.candidates)
				}
				t.Logf("%d states, %d ends; excused: %v", x.states, x.ends, x.excuses)
			}()
			x.explore(newModelOf(ModeLease, p.candidates, true), p.deviations, p.steps)
		})
	}
}
