package fit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// A sim is one lock with its candidates, whose fitness changes at random, and a manager that looks when there are news or when it
// said it would: what package locks does with a decision. Time is the sim's own. What the manager may and must do is judged by
// what the sim knows of the past, not by what decide remembers.
type sim struct {
	*rand.Rand
	t    *testing.T
	seed uint64

	now     time.Time
	pods    []*simPod
	made    int
	holder  string // pod's name, or empty
	token   uint64
	noted   time.Time // when the token will be in the lock
	obeys   time.Time // when the holder will do as it is asked; zero if it is not
	to      string
	wish    uint64
	next    string
	memory  memory
	began   time.Time // the manager's beginning
	look    time.Time // when it will look without news
	writes  int
	asked   map[uint64]bool
	moves   []time.Time // since the manager began, or a leader was fit for long
	led     time.Time   // since when the same pod leads
	overdue time.Time   // since when the manager should have asked
	log     []string
}

// simPod remembers all that it ever was.
type simPod struct {
	candidates.Pod
	past []spell
}

type spell struct {
	since time.Time
	state fitness.State
}

func (p *simPod) set(state fitness.State, now time.Time) {
	if (state == fitness.Fit) != (p.Fitness.State == fitness.Fit) {
		p.Fitness.Turn++
	}
	p.Fitness.State, p.Fitness.Reason = state, "container app is "+string(state)
	p.past = append(p.past, spell{now, state})
}

// lasted is for how long, since from, the pod has been in states that are counted, but for breaks of less than a given length.
func (p *simPod) lasted(from, now time.Time, allowed time.Duration, counts func(fitness.State) bool) time.Duration {
	if !counts(p.Fitness.State) {
		return -1
	}
	since, broke := now, now
	for _, s := range slices.Backward(p.past) {
		if counts(s.state) {
			if broke.Sub(since) < 0 && since.Sub(broke) >= max(allowed, 1) {
				break // the break between this one and the next
			}
			since, broke = s.since, s.since
		} else {
			broke = s.since // it lasted from here to since
		}
		if !broke.After(from) {
			break
		}
	}
	if since.Before(from) {
		since = from
	}
	return now.Sub(since)
}

