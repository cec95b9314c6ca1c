package elector

import (
	"testing"
	"time"
)

func fresh(identity string, mode Mode) *candidate {
	s := DefaultSettings()
	s.Lock, s.Mode = "web", mode
	return &candidate{settings: s, identity: identity, grace: time.Second, process: identity + "-p", jitter: func(time.Duration) time.Duration { return 0 }}
}

// handStore is the API server for candidates that are driven by hand.
type handStore struct {
	v   uint64
	rec Record
}

func (s *handStore) do(t *testing.T, c *candidate, now time.Duration) {
	t.Helper()
	op, at := c.next(now)
	if op == opNone {
		t.Fatalf("nothing to write now, next in %v", at-now)
	}
	_, want := c.send(op, now, time.Unix(0, 0).Add(now))
	s.v++
	want.Exists, want.Version = true, s.v
	s.rec = want
	c.written(want, now)
	c.settle(now)
}

func (s *handStore) see(c *candidate, now time.Duration) { c.observe(s.rec, c.beginReading(now), now) }

// Tokens go on growing after a restore: who lived through it leads with a token above what it has seen, and hands that on to a process
// that started later, as every rollout does.
func TestTokensGrowAfterRestoreAndRelease(t *testing.T) {
	a, b := fresh("a_1", ModeLease), fresh("b_1", ModeLease)
	now := time.Hour
	s := &handStore{v: 1000, rec: Record{Version: 1000}}
	s.see(a, now)
	s.do(t, a, now) // leads with token 1001
	first := a.view(now).token
	s.v, s.rec = 501, Record{Version: 501} // restored: no lock yet
	now += 5 * time.Second
	s.see(a, now)
	now += 40 * time.Second
	s.see(a, now)
	s.do(t, a, now)
	now += 4 * time.Second
	s.do(t, a, now) // renews, with the token noted
	before := a.view(now).token
	a.stop(now)
	s.do(t, a, now) // released in order
	s.see(b, now)
	s.do(t, b, now)
	if after := b.view(now).token; after <= before || after <= first {
		t.Errorf("tokens: %d, after the restore %d, then by the next leader %d", first, before, after)
	}
}

// The same by an expiry: a noted token counts also if it is far above the versions that are left.
func TestTokensGrowAboveWhatWasSeen(t *testing.T) {
	b := fresh("b_1", ModeLease)
	now := time.Hour
	s := &handStore{v: 4_000_000, rec: Record{
		Version: 4_000_000, Exists: true, Holder: "a_1", LeaseDuration: 15 * time.Second, RenewTime: time.Unix(1, 0), Transitions: 7,
		Note: Note{Holder: "a_1", Write: "x.5", Token: 4_990_001, LeaseDuration: 15 * time.Second},
	}}
	s.see(b, now)
	now += 16 * time.Second
	s.do(t, b, now)
	if token := b.view(now).token; token <= 4_990_001 {
		t.Errorf("b saw token 4990001 in the holder's own note and leads with %d", token)
	}
}

// A forged token does not make those that follow repeat or shrink.
func TestForgedToken(t *testing.T) {
	a, b, d := fresh("a_1", ModeLease), fresh("b_1", ModeLease), fresh("d_1", ModeLease)
	now := time.Hour
	s := &handStore{v: 1000, rec: Record{Version: 1000, Exists: true, Note: Note{Holder: "x_1", Released: true, Token: 1 << 52}}}
	var tokens []uint64
	for _, c := range []*candidate{a, b, d} {
		s.see(a, now)
		if c != d { // it starts later
			s.see(b, now)
		}
		s.see(c, now)
		now += time.Minute
		s.do(t, c, now) // leads
		tokens = append(tokens, c.view(now).token)
		now += 4 * time.Second
		s.do(t, c, now) // renews
		s.see(b, now)
		c.stop(now)
		s.do(t, c, now) // releases in order
	}
	if tokens[0] >= tokens[1] || tokens[1] >= tokens[2] {
		t.Errorf("three leaders one after another have tokens %d", tokens)
	}
}

// A hand that removes the note now and then, over weeks, costs a leader-for-life no more each time: no twin ever was.
func TestTwinsAreForgotten(t *testing.T) {
	c := fresh("a_1", ModeLeaderForLife)
	now := time.Hour
	s := &handStore{v: 1000, rec: Record{Version: 1000}}
	s.see(c, now)
	s.do(t, c, now)
	var outage time.Duration
	for range 8 {
		now += 7 * 24 * time.Hour
		s.v++
		s.rec.Version, s.rec.Note = s.v, Note{}
		s.rec.Object = nil
		c.observe(s.rec, c.reading, now) // seen by the watch
		began := now
		for {
			op, at := c.next(now)
			if op != opNone {
				break
			}
			now = at
		}
		outage = now - began
		s.do(t, c, now)
	}
	if outage > time.Minute {
		t.Errorf("the eighth time in two months that a hand removes the annotation from a living leader's lock, nobody leads for %v", outage)
	}
}
