package main

import (
	"strings"
	"testing"
	"time"
)

// A group in which two lead measures nothing.
func TestTake(t *testing.T) {
	t.Parallel()
	a, b := &candidate{identity: "a"}, &candidate{identity: "b"}
	tests := map[string]struct {
		deposed bool
		events  []event
		want    string // in the last one's error
		reason  string
	}{
		"One": {events: []event{{kind: leads, candidate: a}}, reason: "a leader"},
		"Two": {
			events: []event{{kind: leads, candidate: a}, {kind: leads, candidate: b}}, want: "two lead", reason: "nobody took the lock from a",
		},
		"Lost": {
			events: []event{{kind: leads, candidate: a}, {kind: stands, candidate: a}}, want: "lost its lock by itself", reason: "nobody took the lock from a",
		},
		"Deposed": {
			deposed: true, events: []event{{kind: leads, candidate: a}, {kind: stands, candidate: a}, {kind: leads, candidate: b}},
			reason: "one after the other",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGroup(ours, nil, "lease")
			g.deposed = test.deposed
			for i, e := range test.events {
				e.at = g.began.Add(time.Duration(i) * time.Second)
				err := g.take(e)
				if last := i == len(test.events)-1; err != nil != (last && test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: event %d: %v", test.reason, i, err)
				}
			}
		})
	}
}
