package elector

import (
	"encoding/binary"
	"flag"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The exploration runs the real candidates against a model of the API server and
// tries what may happen in every order: events that come late, writes that are
// carried out long after their answer was given up, crashes, resignations, and
// hands that edit the lock. What does not matter for the order is done at once.
//
// Every state that is reached is checked: no two claims at a time, and tokens that
// grow. Each run is continued to its end in peace, where somebody has to lead.
//
// What would take for ever is cut in two ways. From the start, every order of all
// things that may happen is tried to a depth; and along the way on which
// everything goes well (the default: what is under way arrives in order, and time
// passes when nothing is), a number of deviations is made at any places. The second
// reaches a partition with expiry, takeover and healing.

var (
	exploreFor   = flag.Duration("explore", 0, "explore for so long, deeper and deeper (default: what takes some seconds)")
	exploreTrace = flag.String("explore.trace", "", "replay this trace, as a failure prints it, and say what happens")
)

// Times are such that a tick is the shortest time that matters. The clocks run at
// rates as far apart as is allowed: lease-duration / renew-deadline.
var exploredSettings = Settings{
	Lock: "web", Mode: ModeLease, LeaseDuration: 600 * time.Millisecond, RenewDeadline: 400 * time.Millisecond, RetryPeriod: 100 * time.Millisecond,
}

const (
	slowTick, fastTick = 200 * time.Millisecond, 300 * time.Millisecond
	human              = "human" // holds the lock after an edit, and does not contend
)

// model is a state of everything.
type model struct {
	forLife  bool
	gated    bool // there is a gate before each application; see gated_test.go
	polite   bool // applications end when they are told to
	settings Settings
	// The datastore.
	version uint64
	lock    Record
	history []Record // every state that the lock has had
	// restored counts how often the datastore was set back.
	restored int
	procs    []proc
	// erased says of which claims a hand erased the lock, and when, until they end.
	erased map[int]int
	// Who had the largest token.
	topToken uint64
	topOwner int
	// How much has happened that does not happen by itself.
	faults [kinds]int
	step   int // how many actions there were
	trace  []string
}

// proc is a candidate's Pod with the process in it.
type proc struct {
	c           candidate
	alive       bool
	incarnation int
	servedAt    int // the step at which the API server answered the reading that is under way
	knowsSince  int // the same of the first reading that arrived; 0 without any
	clock, tick time.Duration
	told        Status        // what the application reads, which outlives the process
	end         time.Duration // of the claim that was told
	cut         bool          // nothing arrives
	held        time.Duration // until when the lock is held for work, as was told
	gate        gated

	// Its reading.
	reading  int
	snapshot *Record // what the list found, when it is served and under way
	served   bool
	next     int // index in the history of the next event

	// Its write.
	base, want Record
	flying     bool
	sent       time.Duration
	applied    bool
	result     Record
	conflict   bool
	decided    int // how much of the history was known when the write was sent
	late       []lateWrite
	// lateCreate tells that the claim goes back to a creation that was decided before
	// others came and went.
	lateCreate bool
	// unaware tells that a restore set the datastore back to just what this process
	// knew, or had written, so that it can't know what others have seen since.
	unaware bool
	// behind tells that a release was put back while this process did not see.
	behind bool
}

type lateWrite struct {
	base, want Record
	decided    int
}

func newModel(mode Mode, candidates int) *model { return newModelOf(mode, candidates, false) }

// newModelOf makes a model, with gates or without.
func newModelOf(mode Mode, candidates int, isGated bool) *model {
	m := &model{forLife: mode == ModeLeaderForLife, gated: isGated, settings: exploredSettings, version: 10, lock: Record{Version: 10}, erased: map[int]int{}, topOwner: -1}
	m.settings.Mode = mode
	slow, fast := slowTick, fastTick
	if isGated {
		m.settings, slow, fast = gatedSettings, gatedSlowTick, gatedFastTick
	}
	m.history = []Record{m.lock}
	for i := range candidates {
		p := proc{tick: slow, clock: time.Hour}
		if i%2 == 1 {
			p.tick = fast
		}
		m.procs = append(m.procs, p)
		m.closeGate(i)
		m.start(i)
	}
	return m
}

func identityOf(i int) string { return Identity("web-"+strconv.Itoa(i), "uid") }

// start starts the process of candidate i.
func (m *model) start(i int) {
	p := &m.procs[i]
	p.incarnation++
	p.alive, p.knowsSince, p.flying = true, 0, false
	p.c = candidate{
		settings: m.settings, identity: identityOf(i), grace: m.settings.RenewDeadline * 5 / 2, process: fmt.Sprintf("%d.%d", i, p.incarnation),
		jitter: func(time.Duration) time.Duration { return 0 },
	}
	if p.incarnation > 1 {
		last := p.told
		if m.gated {
			last = p.gate.last
		}
		p.c.last = &last
	}
	m.tell(i)
	m.read(i)
	m.turn(i)
}

// read makes candidate i read anew.
func (m *model) read(i int) {
	p := &m.procs[i]
	p.reading = p.c.beginReading(p.clock)
	p.snapshot, p.served = nil, false
}

// turn is what the loop does after every event.
func (m *model) turn(i int) {
	p := &m.procs[i]
	if !p.alive {
		return
	}
	p.c.settle(p.clock)
	p.c.obey(p.clock)
	m.tell(i)
	if m.gated {
		m.workGate(i)
		m.tell(i)
	}
	if p.c.done() {
		p.alive = false
		return
	}
	if p.c.outread(p.clock) {
		m.read(i)
	}
	if op, _ := p.c.next(p.clock); op != opNone {
		p.base, p.want = p.c.send(op, p.clock, time.Unix(0, 0).Add(p.clock))
		p.sent = p.clock
		p.flying, p.applied, p.conflict, p.decided = true, false, false, p.next
	}
}

// tell lets the application of i know what the candidate is.
func (m *model) tell(i int) {
	p := &m.procs[i]
	before := p.told
	v := p.c.view(p.clock)
	p.told = Status{Role: v.role, FencingToken: v.token, LockVersion: v.version}
	p.end, p.held = p.c.claimEnd(), v.held
	if v.role != RoleLeader {
		if before.Role == RoleLeader && p.c.lost() == lossHandover && p.c.rec.Handover.Token != before.FencingToken {
			m.fail("%d, with token %d, obeys a request about token %d", i, before.FencingToken, p.c.rec.Handover.Token)
		}
		return
	}
	if before.Role == RoleLeader && before.FencingToken == v.token {
		return
	}
	if m.gated && before.Role != RoleLeader {
		p.c.working()
	}
	switch {
	case v.token == 0:
		m.fail("%d claims without a token", i)
	case m.restored > 0:
		// Versions are given out again: only what the process itself saw binds it.
	case i != m.topOwner && v.token <= m.topToken && m.erased[i] > 0:
		return // its lock was erased before it knew that it had it; the token tells its late writes
	case i != m.topOwner && v.token <= m.topToken:
		m.fail("token %d of %d is not above %d of %d", v.token, i, m.topToken, m.topOwner)
	case v.token < m.topToken:
		m.fail("the token of %d shrank from %d to %d", i, m.topToken, v.token)
	}
	m.topToken, m.topOwner = v.token, i
}

type exploreFailure struct{ what string }

func (m *model) fail(format string, args ...any) {
	panic(exploreFailure{fmt.Sprintf(format, args...)})
}

// claims tells whether the application of i would act now.
func (m *model) claims(i int) bool {
	p := &m.procs[i]
	return p.told.Role == RoleLeader && p.clock < p.end
}

// claimsSoon tells whether the candidate will claim when the answer to its write
// arrives.
func (m *model) claimsSoon(i int) bool {
	p := &m.procs[i]
	return p.alive && p.flying && p.applied && !p.conflict && p.want.Holder == identityOf(i)
}

// check looks for two claims, and returns why they are excused, if they are.
func (m *model) check() (excuse string) {
	for i := range m.procs {
		if !m.claims(i) && !m.claimsSoon(i) {
			delete(m.erased, i)
		}
	}
	for i := range m.procs {
		m.procs[i].unaware = m.procs[i].unaware && len(m.erased) > 0
		m.procs[i].behind = m.procs[i].behind && len(m.erased) > 0
		for j := range i {
			if !m.claims(i) || !m.claims(j) {
				continue
			}
			why := m.excused(i, j)
			if why == "" {
				why = m.excused(j, i)
			}
			if why == "" {
				m.fail("%d and %d claim at a time", j, i)
			}
			excuse = why
		}
	}
	if why := m.checkChildren(); why != "" {
		excuse = why
	}
	return excuse
}

// excused tells why p may claim beside q: these are the limits that docs/safety.md
// states, and no others.
func (m *model) excused(p, q int) string {
	at := m.erased[q]
	switch {
	case at == 0:
		return ""
	case m.forLife:
		return "leader-for-life: a hand erased a living leader that has not seen it"
	case m.procs[p].knowsSince >= at:
		return "a hand erased a leader, and a process that started later can't know it"
	case m.procs[p].unaware:
		return "a restore set the lock back to what the process knew"
	case m.procs[p].behind:
		return "a release was put back for a process that had not seen what came after it"
	case m.procs[p].lateCreate:
		return "a creation was decided before another leader came and was erased by hand"
	}
	return ""
}

// commit is the datastore's write of a state of the lock.
func (m *model) commit(rec Record) Record {
	m.version += 10 // so that a restored datastore, which goes on beside these, gives out none again
	if !rec.Exists {
		rec = Record{}
	}
	rec.Version = m.version
	m.lock = rec
	m.history = append(m.history, rec)
	return rec
}

// put is the API server's answer to a write.
func (m *model) put(base, want Record) (Record, bool) {
	switch {
	case m.lock.Exists != base.Exists, base.Exists && m.lock.Version != base.Version:
		return Record{}, false
	case m.forLife && base.Exists && want.Holder != base.Holder:
		return m.commit(Record{}), true // a lock for life is deleted, not handed on
	}
	want.Exists = true
	return m.commit(want), true
}

// write carries out a write of p.
func (m *model) write(p *proc, base, want Record, decided int) (Record, bool) {
	rec, ok := m.put(base, want)
	switch {
	case !ok:
	case !base.Exists:
		p.lateCreate = m.cameAndWent(decided)
	case base.Holder != want.Holder:
		p.lateCreate = false
	}
	return rec, ok
}

// erase notes that a hand ends the terms of all that claim.
func (m *model) erase() {
	for i := range m.procs {
		m.procs[i].gate.spoilt = m.procs[i].gate.child
		if m.erased[i] == 0 && (m.claims(i) || m.claimsSoon(i)) {
			m.erased[i] = m.step
		}
	}
}

// action is something that may happen. Its name says all about it.
type action struct {
	name string
	do   func(m *model)
	kind kind // which limit it counts against
}

// natural are the things under way, in the default order: the first one happens if
// nobody interferes.
func (m *model) natural() []action {
	var all []action
	add := func(i int, what string, do func(m *model, p *proc)) {
		all = append(all, action{name: fmt.Sprintf("%s %d", what, i), do: func(m *model) {
			do(m, &m.procs[i])
			m.turn(i)
		}})
	}
	begins, ends := m.gateNatural()
	all = append(all, begins...)
	for i := range m.procs {
		p := &m.procs[i]
		if p.cut || !p.alive {
			continue
		}
		if p.flying && !p.applied {
			add(i, "apply", func(m *model, p *proc) {
				rec, ok := m.write(p, p.base, p.want, p.decided)
				p.applied, p.result, p.conflict = true, rec, !ok
			})
		}
		if p.flying && p.applied {
			add(i, "answer", func(_ *model, p *proc) {
				p.flying = false
				if p.conflict {
					p.c.refused(p.clock)
				} else {
					p.c.written(p.result, p.clock)
				}
			})
		}
		if !p.served {
			add(i, "list", func(m *model, p *proc) {
				now := m.lock
				if !now.Exists {
					now = Record{Version: m.version}
				}
				p.snapshot, p.served, p.servedAt, p.next = &now, true, m.step, len(m.history)
			})
		}
		if p.served && p.snapshot != nil {
			add(i, "see", func(_ *model, p *proc) {
				rec := *p.snapshot
				p.snapshot = nil
				if p.knowsSince == 0 {
					p.knowsSince = p.servedAt
				}
				p.c.observe(rec, p.reading, p.clock)
			})
		}
		if p.served && p.snapshot == nil && p.next < len(m.history) {
			add(i, "watch", func(m *model, p *proc) {
				p.next++
				p.c.observe(m.history[p.next-1], p.reading, p.clock)
			})
		}
	}
	return append(append(all, action{name: "tick", do: (*model).tick}), ends...)
}

// unknown is what a write was decided on that began before a restore.
const unknown = -1

// cameAndWent tells whether somebody else held the lock since the history had so
// many states.
func (m *model) cameAndWent(since int) bool {
	return since == unknown || slices.ContainsFunc(m.history[since:max(since, len(m.history)-1)], func(r Record) bool { return r.Holder != "" })
}

// tick lets time pass.
func (m *model) tick() {
	for i := range m.procs {
		p := &m.procs[i]
		p.clock += p.tick
		m.turnGate(i) // which has acted in time, whatever comes now
	}
	for i := range m.procs {
		p := &m.procs[i]
		if p.alive && p.flying && p.clock >= p.sent+m.settings.RenewDeadline/renewFraction {
			p.give()
			p.c.failed(p.clock)
		}
		if p.alive && p.snapshot != nil {
			m.read(i) // a list that takes so long is given up
		}
	}
	for i := range m.procs {
		m.turn(i)
	}
}

// kind is a kind of what does not happen by itself.
type kind int

const (
	byItself kind = iota
	cutting
	losing
	breaking
	crashing
	resigning
	stopping
	editing
	restoring
	arriving
	asking
	naming
	freezing
	exiting
	killing
	kinds
)

// limits are how often things of a kind may happen in one run.
var limits = [kinds]int{cutting: 2, losing: 3, breaking: 2, crashing: 2, resigning: 2, stopping: 1, editing: 2, restoring: 1, arriving: 3, asking: 2, naming: 1, freezing: 1, exiting: 1, killing: 1}

// interference are the things that do not happen by themselves.
func (m *model) interference() []action {
	var all []action
	add := func(kind kind, name string, do func(m *model)) {
		if m.faults[kind] < limits[kind] {
			all = append(all, action{name, func(m *model) {
				m.faults[kind]++
				do(m)
			}, kind})
		}
	}
	of := func(kind kind, what string, i int, do func(m *model, p *proc)) {
		add(kind, fmt.Sprintf("%s %d", what, i), func(m *model) {
			do(m, &m.procs[i])
			m.turn(i)
		})
	}
	for i := range m.procs {
		p := &m.procs[i]
		switch {
		case p.cut:
			all = append(all, action{name: fmt.Sprintf("heal %d", i), do: func(m *model) { m.procs[i].cut = false }})
		case p.alive:
			of(cutting, "cut", i, func(_ *model, p *proc) { p.cut = true })
		}
		if m.gated {
			all = append(all, m.gateInterference(i)...)
		}
		if !p.alive {
			if !p.gate.waits {
				all = append(all, action{name: fmt.Sprintf("start %d", i), do: func(m *model) { m.restart(i) }})
			}
		} else {
			if p.flying {
				of(losing, "lose", i, func(_ *model, p *proc) { p.give(); p.c.failed(p.clock) })
			}
			if p.served {
				of(breaking, "break", i, func(m *model, _ *proc) { m.read(i) })
			}
			of(crashing, "crash", i, func(_ *model, p *proc) {
				if p.flying {
					p.give()
				}
				p.alive = false
			})
			if p.c.claiming || p.c.releasable() {
				of(resigning, "resign", i, func(_ *model, p *proc) { p.c.resign(lossResigned, p.clock) })
			}
			if !p.c.stopping {
				of(stopping, "stop", i, func(_ *model, p *proc) { p.c.stop(p.clock) })
			}
		}
		for n := range p.late {
			add(arriving, fmt.Sprintf("late %d %d", i, n), func(m *model) {
				p := &m.procs[i]
				l := p.late[n]
				p.late = slices.Delete(slices.Clone(p.late), n, n+1)
				m.write(p, l.base, l.want, l.decided)
			})
		}
	}
	return append(append(all, m.wishes()...), m.edits()...)
}

// wishes are what somebody may ask of candidates: of the leader that it hands over,
// to anybody or to one of them, as of its claim or of one before; and of all that
// one of them goes first.
func (m *model) wishes() []action {
	if !m.lock.Exists {
		return nil
	}
	var all []action
	add := func(kind kind, name string, rec Record) {
		if m.faults[kind] < limits[kind] {
			all = append(all, action{name: name, kind: kind, do: func(m *model) {
				m.faults[kind]++
				m.commit(rec)
			}})
		}
	}
	for i := range m.procs {
		rec := m.lock
		rec.Next = NameOf(identityOf(i))
		add(naming, fmt.Sprintf("next %d", i), rec)
		if rec = m.lock; rec.Holder != identityOf(i) || !m.claims(i) {
			continue
		}
		token := m.procs[i].told.FencingToken
		rec.Handover = Handover{Token: token}
		add(asking, "ask", rec)
		rec.Handover.To = NameOf(identityOf((i + 1) % len(m.procs)))
		add(asking, "ask to the next", rec)
		rec.Handover.Token--
		add(asking, "ask another", rec)
	}
	return all
}

// give leaves a write to be carried out some time, or never.
func (p *proc) give() {
	p.flying = false
	if !p.applied {
		p.late = append(slices.Clip(p.late), lateWrite{p.base, p.want, p.decided})
	}
}

// edits are what a hand may do to the lock.
func (m *model) edits() []action {
	if m.faults[editing] >= limits[editing] {
		return nil
	}
	var all []action
	add := func(name string, rec Record) {
		all = append(all, action{name: name, kind: editing, do: func(m *model) {
			m.faults[editing]++
			if rec.Holder != m.lock.Holder || !rec.Exists || rec.Note.Write != m.lock.Note.Write {
				m.erase()
			}
			for i := range m.procs {
				p := &m.procs[i]
				p.behind = p.behind || rec.released() && (!p.served || p.next < len(m.history))
			}
			m.commit(rec)
		}})
	}
	if m.lock.Exists {
		add("delete", Record{})
		add("label", m.lock)
		if m.lock.Holder != "" {
			rec := m.lock
			rec.Holder = ""
			add("empty", rec)
			for _, to := range append([]string{human}, m.identities()...) {
				if rec.Holder = to; to != m.lock.Holder {
					add("hand "+to, rec)
				}
			}
		}
	}
	for n, old := range m.history {
		if old.Exists && old.Version != m.lock.Version && !sameContent(old, m.lock) {
			add(fmt.Sprintf("put-back %d", n), old)
		}
	}
	if m.faults[restoring] < limits[restoring] && len(m.history) > 1 {
		for n := range m.history[:len(m.history)-1] {
			all = append(all, action{name: fmt.Sprintf("restore %d", n), kind: restoring, do: func(m *model) {
				m.faults[restoring]++
				m.restored++
				m.erase()
				m.lock, m.version = m.history[n], m.history[n].Version+1 // somebody else writes something
				m.history = slices.Clone(m.history[:n+1])
				for i := range m.procs {
					p := &m.procs[i]
					if p.alive {
						m.read(i) // the API server went down with it
					}
					p.decided, p.next = unknown, 0
					p.unaware = m.lock.Exists && p.c.known && (p.c.rec.Version == m.lock.Version || p.c.holds(m.lock, true, p.clock))
					p.late = slices.Clone(p.late)
					for j := range p.late {
						p.late[j].decided = unknown
					}
				}
			}})
		}
	}
	return all
}

func sameContent(a, b Record) bool {
	return a.sameTerm(b) && a.Note == b.Note && a.Handover == b.Handover && a.Next == b.Next
}

func (m *model) identities() []string {
	var all []string
	for i := range m.procs {
		all = append(all, identityOf(i))
	}
	return all
}

// clone copies the state, but for what is never changed.
func (m *model) clone() *model {
	n := *m
	n.history = slices.Clip(m.history)
	n.procs = slices.Clone(m.procs)
	n.erased = maps.Clone(m.erased)
	n.trace = slices.Clip(m.trace)
	for i := range n.procs {
		p := &n.procs[i]
		p.c = p.c.clone()
		p.late = slices.Clip(p.late)
		if p.snapshot != nil {
			p.snapshot = new(*p.snapshot)
		}
	}
	return &n
}

func (c *candidate) clone() candidate {
	n := *c
	if c.term != nil {
		n.term = new(*c.term)
	}
	if c.writing != nil {
		n.writing = new(*c.writing)
	}
	n.unanswered = slices.Clip(c.unanswered)
	return n
}

// digest is a hash of the state in which states are alike that differ by when
// they are reached only: times count from now, versions from the newest.
func (x *exploration) digest(m *model) [2]uint64 {
	h := digester{m, &x.bytes}
	x.bytes = x.bytes[:0]
	h.record(m.lock)
	h.number(int64(m.restored), int64(m.version-m.topToken), int64(m.topOwner))
	for _, n := range m.faults {
		h.number(int64(n))
	}
	for i := range m.procs {
		h.proc(&m.procs[i])
		at := m.erased[i]
		h.flag(at > 0)
		for j := range m.procs {
			h.flag(m.procs[j].knowsSince >= at)
		}
	}
	// What is behind may be put back, and what is ahead will be seen.
	for _, r := range m.history {
		h.record(r)
	}
	return [2]uint64{maphash.Bytes(seeds[0], x.bytes), maphash.Bytes(seeds[1], x.bytes)}
}

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// digester writes down a state.
type digester struct {
	m     *model
	bytes *[]byte
}

func (h digester) number(all ...int64) {
	for _, n := range all {
		*h.bytes = binary.AppendVarint(*h.bytes, n)
	}
}

func (h digester) text(all ...string) {
	for _, s := range all {
		h.number(int64(len(s)))
		*h.bytes = append(*h.bytes, s...)
	}
}

func (h digester) flag(all ...bool) {
	for _, b := range all {
		*h.bytes = append(*h.bytes, '0')
		if b {
			(*h.bytes)[len(*h.bytes)-1] = '1'
		}
	}
}

func (h digester) record(r Record) {
	h.flag(r.Exists, r.Note.Released)
	h.number(int64(h.m.version-r.Version), int64(r.Transitions), int64(r.LeaseDuration), r.AcquireTime.UnixNano(), r.RenewTime.UnixNano(), int64(h.m.version-r.Note.Token))
	h.text(r.Holder, r.Note.Holder, r.Note.Write, r.Note.To, r.Next, r.Handover.To)
	if r.Handover.Token != 0 {
		h.number(int64(h.m.version - r.Handover.Token))
	}
}

// since is a moment as it matters: one that is over is over.
func (h digester) since(t, now time.Duration) {
	switch {
	case t == forever:
		h.number(math.MaxInt64)
	case t <= now-time.Second:
		h.number(math.MinInt64)
	default:
		h.number(int64(t - now))
	}
}

func (h digester) proc(p *proc) {
	c := &p.c
	h.flag(p.unaware, p.behind, p.alive, p.knowsSince > 0, p.cut, p.served, p.flying, p.applied, p.conflict, p.lateCreate)
	h.number(int64(len(h.m.history)-p.next), int64(c.reading-p.reading), int64(p.clock%time.Second))
	h.text(string(p.told.Role))
	h.number(int64(h.m.version-p.told.FencingToken), int64(h.m.version-p.told.LockVersion))
	h.since(p.end, p.clock)
	h.gate(p)
	if p.snapshot != nil {
		h.record(*p.snapshot)
	}
	if p.flying {
		h.record(p.base)
		h.record(p.want)
		h.record(p.result)
	}
	for _, l := range p.late {
		h.record(l.base)
		h.record(l.want)
	}
	if !p.alive {
		return
	}
	h.flag(c.known, c.held, c.twin, c.claiming, c.doubt, c.busy, c.resigning, c.stopping, c.term != nil, c.writing != nil, c.last != nil)
	h.record(c.rec)
	h.number(int64(c.reading-c.source), int64(c.reading-c.outdated), int64(c.reading-c.doubtful), int64(h.m.version-c.highest), int64(c.failures), int64(c.resume))
	for _, t := range []time.Duration{c.seen, c.guard, c.retry, c.holdOff, c.doubtAt, c.busyUntil, c.leaveBy} {
		h.since(t, p.clock)
	}
	h.text(append(c.first, c.before)...)
	if c.term != nil {
		h.flag(c.term.noted)
		h.number(int64(h.m.version - c.term.token))
		h.since(c.term.renewed, p.clock)
	}
	if c.writing != nil {
		h.number(int64(c.change - c.writing.change))
		h.since(c.writing.last.sent, p.clock)
	}
	for _, w := range c.unanswered {
		h.number(int64(w.first.number), int64(w.last.number))
		h.record(w.base)
	}
}

// exploration is one search.
type exploration struct {
	seen    map[[2]uint64]int // the most deviations and steps that were left where a state was reached
	sample  uint64            // one of so many deviations is made
	end     time.Time         // when to give up; zero for never
	bytes   []byte
	states  int
	ends    int
	excuses map[string]int
}

// explore goes on from m with so many deviations left, over so many more steps.
func (x *exploration) explore(m *model, deviations, steps int) {
	if x.over() {
		return
	}
	if why := m.check(); why != "" {
		x.excuses[why]++
	}
	key, left := x.digest(m), deviations<<16|steps
	if x.seen[key] > left {
		return
	}
	x.seen[key] = left + 1
	x.states++
	if steps == 0 {
		x.ends++
		m.clone().calm()
		return
	}
	natural, chance := m.natural(), x.chance()
	if deviations > 0 {
		for i, a := range append(natural[1:], m.interference()...) {
			if (chance+uint64(i))%x.sample == 0 {
				x.explore(m.after(a), deviations-1, steps-1)
			}
		}
	}
	x.explore(m.after(natural[0]), deviations, steps-1)
}

// chance is a number that the state says, the same in every run.
func (x *exploration) chance() uint64 {
	if x.sample == 1 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(x.bytes)
	return h.Sum64()
}

func (x *exploration) over() bool {
	return !x.end.IsZero() && x.states%1024 == 1023 && time.Now().After(x.end)
}

// after is the state that an action leads to.
func (m *model) after(a action) (next *model) {
	next = m.clone()
	next.trace = append(next.trace, a.name)
	next.step++
	defer func() {
		if f, ok := recover().(exploreFailure); ok {
			panic(fmt.Errorf("%s, after: %s", f.what, strings.Join(next.trace, ", ")))
		}
	}()
	a.do(next)
	next.check()
	return next
}

// calm ends all that is wrong and lets everything take its course, until somebody
// leads, is not asked to hand over, and everybody agrees.
func (m *model) calm() {
	m.polite = true
	for i := range m.procs {
		m.procs[i].cut, m.procs[i].gate.frozen = false, false
		m.procs[i].late = nil
		m.turnGate(i)
	}
	if m.lock.Holder == human && m.forLife {
		m.commit(Record{}) // the garbage collector's work, when that Pod is gone
	}
	before := len(m.trace)
	for range 400 {
		m = m.after(m.natural()[0])
		leaders, asked := 0, false
		for i := range m.procs {
			if !m.procs[i].alive && !m.procs[i].gate.waits {
				m.restart(i)
			}
			if m.claims(i) && m.lock.Holder == identityOf(i) {
				leaders++
				h := m.lock.Handover
				asked = h.Token == m.procs[i].told.FencingToken && h.To != NameOf(identityOf(i))
			}
		}
		if leaders == 1 && m.oneChild() && !asked && len(m.natural()) == 1 {
			return
		}
	}
	panic(fmt.Errorf("in the end nobody leads, or somebody who is asked to hand over, after: %s", strings.Join(m.trace[:before], ", ")))
}

// TestExplore explores a little; with -explore=1h as deep as an hour allows.
func TestExplore(t *testing.T) {
	if *exploreTrace != "" {
		replay(t)
		return
	}
	type plan struct{ candidates, deviations, steps, sample int }
	plans := []plan{{2, 5, 5, 1}, {2, 1, 60, 1}, {3, 1, 60, 1}, {2, 2, 60, 13}, {3, 2, 60, 31}, {2, 3, 40, 23}}
	if *exploreFor > 0 {
		plans = []plan{{2, 7, 7, 1}, {2, 2, 60, 1}, {3, 6, 6, 1}, {2, 9, 9, 1}, {3, 2, 60, 1}, {2, 3, 60, 7}, {3, 3, 60, 101}, {2, 3, 60, 1}, {2, 12, 12, 1}}
	}
	start := time.Now()
	for n, p := range plans {
		for i, mode := range []Mode{ModeLease, ModeLeaderForLife} {
			t.Run(fmt.Sprintf("%s, %d candidates, %d deviations in %d steps, 1 of %d", mode, p.candidates, p.deviations, p.steps, p.sample), func(t *testing.T) {
				x := &exploration{seen: map[[2]uint64]int{}, excuses: map[string]int{}, sample: uint64(p.sample)}
				if *exploreFor > 0 { // the last plans get what those before them leave
					x.end = start.Add(*exploreFor * time.Duration(2*n+i+1) / time.Duration(2*len(plans)))
				}
				defer func() {
					if r := recover(); r != nil {
						t.Fatalf("%v\n(-explore.trace '%s/%d/...' replays it)", r, mode, p.candidates)
					}
					cut := ""
					if x.over() {
						cut = ", not finished"
					}
					t.Logf("%d states, %d ends%s; excused: %v", x.states, x.ends, cut, x.excuses)
				}()
				x.explore(newModel(mode, p.candidates), p.deviations, p.steps)
			})
		}
	}
}

// TestWalk goes at random where exhaustion does not get to: runs with any number of
// deviations, of all kinds alike.
func TestWalk(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	walks, end := 0, time.Now().Add(*exploreFor/4)
	for ; walks < 500 || time.Now().Before(end); walks++ {
		mode, candidates, share := ModeLease, 2+rng.IntN(2), rng.Float64()/2
		if rng.IntN(4) == 0 {
			mode = ModeLeaderForLife
		}
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Fatalf("%v\n(-explore.trace '%s/%d/...' replays it)", r, mode, candidates)
				}
			}()
			m := newModel(mode, candidates)
			for range 20 + rng.IntN(60) {
				m = m.after(m.drawn(rng, share))
			}
			m.clone().calm()
		}()
	}
	t.Logf("%d walks", walks)
}

