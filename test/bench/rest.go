package main

import (
	"context"
	"fmt"
	"time"
)

// restReplicas is how many candidates rest in each group.
const restReplicas = 3

// traffic is what a group at rest sends.
type traffic struct {
	window   time.Duration
	standbys int
	leader   counts
	standby  counts // of all standbys together
}

// perSecond is the rate of requests of a leader and of one standby.
func (t traffic) perSecond(verb string) (leader, standby float64) {
	return float64(t.leader[verb]) / t.window.Seconds(), float64(t.standby[verb]) / t.window.Seconds() / float64(t.standbys)
}

// resting is a group at rest whose requests are counted.
type resting struct {
	*group
	begun  time.Time
	before map[*candidate]counts
}

// begin starts to count what the members send.
func (g *group) begin() resting {
	r := resting{group: g, begun: time.Now(), before: map[*candidate]counts{}}
	for _, c := range g.members {
		r.before[c] = c.link.sent()
	}
	return r
}

// end returns what the members have sent since begin.
func (r resting) end() (traffic, error) {
	if err := r.drain(); err != nil {
		return traffic{}, fmt.Errorf("a group at rest did not: %w", err)
	}
	t := traffic{window: time.Since(r.begun), leader: counts{}, standby: counts{}}
	for _, c := range r.members {
		sent := c.link.sent().minus(r.before[c])
		if c == r.leader {
			t.leader.plus(sent)
			continue
		}
		t.standbys++
		t.standby.plus(sent)
	}
	return t, nil
}

// restGroup elects a leader and waits until the excitement is over.
func (l *lab) restGroup(ctx context.Context, who implementation) (*group, error) {
	g := newGroup(who, l.base, "rest-"+who.String())
	err := g.elect(ctx, restReplicas)
	if err == nil {
		err = g.rest(ctx, minPause)
	}
	if err != nil {
		g.close()
		return nil, fmt.Errorf("starting a group at rest: %w", err)
	}
	return g, nil
}
