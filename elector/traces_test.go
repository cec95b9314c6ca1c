package elector

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestTraces plays runs of the exploration's model in which two once claimed: too long to be found in the time that a test has. An
// action is named as in a failure of the exploration; "flush" does all that is under way, "~5" goes on by itself until five ticks have passed,
// and "put-back-where W" puts back the last state that the write W made, or that was released.
func TestTraces(t *testing.T) {
	for name, script := range map[string]string{
		// Rule 13: "an old YAML put back must not continue a claim". A, cut off, expired; B leads; old YAML of A's term put
		// back while B is cut off: A takes it for "an edit of labels" (holds) and claims at once, with the old token.
		"put-back of own term after a gap": "flush, cut 0, ~5, apply 1, answer 1, cut 1, put-back-where 0.1.1, break 0, heal 0, flush, tick, flush",
		// The same by a write of its own whose answer was lost, seen without any gap.
		"put-back of a remembered write": "flush, tick, apply 0, lose 0, cut 0, ~5, flush, heal 0, flush, tick, apply 1, answer 1, watch 0, cut 1, put-back-where 0.1.2, flush, tick, flush",
		// Rule 12: B's reading has a gap; A renewed in it, then A's earlier YAML is put back: B counts from when it saw it first.
		"put-back of what a standby saw last": "flush, cut 1, ~2, apply 0, answer 0, cut 0, put-back-where 0.1.1, break 1, heal 1, flush",
		// Rule 12: the count of transitions begins again with a deletion; a released YAML of before looks "later".
		"put-back of a released lock after a deletion": "flush, resign 0, flush, resign 1, flush, ~6, delete, ~8, flush, tick, apply 0, answer 0, cut 0, put-back-where released, flush",
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if r := recover(); r != nil {
					t.Error(r)
				}
			}()
			m := newModel(ModeLease, 2)
			for step := range strings.SplitSeq(script, ", ") {
				m = m.play(t, step)
			}
		})
	}
}

// play does a step of a trace.
func (m *model) play(t *testing.T, step string) *model {
	t.Helper()
	for step == "flush" {
		next := m.natural()[0]
		if next.name == "tick" {
			return m
		}
		m = m.after(next)
	}
	ticks := 0
	if _, err := fmt.Sscanf(step, "~%d", &ticks); err == nil {
		for ticks > 0 {
			next := m.natural()[0]
			if next.name == "tick" {
				ticks--
			}
			m = m.after(next)
		}
		return m
	}
	if want, ok := strings.CutPrefix(step, "put-back-where "); ok {
		for i, state := range m.history {
			if state.Exists && (state.Note.Write == want || want == "released" && state.released()) {
				step = fmt.Sprintf("put-back %d", i)
			}
		}
	}
	all := append(m.natural(), m.interference()...)
	i := slices.IndexFunc(all, func(a action) bool { return a.name == step })
	if i < 0 {
		t.Fatalf("%q is not possible", step)
	}
	return m.after(all[i])
}
