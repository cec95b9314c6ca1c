package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/test/judge"
)

// group is a number of candidates of one implementation that contend for one Lease. Its methods belong to one goroutine.
type group struct {
	who    implementation
	lease  string
	base   *rest.Config
	events chan event

	started int
	members []*candidate
	known   map[*candidate]bool // has seen who leads
	leader  *candidate
	since   time.Time // when leader became it, or stopped being it
	deposed bool      // the leader may step down: its lock was taken away, or the API server was
	lost    int       // how many have stepped down
	began   time.Time
	lock    judge.Lock // by what candidates tell their applications

	candidates sync.WaitGroup
}

func newGroup(who implementation, base *rest.Config, lease string) *group {
	return &group{
		who: who, lease: lease, base: base,
		events: make(chan event, 64), known: map[*candidate]bool{},
		began: time.Now(), lock: judge.Lock{Tokenless: true}, // client-go has none
	}
}

// start adds a candidate.
func (g *group) start(ctx context.Context) *candidate {
	g.started++
	ctx, cancel := context.WithCancel(ctx)
	c := &candidate{
		identity: fmt.Sprintf("%s-%d_%d", g.lease, g.started, g.started),
		events:   g.events, muted: make(chan struct{}), stop: cancel,
	}
	g.members = append(g.members, c)
	g.candidates.Go(func() {
		defer cancel()
		c.run(ctx, g.who, g.base, g.lease)
	})
	return c
}

// elect starts so many candidates and returns when one leads and the others know.
func (g *group) elect(ctx context.Context, replicas int) error {
	for range replicas {
		g.start(ctx)
	}
	return g.until(ctx, "a leader that all know", func() bool {
		if g.leader == nil {
			return false
		}
		return !slices.ContainsFunc(g.members, func(c *candidate) bool { return c != g.leader && !g.known[c] })
	})
}

// close ends all candidates and waits for them. One that crashed takes a renew-deadline to give up.
func (g *group) close() {
	for _, c := range g.members {
		close(c.muted)
		c.stop()
	}
	g.members = nil
	g.candidates.Wait()
}

// handover takes the leader away and returns how long the group was without one. Then it replaces who left.
func (g *group) handover(ctx context.Context, remove func(*candidate)) (time.Duration, error) {
	if err := g.rest(ctx, pause()); err != nil {
		return 0, err
	}
	old := g.dismiss()
	asked := time.Now()
	remove(old)
	if err := g.until(ctx, "the next leader", func() bool { return g.leader != nil }); err != nil {
		return 0, err
	}
	took := g.since.Sub(asked)
	next := g.start(ctx)
	return took, g.until(ctx, "the new candidate to know the leader", func() bool { return g.known[next] })
}

// dismiss makes the group forget its leader, which it returns: it is not heard any more.
func (g *group) dismiss() *candidate {
	old := g.leader
	close(old.muted)
	g.members = slices.DeleteFunc(g.members, func(c *candidate) bool { return c == old })
	g.leader = nil
	g.lock.Ended(old.identity, time.Since(g.began))
	return old
}

const (
	// minPause lets the last handover's echo die away: the new candidate's first poll, a late renewal.
	minPause = 2 * time.Second
	// pauseSpread is a whole number of both leaders' renewal periods (10/3 s and 2 s) and about three of client-go's polls (2 s to 4.4 s),
	// so that no moment between two of them is more likely than another.
	pauseSpread = 10 * time.Second
	// patience is more than anything here can take: a takeover by client-go takes up to lease-duration and two polls.
	patience = time.Minute
)

func pause() time.Duration { return minPause + rand.N(pauseSpread) }

// until takes events in until done. What is being waited for is said when it does not come.
func (g *group) until(ctx context.Context, what string, done func() bool) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for !done() {
		select {
		case e := <-g.events:
			if err := g.take(e); err != nil {
				return err
			}
		case <-timer.C:
			return fmt.Errorf("%s: waited %s for %s", g.lease, patience, what)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// rest lets time pass in which nothing may happen.
func (g *group) rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case e := <-g.events:
			if err := g.take(e); err != nil {
				return err
			}
		case <-timer.C:
			return g.drain()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// drain takes in what has happened meanwhile.
func (g *group) drain() error {
	for {
		select {
		case e := <-g.events:
			if err := g.take(e); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// take takes in one event. An error says that the group did what would make the measurement worthless.
func (g *group) take(e event) error {
	switch e.kind {
	case leads:
		g.lock.Began(e.candidate.identity, 0, e.at.Sub(g.began))
		if violations := g.lock.Violations(); len(violations) > 0 {
			return errors.New(violations[0].String())
		}
		g.leader, g.since = e.candidate, e.at
	case stands:
		if !g.deposed {
			return fmt.Errorf("%s lost its lock by itself, is the machine overloaded?", e.candidate.identity)
		}
		g.lost++
		g.leader, g.since = nil, e.at
		g.lock.Ended(e.candidate.identity, e.at.Sub(g.began))
	case knows:
		g.known[e.candidate] = true
	case failed:
		return fmt.Errorf("%s: %w", e.candidate.identity, e.err)
	}
	return nil
}
