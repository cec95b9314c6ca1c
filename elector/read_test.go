package elector

import (
	"errors"
	"testing"
	"time"
)

// TestReadAgain holds when the lock is read again after a reading has ended.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	const now = time.Hour
	failed := errors.New("unreachable")
	for name, tc := range map[string]struct {
		reason string
		seen   []time.Duration // how long ago it saw the lock
		byLoop bool            // ended to read anew
		err    error
		fails  int // before
		again  time.Duration
		bad    bool
	}{
		"of use":           {reason: "it was time to begin anew", seen: []time.Duration{time.Second}, fails: 3},
		"too short":        {reason: "a lock that ends readings at once is not asked at once", seen: []time.Duration{time.Second - 1}, again: 300 * time.Millisecond},
		"too short again":  {reason: "nor the more often the longer it goes on", seen: []time.Duration{time.Second - 1}, fails: 2, again: 1200 * time.Millisecond},
		"slow":             {reason: "nor if it takes long to see anything", again: 300 * time.Millisecond},
		"failed":           {reason: "who fails together does not come back together", err: failed, again: 300 * time.Millisecond, bad: true},
		"failed again":     {reason: "the pause doubles", err: failed, fails: 1, again: 600 * time.Millisecond, bad: true},
		"failed for long":  {reason: "up to two retry-periods", err: failed, fails: 100, again: 4800 * time.Millisecond, bad: true},
		"failed at last":   {reason: "when it has worked the pause is short", seen: []time.Duration{time.Minute}, err: failed, fails: 100, again: 300 * time.Millisecond, bad: true},
		"watch failed":     {reason: "a list alone is not worth the next one", seen: []time.Duration{time.Second - 1}, err: failed, fails: 100, again: 4800 * time.Millisecond, bad: true},
		"a change":         {reason: "it was watched, then", seen: []time.Duration{2, 1}, err: failed, fails: 100, again: 300 * time.Millisecond, bad: true},
		"ended by a doubt": {reason: "that can't wait, and is no failure", byLoop: true, err: failed, fails: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cancelled := false
			r := reader{
				Elector: &Elector{desc: Description{Settings: DefaultSettings()}, cfg: Config{Jitter: func(limit time.Duration) time.Duration { return limit }}},
				current: &reading{cancel: func() { cancelled = true }, ended: tc.byLoop}, fails: tc.fails,
			}
			for _, ago := range tc.seen {
				r.worked(now - ago)
			}
			if bad := r.ended(tc.err, now); bad != tc.bad {
				t.Errorf("%s: failed is %v", tc.reason, bad)
			}
			if again := r.at - now; again != tc.again {
				t.Errorf("%s: it is read again after %v, want %v", tc.reason, again, tc.again)
			}
			if r.current != nil || !cancelled {
				t.Error("the reading goes on")
			}
			if at := r.act(t.Context(), nil, now-1); at != r.at || r.current != nil {
				t.Errorf("it is read before, or looked at again at %v", at)
			}
		})
	}
}

// TestReadSpread has all candidates lose the API server at the same moment.
func TestReadSpread(t *testing.T) {
	t.Parallel()
	for fails, want := range map[int]time.Duration{0: 100 * time.Millisecond, 1: 200 * time.Millisecond, 100: 1600 * time.Millisecond} {
		r := reader{
			Elector: &Elector{desc: Description{Settings: DefaultSettings()}, cfg: Config{Jitter: func(time.Duration) time.Duration { return 0 }}},
			current: &reading{cancel: func() {}}, fails: fails,
		}
		r.ended(errors.New("unreachable"), time.Hour)
		if again := r.at - time.Hour; again != want {
			t.Errorf("after %d failures the first is back after %v, want %v: a third of when the last is", fails, again, want)
		}
	}
}
