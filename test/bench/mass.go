package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/embedded"
)

// massReplicas is how many candidates there are of each of many locks.
const massReplicas = 3

const (
	// massStarts is how many groups start at a time: all at once would measure how the API server gets over that.
	massStarts = 20
	// massRest is how long all are left alone before a round: renewals spread, and the API server's memory settles.
	massRest = 15 * time.Second
)

// mass is what happens when the leaders of many locks leave at the same moment.
type mass struct {
	locks    int
	rounds   int
	handover measure.Sample // of every lock in every round
	// conflicts is how many writes the API server refused because the lock had changed, and writes how many there were, in the rounds
	// from the moment the leaders left until all locks had new ones.
	writes, conflicts int
	// rest is how many connections all candidates had at rest, dialled how many they made in the rounds, those of new candidates not counted.
	rest, dialled int
	// before and loaded are the API server's memory without candidates and with all of them at rest.
	before, loaded int64
}

// candidates is how many there are at rest.
func (m *mass) candidates() int { return m.locks * massReplicas }

// memory is what one candidate costs the API server.
func (m *mass) memory() float64 { return float64(m.loaded-m.before) / float64(m.candidates()) }

// row shows the figures: per lock and round, or per candidate.
func (m *mass) row(who implementation) massRow {
	handovers, candidates := float64(m.locks*m.rounds), float64(m.candidates())
	return massRow{
		Who: who.String(), P50: measure.Duration(m.handover.P50()), P95: measure.Duration(m.handover.P95()), Max: measure.Duration(m.handover.Max()),
		Writes: fmt.Sprintf("%.2f", float64(m.writes)/handovers), Conflicts: fmt.Sprintf("%.2f", float64(m.conflicts)/handovers),
		Rest: fmt.Sprintf("%.2f", float64(m.rest)/candidates), Dialled: fmt.Sprintf("%.2f", float64(m.dialled)/float64(m.rounds)/candidates),
		Memory: fmt.Sprintf("%.0f kB", m.memory()/1e3),
	}
}

// measureMass takes a cluster of its own for each implementation: an API server does not give memory back that it needed before.
func measureMass(ctx context.Context, o measure.Options[plan], where *measure.Machine, progress io.Writer) (found [2]mass, err error) {
	for _, who := range implementations {
		err := measure.OnCluster(ctx, embedded.Config{}, where, func(ctx context.Context, cluster *embedded.Cluster) (err error) {
			l := &lab{plan: o.Plan, base: cluster.RESTConfig(), client: cluster.Client(), progress: progress}
			if err := l.makeNamespace(ctx); err != nil {
				return err
			}
			server, err := apiServerOf(cluster.Dir())
			if err != nil {
				return err
			}
			found[who], err = l.mass(ctx, who, server)
			return err
		})
		if err != nil {
			return found, fmt.Errorf("measuring many locks with %s: %w", who, err)
		}
		m := found[who]
		fmt.Fprintf(progress, "%d leaders leave at once, %s: p50 %s, p95 %s, max %s; %d of %d writes refused, %d connections at rest, %d more dialled, %.0f kB of the API server each\n",
			m.locks, who, measure.Duration(m.handover.P50()), measure.Duration(m.handover.P95()), measure.Duration(m.handover.Max()),
			m.conflicts, m.writes, m.rest, m.dialled, m.memory()/1e3)
	}
	return found, nil
}

// mass starts the candidates of many locks and lets all leaders leave at once, as often as the plan says.
func (l *lab) mass(ctx context.Context, who implementation, server int) (m mass, err error) {
	m = mass{locks: l.plan.locks, rounds: l.plan.massRounds}
	before, err := measure.ReadMemory(server)
	if err != nil {
		return m, err
	}
	m.before = before.Resident
	groups := make([]*group, m.locks)
	for i := range groups {
		groups[i] = newGroup(who, l.base, fmt.Sprintf("mass-%d", i))
	}
	defer func() {
		var closing sync.WaitGroup
		for _, g := range groups {
			closing.Go(g.close)
		}
		closing.Wait()
	}()
	if err := together(ctx, groups, massStarts, func(ctx context.Context, g *group) error { return g.elect(ctx, massReplicas) }); err != nil {
		return m, err
	}
	for round := range m.rounds {
		if err := together(ctx, groups, m.locks, func(ctx context.Context, g *group) error { return g.rest(ctx, massRest) }); err != nil {
			return m, err
		}
		if round == 0 {
			loaded, err := measure.ReadMemory(server)
			if err != nil {
				return m, err
			}
			m.loaded = loaded.Resident
			for _, g := range groups {
				m.rest += g.connections()
			}
		}
		if err := m.leave(ctx, groups); err != nil {
			return m, err
		}
	}
	return m, nil
}

// leave lets the leaders of all groups leave at once and waits for the next ones. Then it replaces those who left.
func (m *mass) leave(ctx context.Context, groups []*group) error {
	var before traffics
	for _, g := range groups {
		before.add(g)
	}
	leavers := make([]*candidate, len(groups))
	for i, g := range groups {
		leavers[i] = g.dismiss()
	}
	asked := time.Now()
	for _, c := range leavers {
		c.leave()
	}
	err := together(ctx, groups, len(groups), func(ctx context.Context, g *group) error {
		return g.until(ctx, "the next leader", func() bool { return g.leader != nil })
	})
	if err != nil {
		return err
	}
	var after traffics
	for i, g := range groups {
		m.handover = append(m.handover, g.since.Sub(asked))
		after.add(g)
		after.addLink(&leavers[i].link)
	}
	m.writes += after.writes - before.writes
	m.conflicts += after.conflicts - before.conflicts
	m.dialled += after.dialled - before.dialled
	return together(ctx, groups, massStarts, func(ctx context.Context, g *group) error {
		next := g.start(ctx)
		return g.until(ctx, "the new candidate to know the leader", func() bool { return g.known[next] })
	})
}

// traffics sums up what links have carried.
type traffics struct{ writes, conflicts, dialled int }

func (t *traffics) add(g *group) {
	for _, c := range g.members {
		t.addLink(&c.link)
	}
}

func (t *traffics) addLink(l *link) {
	sent := l.sent()
	t.writes += sent["update"] + sent["create"]
	conflicts, dialled, _ := l.usage()
	t.conflicts += conflicts
	t.dialled += dialled
}

// connections is how many the members have open.
func (g *group) connections() (n int) {
	for _, c := range g.members {
		_, _, open := c.link.usage()
		n += open
	}
	return n
}

// together does something with all groups, so many at a time.
func together(ctx context.Context, groups []*group, atOnce int, do func(context.Context, *group) error) error {
	// Not the group's context: candidates that do starts live on after it.
	var work errgroup.Group
	work.SetLimit(atOnce)
	for _, g := range groups {
		work.Go(func() error { return do(ctx, g) })
	}
	return work.Wait()
}

// apiServerOf finds the API server's process of the cluster that keeps its files in dir.
func apiServerOf(dir string) (pid int, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, fmt.Errorf("looking for the API server: %w", err)
	}
	for _, path := range processes {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		program, args, _ := strings.Cut(string(data), "\x00")
		if filepath.Base(program) == "kube-apiserver" && strings.Contains(args, dir) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, errors.New("looking for the API server: there is no such process")
}