func (s *sim) pod(name string) *simPod {
	for _, p := range s.pods {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (s *sim) say(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%8v ", s.now.Sub(simStart).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (s *sim) fail(format string, args ...any) {
	s.t.Helper()
	s.say(format, args...)
	s.t.Fatalf("seed %d:\n%s", s.seed, strings.Join(s.log, "\n"))
}

var simStart = time.Now()

// add makes a pod.
func (s *sim) add() {
	s.made++
	p := &simPod{Pod: candidates.Pod{
		Namespace: "shop", Name: fmt.Sprintf("web-%d", s.made), UID: types.UID(strconv.Itoa(s.made)), Lock: web, Created: int64(s.made),
		Revision: strconv.Itoa(s.made / 4), Fitness: fitness.Fitness{Turn: 1},
		Failover: inject.Failover{
			When: []inject.HandoverWhen{inject.HandoverBroken, inject.HandoverBroken, inject.HandoverUnready, inject.HandoverNever}[s.IntN(4)],
			For:  []time.Duration{5 * time.Second, 30 * time.Second, 30 * time.Second, 2 * time.Minute}[s.IntN(4)],
		},
	}}
	p.set(fitness.Unready, s.now)
	s.pods = append(s.pods, p)
	s.say("%s is made, %s for %v", p.Name, p.Failover.When, p.Failover.For)
}

// elect has somebody take the lock.
func (s *sim) elect() {
	s.holder = s.to
	if s.pod(s.to) == nil {
		s.holder = ""
		if len(s.pods) > 0 {
			s.holder = s.pods[s.IntN(len(s.pods))].Name
		}
	}
	s.token++
	s.noted = s.now.Add(time.Duration(s.IntN(4000)) * time.Millisecond)
	s.obeys, s.to, s.wish, s.led, s.overdue = time.Time{}, "", 0, s.now, time.Time{}
	s.say("%s leads with %d", s.holder, s.token)
}

// upset has something happen.
func (s *sim) upset() {
	switch n := s.IntN(40); {
	case n == 0 && len(s.pods) < 6:
		s.add()
	case n == 1 && len(s.pods) > 0:
		i := s.IntN(len(s.pods))
		gone := s.pods[i].Name
		s.say("%s goes", gone)
		s.pods = slices.Delete(s.pods, i, i+1)
		if gone == s.holder {
			s.elect()
		}
	case n == 2:
		s.memory, s.began, s.moves, s.overdue = memory{}, s.now, nil, time.Time{}
		s.say("another manager")
	case n == 3 && len(s.pods) > 0:
		s.elect()
	case len(s.pods) > 0:
		p := s.pods[s.IntN(len(s.pods))]
		state := []fitness.State{fitness.Fit, fitness.Fit, fitness.Broken, fitness.Broken, fitness.Unready}[s.IntN(5)]
		p.set(state, s.now)
		s.say("%s is %s", p.Name, state)
	}
}

// ill is for how long the leader has been in a state that leadership is to leave, as long as this manager has been looking.
func (s *sim) ill(leader *simPod) time.Duration {
	broken := leader.lasted(s.began, s.now, leader.Failover.For, func(state fitness.State) bool { return state == fitness.Broken })
	unready := leader.lasted(s.began, s.now, 0, func(state fitness.State) bool { return state != fitness.Fit })
	switch leader.Failover.When {
	case inject.HandoverBroken:
		return broken
	case inject.HandoverUnready:
		return max(broken, unready)
	case inject.HandoverNever:
	}
	return -1
}

// well is for how long the fittest of the others has been fit.
func (s *sim) well(leader *simPod) time.Duration {
	longest := time.Duration(-1)
	for _, p := range s.pods {
		if p != leader {
			longest = max(longest, p.lasted(s.began, s.now, 0, func(state fitness.State) bool { return state == fitness.Fit }))
		}
	}
	return longest
}

// due is whether enough time has passed since the last handovers that are not forgotten.
func (s *sim) due() bool {
	if len(s.moves) == 0 {
		return true
	}
	pause := min(30*time.Second<<(len(s.moves)-1), 10*time.Minute)
	return s.now.Sub(s.moves[len(s.moves)-1]) >= pause
}

// forget forgets them if one leader has been fit for ten minutes.
func (s *sim) forget() {
	from := s.began
	if s.led.After(from) {
		from = s.led
	}
	if leader := s.pod(s.holder); leader != nil && leader.lasted(from, s.now, 0, func(state fitness.State) bool { return state == fitness.Fit }) >= forgetAfter {
		s.moves = nil
	}
}

// work is what the manager does.
func (s *sim) work() {
	facts := locks.Facts{Next: s.next}
	if s.holder != "" {
		facts.Holder = elector.Identity(s.holder, string(s.pod(s.holder).UID))
		if !s.now.Before(s.noted) {
			facts.Token, facts.Asked = s.token, s.wish == s.token
		}
	}
	var pods []candidates.Pod
	for _, p := range s.pods {
		pods = append(pods, p.Pod)
	}
	d := decide(&s.memory, web, facts, pods, s.now)
	s.memory.done(d, s.now)
	s.look = time.Time{}
	if d.again > 0 {
		s.look = s.now.Add(d.again)
	}
	if d.write {
		s.next = d.next
		s.writes++
	}
	leader := s.pod(s.holder)
	if d.allSick && (leader == nil || s.well(leader) >= 0) {
		s.fail("it says that all are sick")
	}
	if d.ask.Token == 0 {
		return
	}
	s.say("the manager asks %s to hand over to %s", s.holder, d.ask.To)
	to := s.pod(d.ask.To)
	switch {
	case leader == nil || d.ask.Token != s.token || s.asked[s.token]:
		s.fail("it asks for the wrong claim, or twice")
	case s.ill(leader) < leader.Failover.For:
		s.fail("it asks %v early", leader.Failover.For-s.ill(leader))
	case s.well(leader) < 0:
		s.fail("all are sick, and it asks")
	case to == nil || to == leader || to.lasted(s.began, s.now, 0, func(state fitness.State) bool { return state == fitness.Fit }) < leader.Failover.For:
		s.fail("who is to lead is not fit, or not for long")
	case !s.due():
		s.fail("it asks again after %v, the %dth time", s.now.Sub(s.moves[len(s.moves)-1]), len(s.moves)+1)
	}
	s.asked[s.token] = true
	s.moves = append(s.moves, s.now)
	s.wish, s.to, s.overdue = s.token, d.ask.To, time.Time{}
	if s.IntN(5) > 0 { // else it is an elector that does not know requests
		s.obeys = s.now.Add(time.Duration(s.IntN(2000)) * time.Millisecond)
	}
}

// check looks for what should have happened.
func (s *sim) check() {
	leader := s.pod(s.holder)
	must := leader != nil && !s.now.Before(s.noted) && !s.asked[s.token] && s.wish != s.token && s.ill(leader) >= leader.Failover.For && s.well(leader) >= leader.Failover.For &&
		s.due()
	switch {
	case !must:
		s.overdue = time.Time{}
	case s.overdue.IsZero():
		s.overdue = s.now
	case s.now.Sub(s.overdue) > 2*time.Second:
		s.fail("%s should have been asked %v ago", s.holder, s.now.Sub(s.overdue))
	}
}

// run goes on for a time in which something happens every few seconds, more often or less.
func (s *sim) run(length, pace time.Duration) {
	end := s.now.Add(length)
	upset := s.now
	for s.now.Before(end) {
		// What comes next?
		at := s.now.Add(time.Second)
		for _, t := range []time.Time{upset, s.look, s.obeys, s.noted} {
			if t.After(s.now) && t.Before(at) {
				at = t
			}
		}
		s.now = at
		s.forget()
		news := s.now.Equal(s.noted)
		if !s.now.Before(upset) && pace > 0 {
			s.upset()
			upset = s.now.Add(time.Duration(s.Int64N(int64(pace)) + 1))
			news = true
		}
		if !s.obeys.IsZero() && !s.now.Before(s.obeys) {
			s.elect()
			news = true
		}
		if news || !s.look.IsZero() && !s.now.Before(s.look) {
			s.work()
		}
		s.check()
	}
}

// TestSim has many locks with many failures.
func TestSim(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 40
	}
	asked, longest := 0, 0
	for seed := range seeds {
		s := &sim{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, seed: seed, now: simStart, began: simStart, asked: map[uint64]bool{}}
		for range 1 + s.IntN(4) {
			s.add()
		}
		s.elect()
		s.run(time.Hour, []time.Duration{2 * time.Second, 10 * time.Second, time.Minute, 5 * time.Minute}[seed%4])
		asked += len(s.asked)
		longest = max(longest, len(s.moves))
		// And then peace. What is left is to be done in a quarter of an hour, and after that nothing is.
		s.run(15*time.Minute, 0)
		s.writes = 0
		moves := len(s.asked)
		s.run(time.Hour, 0)
		if s.writes != 0 || len(s.asked) > moves+1 {
			s.fail("%d writes and %d requests while nothing happens", s.writes, len(s.asked)-moves)
		}
	}
	if asked < int(seeds) || longest < 5 {
		t.Errorf("there were %d requests, and %d in a row: too few to tell", asked, longest)
	}
	t.Logf("%d requests, up to %d of one manager for one lock", asked, longest)
}

// TestSimSick has locks of which nobody is ever fit.
func TestSimSick(t *testing.T) {
	for seed := range uint64(100) {
		s := &sim{Rand: rand.New(rand.NewPCG(seed, 2)), t: t, seed: seed, now: simStart, began: simStart, asked: map[uint64]bool{}}
		for range 3 {
			s.add()
		}
		s.elect()
		for range 600 {
			s.now = s.now.Add(time.Duration(s.IntN(10_000)) * time.Millisecond)
			s.pods[s.IntN(3)].set([]fitness.State{fitness.Broken, fitness.Unready}[s.IntN(2)], s.now)
			s.work()
		}
		if len(s.asked) > 0 {
			s.fail("all were sick, and it asked")
		}
	}
}
