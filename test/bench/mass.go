package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
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

// mass is what was measured of many locks of one implementation.
type mass struct {
	locks int
	// least is measured before there are candidates.
	least least
	rest  quiet
	// alone is all leaders leaving at the same moment. In listed each lock says who goes next, as the manager has it; client-go has no such thing.
	alone, listed departures
	// drained is leaders leaving one after the other.
	drained departures
	outage  outage
}

// quiet is what many candidates cost while nothing happens.
type quiet struct {
	window      time.Duration
	cpu         cpu
	bytes       int // on the wire, in both directions
	connections int
	// before and loaded are the API server's memory without candidates and with all of them at rest.
	before, loaded int64
	// stacks is how much of what came between the two are stacks of goroutines, and goroutines how many more there were.
	stacks, goroutines float64
}

// departures are leaders that leave.
type departures struct {
	rounds   int
	handover measure.Sample // of every lock in every round
	// writes is how many there were from the moment the leaders left until all locks had new ones, and conflicts how many of them the API
	// server refused because the lock had changed. dialled is how many connections were made for it.
	writes, conflicts, dialled int
	cpu                        cpu
}

// cpu is what time processors worked. All candidates share this process, so theirs is own.
type cpu struct{ server, etcd, own time.Duration }

// readCPU returns what the processes have used so far.
func (l *massLab) readCPU() (c cpu, err error) {
	for _, one := range []struct {
		pid  int
		used *time.Duration
	}{{l.server, &c.server}, {l.etcd, &c.etcd}, {os.Getpid(), &c.own}} {
		if *one.used, err = measure.CPUTime(one.pid); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *cpu) add(from, to cpu) {
	c.server += to.server - from.server
	c.etcd += to.etcd - from.etcd
	c.own += to.own - from.own
}

// candidates is how many there are at rest.
func (m *mass) candidates() int { return m.locks * massReplicas }

// memory is what one candidate costs the API server.
func (m *mass) memory() float64 {
	return float64(m.rest.loaded-m.rest.before) / float64(m.candidates())
}

// control is the share of a core that the API server and etcd take at rest, in percent.
func (q quiet) control() float64 { return share(q.cpu.server+q.cpu.etcd, q.window) }

func share(cpu, window time.Duration) float64 { return 100 * cpu.Seconds() / window.Seconds() }

// massLab is a cluster of its own with many locks.
type massLab struct {
	*lab
	cluster *embedded.Cluster
	who     implementation
	groups  []*group
	// server and etcd are the processes.
	server, etcd int
}

// measureMass takes a cluster of its own for each implementation: an API server does not give memory back that it needed before.
func measureMass(ctx context.Context, o measure.Options[plan], where *measure.Machine, progress io.Writer) (found [2]mass, err error) {
	for _, who := range implementations {
		err := measure.OnCluster(ctx, embedded.Config{}, where, func(ctx context.Context, cluster *embedded.Cluster) (err error) {
			l := &massLab{
				lab: &lab{plan: o.Plan, base: cluster.RESTConfig(), client: cluster.Client(), progress: progress}, cluster: cluster, who: who,
			}
			if err := l.makeNamespace(ctx); err != nil {
				return err
			}
			found[who], err = l.mass(ctx)
			return err
		})
		if err != nil {
			return found, fmt.Errorf("measuring many locks with %s: %w", who, err)
		}
	}
	return found, nil
}

// mass starts the candidates of many locks, and has happen to them what the plan says.
func (l *massLab) mass(ctx context.Context) (m mass, err error) {
	m.locks = l.plan.locks
	if l.server, err = processOf(l.cluster.Dir(), "kube-apiserver"); err != nil {
		return m, err
	}
	if l.etcd, err = processOf(l.cluster.Dir(), "etcd"); err != nil {
		return m, err
	}
	if m.least, err = l.least(ctx); err != nil {
		return m, err
	}
	before, err := measure.ReadMemory(l.server)
	if err != nil {
		return m, err
	}
	stacks, goroutines, err := l.stacks(ctx)
	if err != nil {
		return m, err
	}
	for i := range m.locks {
		l.groups = append(l.groups, newGroup(l.who, l.base, fmt.Sprintf("mass-%d", i)))
	}
	defer l.close()
	if err := together(ctx, l.groups, massStarts, func(ctx context.Context, g *group) error { return g.elect(ctx, massReplicas) }); err != nil {
		return m, err
	}
	if m.rest, err = l.quiet(ctx); err != nil {
		return m, err
	}
	m.rest.before = before.Resident
	m.rest.stacks -= stacks
	m.rest.goroutines -= goroutines
	l.progressf("at rest: API server and etcd %.1f %% of a core, %.0f kB of the API server for each candidate", m.rest.control(), m.memory()/1e3)
	if m.alone, err = l.leaveAtOnce(ctx, false); err != nil {
		return m, err
	}
	if l.who == ours {
		if m.listed, err = l.leaveAtOnce(ctx, true); err != nil {
			return m, err
		}
	}
	if m.drained, err = l.drain(ctx); err != nil {
		return m, err
	}
	m.outage, err = l.outage(ctx)
	return m, err
}

func (l *massLab) progressf(format string, args ...any) {
	fmt.Fprintf(l.progress, "%d locks, %s: %s\n", len(l.groups), l.who, fmt.Sprintf(format, args...))
}

func (l *massLab) close() {
	var closing sync.WaitGroup
	for _, g := range l.groups {
		closing.Go(g.close)
	}
	closing.Wait()
}

// settle leaves all alone for a while.
func (l *massLab) settle(ctx context.Context, d time.Duration) error {
	return together(ctx, l.groups, len(l.groups), func(ctx context.Context, g *group) error { return g.rest(ctx, d) })
}

// tally sums up the links of all candidates.
func (l *massLab) tally() (sum tally) {
	for _, g := range l.groups {
		for _, c := range g.members {
			sum.add(c.link.tally())
		}
	}
	return sum
}

// quiet measures what all cost while nothing happens.
func (l *massLab) quiet(ctx context.Context) (q quiet, err error) {
	if err := l.settle(ctx, massRest); err != nil {
		return q, err
	}
	before, err := l.readCPU()
	if err != nil {
		return q, err
	}
	began, sent := time.Now(), l.tally()
	if err := l.settle(ctx, l.plan.massQuiet); err != nil {
		return q, err
	}
	after, err := l.readCPU()
	if err != nil {
		return q, err
	}
	q.window = time.Since(began)
	q.cpu.add(before, after)
	now := l.tally()
	q.bytes, q.connections = now.bytes-sent.bytes, now.open
	loaded, err := measure.ReadMemory(l.server)
	if err != nil {
		return q, err
	}
	q.loaded = loaded.Resident
	q.stacks, q.goroutines, err = l.stacks(ctx)
	return q, err
}

// stacks is what the API server says of its goroutines: the bytes of their stacks, and how many there are.
func (l *massLab) stacks(ctx context.Context) (size, goroutines float64, err error) {
	text, err := l.client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		for name, value := range map[string]*float64{"go_memstats_stack_inuse_bytes ": &size, "go_goroutines ": &goroutines} {
			if number, ok := strings.CutPrefix(line, name); ok {
				if *value, err = strconv.ParseFloat(strings.TrimSpace(number), 64); err != nil {
					return 0, 0, fmt.Errorf("reading the API server's metrics: %w", err)
				}
			}
		}
	}
	if size == 0 || goroutines == 0 {
		return 0, 0, errors.New("the API server's metrics say nothing of its goroutines")
	}
	return size, goroutines, nil
}

