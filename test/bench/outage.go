package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

const (
	// outageLook is how often it is looked at who is back, and over how long the API server's load is taken.
	outageLook = 250 * time.Millisecond
	// burst is the time in which it is counted how many come back together.
	burst = 100 * time.Millisecond
)

// outage is the API server's end and a new one in its place, with all candidates connected.
type outage struct {
	down time.Duration // until the new one gave its first answer
	// renewed is when each lock was written again, and back when each candidate had its first answer, both after the first answer of all.
	renewed, back measure.Sample
	// burst is how many candidates had their first answer in the same tenth of a second, at most.
	burst int
	// peak is the highest share of a core that the new API server took from its first answer on, in percent.
	peak float64
	lost int // claims
}

// load is what share of a core a process took until then.
type load struct {
	at    time.Time
	share float64
}

// outage restarts the API server and waits until all are back.
func (l *massLab) outage(ctx context.Context) (o outage, err error) {
	if err := l.settle(ctx, massRest); err != nil {
		return o, err
	}
	for _, g := range l.groups {
		g.deposed = true
	}
	began, restarted := time.Now(), make(chan error, 1)
	go func() { restarted <- l.cluster.RestartAPIServer(ctx) }()
	if err := l.awaitEnd(ctx); err != nil {
		return o, err
	}
	// Nothing is answered between the end of the old one and this: a new one takes seconds.
	for _, g := range l.groups {
		for _, c := range g.members {
			c.link.mark()
		}
	}
	loads, err := l.awaitAll(ctx)
	if err != nil {
		return o, err
	}
	if err := <-restarted; err != nil {
		return o, err
	}
	// Those who lost a claim know it by then.
	if err := l.settle(ctx, massRest); err != nil {
		return o, err
	}
	o.count(l.groups, began, loads)
	l.progressf("API server away for %s: all locks renewed within %s, all candidates back within %s, %d at once at most; peak %.0f %% of a core, %d claims lost",
		measure.Duration(o.down), measure.Duration(o.renewed.Max()), measure.Duration(o.back.Max()), o.burst, o.peak, o.lost)
	return o, nil
}

// awaitEnd returns when nobody listens any more where the API server did.
func (l *massLab) awaitEnd(ctx context.Context) error {
	at, err := url.Parse(l.base.Host)
	if err != nil {
		return fmt.Errorf("reading the API server's address: %w", err)
	}
	for {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", at.Host)
		if err != nil {
			return context.Cause(ctx)
		}
		_ = conn.Close()
		if err := measure.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// awaitAll returns when all locks were written and all candidates were answered, and the API server's load meanwhile.
func (l *massLab) awaitAll(ctx context.Context) (loads []load, err error) {
	var used time.Duration
	begun := false
	for at, end := time.Now(), time.Now().Add(patience); !allBack(l.groups); {
		if at.After(end) {
			return nil, fmt.Errorf("not all candidates were back within %s", patience)
		}
		if err := measure.Sleep(ctx, outageLook); err != nil {
			return nil, err
		}
		if !begun {
			if l.server, err = processOf(l.cluster.Dir(), "kube-apiserver"); err != nil {
				continue // it is not there yet
			}
		}
		now := time.Now()
		cpu, err := measure.CPUTime(l.server)
		if err != nil {
			return nil, err
		}
		if begun {
			loads = append(loads, load{now, share(cpu-used, now.Sub(at))})
		}
		used, at, begun = cpu, now, true
	}
	return loads, nil
}

func allBack(groups []*group) bool {
	return !slices.ContainsFunc(groups, func(g *group) bool {
		back, renewed := g.back()
		return renewed.IsZero() || slices.ContainsFunc(back, time.Time.IsZero)
	})
}

// back is when each member that still contends had its first answer since the links were marked, and when the lock was first written.
func (g *group) back() (back []time.Time, renewed time.Time) {
	for _, c := range g.members {
		answered, wrote := c.link.since()
		if !wrote.IsZero() && (renewed.IsZero() || wrote.Before(renewed)) {
			renewed = wrote
		}
		if !c.link.isCut() {
			back = append(back, answered)
		}
	}
	return back, renewed
}

// count sums up what became of the groups since the API server's end.
func (o *outage) count(groups []*group, began time.Time, loads []load) {
	var back, renewed []time.Time
	for _, g := range groups {
		members, lock := g.back()
		back, renewed = append(back, members...), append(renewed, lock)
		o.lost += g.lost
	}
	slices.SortFunc(back, time.Time.Compare)
	first := back[0]
	o.down = first.Sub(began)
	for _, at := range renewed {
		o.renewed = append(o.renewed, at.Sub(first))
	}
	from := 0
	for i, at := range back {
		for at.Sub(back[from]) > burst {
			from++
		}
		o.burst = max(o.burst, i-from+1)
		o.back = append(o.back, at.Sub(first))
	}
	for _, l := range loads {
		if l.at.After(first) {
			o.peak = max(o.peak, l.share)
		}
	}
}
