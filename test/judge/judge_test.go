package judge

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const s = time.Second

func TestVerdict(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		tell   func(l *Lock)
		want   Verdict // without Violations
		faults []string
		reason string
	}{
		"Nothing": {
			tell: func(*Lock) {}, want: Verdict{Gap: Forever}, reason: "the zero value has seen nothing",
		},
		"Handover": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Ended("a", 3*s)
				l.Began("b", 2, 5*s)
			},
			want: Verdict{Claims: 2, Handovers: 1, Gap: 2 * s}, reason: "one after the other",
		},
		"AtOnce": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Ended("a", 3*s)
				l.Began("b", 2, 3*s)
				l.Ended("b", 3*s)
				l.Began("c", 3, 3*s)
			},
			want: Verdict{Claims: 3, Handovers: 2}, reason: "a virtual clock may stand still between an end and the next begin",
		},
		"Overlap": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Began("b", 2, 2*s)
				l.Ended("a", 3*s)
				l.Ended("b", 9*s)
			},
			want:   Verdict{Claims: 2, Handovers: 1, Gap: -s},
			faults: []string{"two lead for 1s:\n  a claims from 0s to 3s with token 1\n  b claims from 2s to 9s with token 2"},
			reason: "b begins before a ends",
		},
		"Still": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Began("b", 2, 2*s)
			},
			want: Verdict{Claims: 2, Handovers: 1, Gap: 2*s - Forever}, faults: []string{"two lead, and go on"}, reason: "nobody has ended yet",
		},
		"OneLook": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Began("b", 2, 2*s)
				l.Ended("b", 2*s)
				l.Ended("a", 4*s)
			},
			want: Verdict{Claims: 2, Handovers: 1, Gap: -2 * s}, faults: []string{"two lead for 0s"}, reason: "b was seen to lead once",
		},
		"ToldLate": {
			tell: func(l *Lock) {
				l.Began("b", 2, 2*s)
				l.Ended("b", 4*s)
				l.Began("a", 1, 0)
				l.Ended("a", 3*s)
			},
			want: Verdict{Claims: 2, Handovers: 1, Gap: -s}, faults: []string{"two lead for 1s:\n  a"}, reason: "logs are read one after the other",
		},
		"Renewed": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Until("a", 2*s)
				l.Began("b", 2, 3*s)
				l.Until("a", 4*s)
			},
			want:   Verdict{Claims: 2, Handovers: 1, Gap: 3*s - 4*s},
			faults: []string{"two lead for 1s"},
			reason: "a lease that had run out was renewed under the next leader's eyes",
		},
		"Between": {
			tell: func(l *Lock) {
				l.Add(Claim{Who: "a", Token: 1, End: 9 * s})
				l.Add(Claim{Who: "b", Token: 2, Begin: s, End: 2 * s})
				l.Add(Claim{Who: "c", Token: 3, Begin: 3 * s, End: 9 * s})
			},
			want: Verdict{Claims: 3, Handovers: 2, Gap: s - 9*s}, faults: []string{"two lead for 1s", "two lead for 6s"},
			reason: "a short claim inside a long one does not hide the long one from a third",
		},
		"Three": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Began("b", 2, s)
				l.Began("c", 3, 2*s)
				for _, who := range []string{"a", "b", "c"} {
					l.Ended(who, 3*s)
				}
			},
			want: Verdict{Claims: 3, Handovers: 2, Gap: -2 * s}, faults: []string{"for 2s:\n  a", "for 1s:\n  a", "for 1s:\n  b"},
			reason: "every pair is told",
		},
		"Resumed": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Began("a", 1, 2*s)
				l.Began("a", 4, 3*s)
				l.Ended("a", 4*s)
				l.Began("b", 5, 4*s)
			},
			want: Verdict{Claims: 4, Handovers: 1}, reason: "one candidate's claims follow on each other and keep their token, or have a higher one",
		},
		"TwiceAtATime": {
			tell: func(l *Lock) {
				l.Add(Claim{Who: "a", Token: 1, End: 9 * s})
				l.Add(Claim{Who: "a", Token: 1, Begin: s, End: 2 * s})
				l.Began("b", 2, 5*s)
			},
			want: Verdict{Claims: 3, Handovers: 1, Gap: 5*s - 9*s}, faults: []string{"two lead for 4s"},
			reason: "a candidate does not overlap with itself, but its longer claim stands",
		},
		"EndedTwice": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Until("a", 3*s)
				l.Ended("a", s)
				l.Began("b", 2, 2*s)
				l.Ended("a", 4*s)
				l.Ended("b", 3*s)
			},
			want: Verdict{Claims: 2, Handovers: 1, Gap: s}, reason: "it stops, and later its Pod is gone",
		},
		"NeverBegan": {
			tell: func(l *Lock) {
				l.Ended("a", s)
				l.Until("a", 2*s)
			}, want: Verdict{Gap: Forever}, reason: "a standby that says so has claimed nothing",
		},
		"Unsure": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Ended("a", 3*s)
				l.Began("b", 2, 4*s) // the look ended
				l.Ended("b", 2*s)    // and this is when it had begun
				l.Began("c", 3, 4*s)
			},
			want: Verdict{Claims: 3, Handovers: 2, Gap: s}, reason: "b may have led when a did no more",
		},
		"UnsureInside": {
			tell: func(l *Lock) {
				l.Began("a", 1, 0)
				l.Ended("a", 9*s)
				l.Began("b", 2, 4*s)
				l.Ended("b", 3*s)
			},
			want: Verdict{Claims: 2, Handovers: 1, Gap: -5 * s}, reason: "nothing is said of a claim without a sure moment",
		},
		"TokenStays": {
			tell: func(l *Lock) {
				l.Add(Claim{Who: "a", Token: 7, End: s})
				l.Add(Claim{Who: "b", Token: 7, Begin: s, End: 2 * s})
				l.Add(Claim{Who: "b", Token: 7, Begin: 2 * s, End: 3 * s})
			},
			want: Verdict{Claims: 3, Handovers: 1}, faults: []string{"token 7 of b comes after 7 of a"},
			reason: "storage could not tell the two apart",
		},
		"TokenShrinks": {
			tell: func(l *Lock) {
				l.Add(Claim{Who: "a", Token: 7, End: s})
				l.Add(Claim{Who: "b", Token: 5, Begin: s, End: 2 * s})
				l.Add(Claim{Who: "b", Token: 6, Begin: 2 * s, End: 3 * s})
			},
			want: Verdict{Claims: 3, Handovers: 1}, faults: []string{"token 5 of b comes after 7 of a", "token 6 of b comes after 7 of a"},
			reason: "storage would refuse the new leader",
		},
		"TokenBack": {
			tell: func(l *Lock) {
				l.Add(Claim{Who: "a", Token: 1, End: s})
				l.Add(Claim{Who: "b", Token: 2, Begin: s, End: 2 * s})
				l.Add(Claim{Who: "a", Token: 1, Begin: 2 * s, End: 3 * s})
			},
			want: Verdict{Claims: 3, Handovers: 2}, faults: []string{"token 1 of a comes after 2 of b"},
			reason: "a claim is not resumed behind another's",
		},
		"OwnTokenShrinks": {
			tell: func(l *Lock) {
				l.Began("a", 7, 0)
				l.Began("a", 6, s)
			},
			want: Verdict{Claims: 2, Gap: Forever}, faults: []string{"token 6 of a comes after its own 7"}, reason: "a resumed claim may not go back",
		},
		"NoToken": {
			tell: func(l *Lock) {
				l.Add(Claim{Who: "a", Token: 7, End: s})
				l.Add(Claim{Who: "b", Begin: s, End: 2 * s, Note: "in a hurry"})
				l.Add(Claim{Who: "c", Token: 8, Begin: 2 * s, End: 3 * s})
			},
			want: Verdict{Claims: 3, Handovers: 2}, faults: []string{"without candidate or token:\n  b claims from 1s to 2s with token 0, in a hurry"},
			reason: "every claim carries a token",
		},
		"NoName": {
			tell: func(l *Lock) { l.Began("", 7, 0) }, want: Verdict{Claims: 1, Gap: Forever}, faults: []string{"without candidate or token"},
			reason: "a claim of nobody can't be compared",
		},
		"Tokenless": {
			tell: func(l *Lock) {
				l.Tokenless = true
				l.Add(Claim{Who: "a", Token: 7, End: s})
				l.Add(Claim{Who: "b", Begin: s, End: 2 * s})
				l.Add(Claim{Who: "c", Token: 6, Begin: s, End: 2 * s})
			},
			want: Verdict{Claims: 3, Handovers: 2, Gap: -s}, faults: []string{"two lead for 1s"}, reason: "who can't see tokens sees overlaps",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l Lock
			test.tell(&l)
			got := l.Verdict()
			if len(got.Violations) != len(test.faults) {
				t.Errorf("%s: %d violations, want %d: %v", test.reason, len(got.Violations), len(test.faults), got.Violations)
			}
			for i := range min(len(got.Violations), len(test.faults)) {
				if text := got.Violations[i].String(); !strings.Contains(text, test.faults[i]) {
					t.Errorf("%s: %q, want %q in it", test.reason, text, test.faults[i])
				}
			}
			got.Violations = nil
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	var l Lock
	l.Began("a", 1, 0)
	other := l.Clone()
	other.Ended("a", s)
	other.Began("b", 2, s)
	l.Began("c", 2, 2*s)
	if got := l.Claims(); len(got) != 2 || got[0].End != Forever || got[1].Who != "c" {
		t.Errorf("the first has %v", got)
	}
	if got := other.Violations(); len(got) > 0 {
		t.Errorf("its clone has %v", got)
	}
}

// TestPairs compares the verdict with what one finds by looking at every two claims.
func TestPairs(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var l Lock
		var all []Claim
		for i := range 8 {
			begin := time.Duration(rng.IntN(20))
			c := Claim{Who: string(rune('a' + rng.IntN(3))), Token: uint64(i + 1), Begin: begin, End: begin + time.Duration(rng.IntN(5))}
			all = append(all, c)
			l.Add(c)
		}
		want, got := 0, 0
		for i, c := range all {
			for _, d := range all[:i] { // told before, so earlier if both begin together
				if d.Begin > c.Begin {
					c, d = d, c
				}
				if c.Who != d.Who && d.End > c.Begin {
					want++
				}
				c = all[i]
			}
		}
		for _, v := range l.Violations() {
			if v.Kind == Overlap {
				got++
			}
		}
		if want != got {
			t.Fatalf("seed %d: %d overlaps, want %d, of %v", seed, got, want, all)
		}
	}
}