// leaveAtOnce lets the leaders of all groups leave at the same moment, as often as the plan says.
func (l *massLab) leaveAtOnce(ctx context.Context, listed bool) (d departures, err error) {
	for range l.plan.massRounds {
		if listed {
			if err := together(ctx, l.groups, massStarts, l.list); err != nil {
				return d, err
			}
		}
		if err := l.settle(ctx, massRest); err != nil {
			return d, err
		}
		if err := d.measure(ctx, l, l.groups, len(l.groups)); err != nil {
			return d, err
		}
	}
	how := "leave at once"
	if listed {
		how += ", with a list"
	}
	l.tell(how, d)
	return d, nil
}

// list notes on a group's lock who goes next, as the manager does where all are fit.
func (l *massLab) list(ctx context.Context, g *group) error {
	var names []string
	for _, c := range g.members {
		names = append(names, elector.NameOf(c.identity))
	}
	slices.Sort(names)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, elector.NextAnnotation, elector.FormatNext(names))
	_, err := l.client.CoordinationV1().Leases(namespace).Patch(ctx, g.lease, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("noting who goes next: %w", err)
	}
	return nil
}

// drain lets the leaders of some groups leave one after the other, as when their node is drained: each when the one before it is replaced.
func (l *massLab) drain(ctx context.Context) (d departures, err error) {
	if l.who == ours {
		if err := together(ctx, l.groups, massStarts, l.list); err != nil {
			return d, err
		}
	}
	if err := l.settle(ctx, massRest); err != nil {
		return d, err
	}
	if err := d.measure(ctx, l, l.groups[:min(l.plan.drained, len(l.groups))], 1); err != nil {
		return d, err
	}
	l.tell("leave one after the other", d)
	return d, nil
}