// drawn is the default action, or with the given chance one of a kind that is drawn.
func (m *model) drawn(rng *rand.Rand, share float64) action {
	natural := m.natural()
	if rng.Float64() >= share {
		return natural[0]
	}
	byName := map[string][]action{}
	for _, a := range append(natural[1:], m.interference()...) {
		name, _, _ := strings.Cut(a.name, " ")
		byName[name] = append(byName[name], a)
	}
	if len(byName) == 0 {
		return natural[0]
	}
	names := slices.Sorted(maps.Keys(byName))
	some := byName[names[rng.IntN(len(names))]]
	return some[rng.IntN(len(some))]
}

// replay says what happens in a trace: MODE/CANDIDATES/ACTION, ACTION, ...
func replay(t *testing.T) {
	mode, rest, _ := strings.Cut(*exploreTrace, "/")
	count, names, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(Mode(mode), n)
	if mode == "gates" {
		m = newModelOf(ModeLease, n, true)
	}
	for name := range strings.SplitSeq(names, ", ") {
		all := append(m.natural(), m.interference()...)
		i := slices.IndexFunc(all, func(a action) bool { return a.name == name })
		if i < 0 {
			t.Fatalf("%q is not possible", name)
		}
		m = m.after(all[i])
		t.Logf("%-12s lock v%d %q term %d note %+v", name, m.lock.Version, m.lock.Holder, m.lock.Transitions, m.lock.Note)
		for i := range m.procs {
			p := &m.procs[i]
			op, at := p.c.next(p.clock)
			t.Logf("    %d alive=%v cut=%v claims=%v token=%d held=%v twin=%v known v%d doubt=%v guard=%v next=%q in %v flying=%v",
				i, p.alive, p.cut, m.claims(i), p.told.FencingToken, p.c.held, p.c.twin, p.c.rec.Version, p.c.doubt, p.c.guard-p.clock, op, at-p.clock, p.flying)
		}
	}
}
