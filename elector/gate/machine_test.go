package gate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	grace = 2 * time.Second
	least = 7334 * time.Millisecond
)

// claim is a sight of a claim that ends at until, in milliseconds.
func claim(token uint64, until int) Sight { return Sight{token, ms(until)} }

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

var names = map[Action]string{Wait: "wait", Lock: "lock", Unlock: "unlock", Start: "start", Terminate: "terminate", Kill: "kill"}

// player plays a gate by hand, and does what its machine wants at once.
type player struct {
	*Machine
	now      time.Duration
	dir      Sight // what the status directory says
	onLocked func()
	refused  bool
	did      []string
	wake     time.Duration
}

func newPlayer() *player { return &player{Machine: NewMachine(grace, least)} }

// turn does what a wakeup at that time is for.
func (p *player) turn(at int, dir Sight) *player {
	p.now, p.dir = ms(at), dir
	for {
		p.See(p.dir, p.now)
		action, wake := p.Next(p.now)
		if action == Wait {
			p.wake = wake
			return p
		}
		p.did = append(p.did, names[action])
		switch action {
		case Wait:
		case Lock:
			if p.refused {
				p.LockRefused(p.now + LockPause)
				continue
			}
			p.Locked()
			if p.onLocked != nil {
				p.onLocked()
			}
		case Unlock:
			p.Unlocked()
		case Start:
			p.Started()
		case Terminate:
			p.Terminated()
		case Kill:
			p.Killed()
		}
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	opened := []string{"lock", "start"}
	for name, tc := range map[string]struct {
		reason string
		play   func(*player)
		did    []string
		wake   time.Duration
	}{
		"nothing": {
			"there is no claim", func(p *player) { p.turn(0, Sight{}) }, nil, forever,
		},
		"opens": {
			"a claim with enough left", func(p *player) { p.turn(0, claim(7, 10000)) }, opened, ms(8000),
		},
		"just enough": {
			"the bound is within", func(p *player) { p.turn(10000-7334, claim(7, 10000)) }, opened, ms(8000),
		},
		"the rest of a claim": {
			"the child would be stopped before the next renewal can be known", func(p *player) { p.turn(10000-7333, claim(7, 10000)) }, nil, forever,
		},
		"a rest, then renewed": {
			"what was too little is enough again", func(p *player) { p.turn(5000, claim(7, 10000)).turn(5010, claim(7, 15000)) }, opened, ms(13000),
		},
		"the lock is held for another's work": {
			"that is no claim", func(p *player) { p.turn(0, Sight{Until: ms(10000)}) }, nil, forever,
		},
		"longer than any claim": {
			"it was written by a hand, or before a reboot", func(p *player) { p.turn(0, claim(7, 24*3600*1000+1)) }, nil, forever,
		},
		"the elector looks at the lock": {
			"it lets go of it at once", func(p *player) {
				p.refused = true
				p.turn(0, claim(7, 10000))
			}, []string{"lock"}, LockPause,
		},
		"the elector has looked at the lock": {
			"the next try is what it waits for", func(p *player) {
				p.refused = true
				p.turn(0, claim(7, 10000)).turn(9, claim(7, 10000))
				p.refused = false
				p.turn(10, claim(7, 10000))
			}, []string{"lock", "lock", "start"}, ms(8000),
		},
		"over when locked": {
			"the elector had found the lock free before, and may have released", func(p *player) {
				p.onLocked = func() { p.dir = Sight{} }
				p.turn(0, claim(7, 10000))
			}, []string{"lock", "unlock"}, forever,
		},
		"another claim when locked": {
			"any will do: nobody has it beside this candidate", func(p *player) {
				p.onLocked = func() { p.dir = claim(8, 11000) }
				p.turn(0, claim(7, 10000)).turn(1, claim(8, 11000))
			}, opened, ms(9000),
		},
		"too late when locked": {
			"it took long to have the lock", func(p *player) {
				p.onLocked = func() { p.now = ms(5000) }
				p.turn(0, claim(7, 10000))
			}, []string{"lock", "unlock"}, forever,
		},
		"opens at the second try": {
			"a closed gate stays one that waits", func(p *player) {
				p.onLocked = func() { p.dir = Sight{} }
				p.turn(0, claim(7, 10000))
				p.onLocked = nil
				p.turn(20000, claim(9, 30000))
			}, []string{"lock", "unlock", "lock", "start"}, ms(28000),
		},
		"renewed": {
			"both ends move", func(p *player) { p.turn(0, claim(7, 10000)).turn(3000, claim(7, 13000)) }, opened, ms(11000),
		},
		"not renewed": {
			"it is told in time", func(p *player) { p.turn(0, claim(7, 10000)).turn(7999, claim(7, 10000)).turn(8000, claim(7, 10000)) },
			append(opened[:2:2], "terminate"), ms(9700),
		},
		"ignores SIGTERM": {
			"it is dead before the claim is over", func(p *player) { p.turn(0, claim(7, 10000)).turn(8000, claim(7, 10000)).turn(9700, claim(7, 10000)) },
			append(opened[:2:2], "terminate", "kill"), forever,
		},
		"woken late": {
			"there is no time to ask", func(p *player) { p.turn(0, claim(7, 10000)).turn(9800, claim(7, 10000)) },
			append(opened[:2:2], "kill"), forever,
		},
		"woken late, and renewed": {
			"the claim has never been over", func(p *player) { p.turn(0, claim(7, 10000)).turn(30000, claim(7, 38000)) },
			opened, ms(36000),
		},
		"late renewal": {
			"the child is stopping: it is not told twice, and has more time", func(p *player) {
				p.turn(0, claim(7, 10000)).turn(8000, claim(7, 10000)).turn(8100, claim(7, 18000)).turn(16000, claim(7, 18000))
			}, append(opened[:2:2], "terminate"), ms(17700),
		},
		"planned end": {
			"it is told at once, and has as long as the lock is held", func(p *player) {
				p.turn(0, claim(7, 10000)).turn(1000, Sight{Until: ms(10000)}).turn(4000, Sight{Until: ms(14000)}).turn(13699, Sight{Until: ms(14000)})
			}, append(opened[:2:2], "terminate"), ms(13700),
		},
		"planned end, held no longer": {
			"the lease runs out", func(p *player) {
				p.turn(0, claim(7, 10000)).turn(1000, Sight{Until: ms(10000)}).turn(9700, Sight{Until: ms(10000)})
			}, append(opened[:2:2], "terminate", "kill"), forever,
		},
		"unplanned end": {
			"what was known of the claim goes on to hold", func(p *player) { p.turn(0, claim(7, 10000)).turn(1000, Sight{}) },
			append(opened[:2:2], "terminate"), ms(9700),
		},
		"the end was earlier": {
			"what is known last counts", func(p *player) { p.turn(0, claim(7, 10000)).turn(1000, claim(7, 5000)) },
			opened, ms(3000),
		},
		"another claim": {
			"its end is not the child's", func(p *player) { p.turn(0, claim(7, 10000)).turn(1000, claim(8, 30000)) },
			append(opened[:2:2], "terminate"), ms(9700),
		},
		"another claim, held": {
			"it is held for others", func(p *player) {
				p.turn(0, claim(7, 10000)).turn(1000, claim(8, 30000)).turn(2000, Sight{Until: ms(30000)})
			}, append(opened[:2:2], "terminate"), ms(9700),
		},
		"another claim, then the old one": {
			"tokens never go back, so a hand wrote it", func(p *player) {
				p.turn(0, claim(7, 10000)).turn(1000, claim(8, 30000)).turn(2000, claim(7, 40000))
			}, append(opened[:2:2], "terminate"), ms(9700),
		},
		"the end of a claim that is too long": {
			"it says nothing, so the claim is over", func(p *player) { p.turn(0, claim(7, 10000)).turn(1000, claim(7, 1<<40)) },
			append(opened[:2:2], "terminate"), ms(9700),
		},
		"told by others": {
			"it is not told twice", func(p *player) {
				p.turn(0, claim(7, 10000))
				p.Signalled()
				p.turn(1000, Sight{})
			}, opened, ms(9700),
		},
		"told by others, and does not end": {
			"the claim's end is the end", func(p *player) {
				p.turn(0, claim(7, 10000))
				p.Signalled()
				p.turn(9700, claim(7, 10000))
			}, append(opened[:2:2], "kill"), forever,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlayer()
			tc.play(p)
			if diff := cmp.Diff(tc.did, p.did); diff != "" {
				t.Errorf("%s: did (-want +got):\n%s", tc.reason, diff)
			}
			if p.wake != tc.wake {
				t.Errorf("%s: waits until %v, want %v", tc.reason, p.wake, tc.wake)
			}
		})
	}
}