func (l *massLab) tell(how string, d departures) {
	l.progressf("%d leaders %s: p50 %s, p95 %s, max %s; %d of %d writes refused, CPU time for each %s of the API server, %s of etcd, %s of candidates", len(d.handover), how,
		measure.Duration(d.handover.P50()), measure.Duration(d.handover.P95()), measure.Duration(d.handover.Max()), d.conflicts, d.writes,
		measure.Duration(d.each(d.cpu.server)), measure.Duration(d.each(d.cpu.etcd)), measure.Duration(d.each(d.cpu.own)))
}

// each is a time divided by how many left.
func (d *departures) each(t time.Duration) time.Duration {
	return t / time.Duration(max(1, len(d.handover)))
}

// measure lets the leaders of groups leave, so many at a time, and waits for the next ones. Then it replaces those who left.
func (d *departures) measure(ctx context.Context, l *massLab, groups []*group, atOnce int) error {
	used, err := l.readCPU()
	if err != nil {
		return err
	}
	before := l.tally()
	var mu sync.Mutex
	var left tally // what those who left have sent in all
	err = together(ctx, groups, atOnce, func(ctx context.Context, g *group) error {
		leaver := g.dismiss()
		asked := time.Now()
		leaver.leave()
		if err := g.until(ctx, "the next leader", func() bool { return g.leader != nil }); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		d.handover = append(d.handover, g.since.Sub(asked))
		left.add(leaver.link.tally())
		return nil
	})
	if err != nil {
		return err
	}
	d.rounds++
	now, err := l.readCPU()
	if err != nil {
		return err
	}
	d.cpu.add(used, now)
	after := l.tally()
	after.add(left)
	d.writes += after.writes - before.writes
	d.conflicts += after.conflicts - before.conflicts
	d.dialled += after.dialled - before.dialled
	return together(ctx, groups, massStarts, func(ctx context.Context, g *group) error {
		next := g.start(ctx)
		return g.until(ctx, "the new candidate to know the leader", func() bool { return g.known[next] })
	})
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

// processOf finds a program of the cluster that keeps its files in dir.
func processOf(dir, name string) (pid int, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, fmt.Errorf("looking for %s: %w", name, err)
	}
	for _, path := range processes {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		program, args, _ := strings.Cut(string(data), "\x00")
		if filepath.Base(program) == name && strings.Contains(args, dir) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("looking for %s: there is no such process", name)
}