func TestShortGrace(t *testing.T) {
	t.Parallel()
	m := NewMachine(0, least)
	m.See(claim(7, 10000), 0)
	m.Locked()
	m.See(claim(7, 10000), 0)
	m.Started()
	if action, at := m.Next(0); action != Wait || at != ms(9700) {
		t.Errorf("%s at %v, want to wait until 9.7s: without a grace there is only the kill", names[action], at)
	}
	if action, _ := m.Next(ms(9700)); action != Kill {
		t.Errorf("%s at the end, want kill", names[action])
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		reason     string
		do         func(*Machine)
		code, want int
	}{
		"ended by itself":      {"as if there was no gate", func(*Machine) {}, 0, 0},
		"failed by itself":     {"as if there was no gate", func(*Machine) {}, 3, 3},
		"stopped":              {"a Job is not complete because its leader changed", (*Machine).Terminated, 0, 143},
		"stopped, and failed":  {"the code says more", (*Machine).Terminated, 3, 3},
		"told by the kubelet":  {"as if there was no gate", (*Machine).Signalled, 0, 0},
		"died of the SIGTERM":  {"as a shell says it", (*Machine).Terminated, 143, 143},
		"killed":               {"as a shell says it", (*Machine).Killed, 137, 137},
		"told by both, in all": {"it ended because of the claim", func(m *Machine) { m.Terminated(); m.Signalled() }, 0, 143},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := NewMachine(grace, least)
			tc.do(m)
			if got := m.ExitCode(tc.code); got != tc.want {
				t.Errorf("%s: exit code %d becomes %d, want %d", tc.reason, tc.code, got, tc.want)
			}
		})
	}
}
