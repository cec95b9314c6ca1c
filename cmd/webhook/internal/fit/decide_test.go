package fit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

var (
	web     = locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}
	webLife = locks.Lock{Namespace: "shop", Mode: elector.ModeLeaderForLife, Name: "web"}
)

// step is a look at the lock.
type step struct {
	at time.Duration
	// pods are like "a:fit b2:broken c:over": of revision 2 if the name ends so, made
	// one second after the other. A + behind the state says that it turned meanwhile.
	// "web-1@2" is of a StatefulSet.
	pods string
	// holder is like "a/7": who, and the token.
	holder string
	// want is like "ask b", "all sick", "again 5s".
	want string
}

// byDefault is how leadership follows an app without annotations.
var byDefault, _ = inject.FailoverOf(nil)

// podsOf reads step.pods.
func podsOf(text string, failover inject.Failover) (pods []candidates.Pod) {
	for i, word := range strings.Fields(text) {
		name, state, _ := strings.Cut(word, ":")
		state, turned := strings.CutSuffix(state, "+")
		state, works := strings.CutSuffix(state, "*")
		state, silent := strings.CutSuffix(state, "?")
		p := candidates.Pod{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Lock: web, Failover: failover, Created: int64(i),
			Revision: strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyz"),
			Fitness:  fitness.Fitness{State: fitness.State(state), Turn: 1, Works: works, Silent: silent},
		}
		if set, _, ok := strings.Cut(name, "-"); ok {
			p.Name, p.Revision, _ = strings.Cut(name, "@")
			p.UID, p.Owner = types.UID("uid-"+p.Name), candidates.Owner{Kind: "StatefulSet", Name: set}
		}
		if turned {
			p.Fitness.Turn = 2
		}
		if state != "fit" {
			p.Fitness.Reason = "container app is " + state
		}
		pods = append(pods, p)
	}
	return pods
}

func factsFrom(holder, next string) locks.Facts {
	name, token, _ := strings.Cut(holder, "/")
	f := locks.Facts{Next: next}
	if name != "" {
		f.Holder = elector.Identity(name, "uid-"+name)
	}
	if token, asked := strings.CutSuffix(token, "!"); token != "" {
		f.Token, _ = strconv.ParseUint(token, 10, 64)
		f.Asked = asked
	}
	return f
}

// String is what a step wants.
func (d decision) String() string {
	var words []string
	if d.ask.Token != 0 {
		words = append(words, strings.TrimSpace("ask "+d.ask.To))
	}
	if d.allSick {
		words = append(words, "all sick")
	}
	if d.again != 0 {
		words = append(words, fmt.Sprint("again ", d.again))
	}
	return strings.Join(words, ", ")
}

func TestDecide(t *testing.T) {
	const s = time.Second
	unready := inject.Failover{When: inject.HandoverUnready, For: 30 * s}
	tests := map[string]struct {
		reason   string
		lock     locks.Lock
		failover inject.Failover
		steps    []step
	}{
		"broken": {
			reason: "after half a minute, to one that was fit all the time, once",
			steps: []step{
				{0, "a:fit b:fit", "a/7", ""},
				{10 * s, "a:broken b:fit", "a/7", "again 30s"},
				{39 * s, "a:broken b:fit", "a/7", "again 1s"},
				{40 * s, "a:broken b:fit", "a/7", "ask b"},
				{41 * s, "a:broken b:fit", "a/7", ""},
				{3600 * s, "a:broken b:fit", "a/7", ""},
			},
		},
		"manager's beginning": {
			reason: "what was before is not known",
			steps:  []step{{0, "a:broken b:fit", "a/7", "again 30s"}, {30 * s, "a:broken b:fit", "a/7", "ask b"}},
		},
		"recovered": {
			reason: "it was a passing failure",
			steps:  []step{{0, "a:broken b:fit", "a/7", "again 30s"}, {29 * s, "a:fit b:fit", "a/7", ""}, {60 * s, "a:broken b:fit", "a/7", "again 30s"}},
		},
		"crash loop": {
			reason: "its app runs for a moment between crashes, which is no recovery",
			steps: []step{
				{0, "a:broken b:fit", "a/7", "again 30s"},
				{10 * s, "a:fit b:fit", "a/7", ""},
				{13 * s, "a:broken b:fit", "a/7", "again 17s"},
				{29 * s, "a:fit b:fit", "a/7", ""},
				{32 * s, "a:unready b:fit", "a/7", ""},
				{33 * s, "a:broken b:fit", "a/7", "ask b"},
			},
		},
		"unready, asked for broken": {
			reason: "nobody said that this matters",
			steps:  []step{{0, "a:unready b:fit", "a/7", ""}, {3600 * s, "a:unready b:fit", "a/7", ""}},
		},
		"sidecar down": {
			reason: "nobody could obey, and then nobody could go on with the claim", failover: unready,
			steps: []step{
				{0, "a:unready b:fit", "a/7", "again 30s"},
				{29 * s, "a:unready? b:fit", "a/7", "again 15s"},
				{35 * s, "a:unready b:fit", "a/7", "again 2s"},
				{37 * s, "a:unready b:fit", "a/7", "ask b"},
			},
		},
		"sidecar stays down": {
			reason: "its claim runs out", failover: unready,
			steps: []step{{0, "a:unready? b:fit", "a/7", "again 30s"}, {29 * s, "a:unready? b:fit", "a/7", "again 1s"}, {30 * s, "a:unready? b:fit", "a/7", "ask b"}},
		},
		"unready": {
			reason: "somebody said that it matters", failover: unready,
			steps: []step{{0, "a:unready b:fit", "a/7", "again 30s"}, {30 * s, "a:unready b:fit", "a/7", "ask b"}},
		},
		"unready with a break": {
			reason: "it was Ready in between", failover: unready,
			steps: []step{{0, "a:unready b:fit", "a/7", "again 30s"}, {20 * s, "a:fit b:fit", "a/7", ""}, {21 * s, "a:unready b:fit", "a/7", "again 30s"}},
		},
		"unready with a break that nobody saw": {
			reason: "its condition changed twice", failover: unready,
			steps: []step{{0, "a:unready b:fit", "a/7", "again 30s"}, {29 * s, "a:unready+ b:fit", "a/7", "again 30s"}, {59 * s, "a:unready+ b:fit", "a/7", "ask b"}},
		},
		"unready, then broken": {
			reason: "it is one time of not being Ready", failover: unready,
			steps: []step{{0, "a:unready b:fit", "a/7", "again 30s"}, {20 * s, "a:broken b:fit", "a/7", "again 10s"}, {30 * s, "a:broken b:fit", "a/7", "ask b"}},
		},
		"never": {
			reason: "somebody said so", failover: inject.Failover{When: inject.HandoverNever, For: 30 * s},
			steps: []step{{0, "a:broken b:fit", "a/7", ""}, {3600 * s, "a:broken b:fit", "a/7", ""}},
		},
		"all sick": {
			reason: "nothing moves, and that is said once, until somebody was fit",
			steps: []step{
				{0, "a:broken b:unready c:broken", "a/7", "again 30s"},
				{30 * s, "a:broken b:unready c:broken", "a/7", "all sick"},
				{31 * s, "a:broken b:unready c:broken", "a/7", ""},
				{40 * s, "a:broken b:fit c:broken", "a/7", "again 30s"},
				{60 * s, "a:broken b:unready c:broken", "a/7", "all sick"},
			},
		},
		"alone": {
			reason: "there is nobody else, and kubectl says what ails it",
			steps:  []step{{0, "a:broken", "a/7", ""}, {60 * s, "a:broken", "a/7", ""}},
		},
		"others leave": {
			reason: "who is being deleted is no successor",
			steps:  []step{{0, "a:broken b:over", "a/7", ""}, {60 * s, "a:broken b:over", "a/7", ""}},
		},
		"leader leaves": {
			reason: "it hands over by itself",
			steps:  []step{{0, "a:over b:fit", "a/7", ""}, {60 * s, "a:over b:fit", "a/7", ""}},
		},
		"successor not fit for long": {
			reason: "it may be about to crash, too",
			steps: []step{
				{0, "a:broken b:unready", "a/7", "again 30s"},
				{20 * s, "a:broken b:fit", "a/7", "again 30s"},
				{50 * s, "a:broken b:fit", "a/7", "ask b"},
			},
		},
		"successor was unready, and nobody saw": {
			reason: "it may be about to crash, too",
			steps:  []step{{0, "a:broken b:fit", "a/7", "again 30s"}, {29 * s, "a:broken b:fit+", "a/7", "again 30s"}},
		},
		"newest revision": {
			reason: "it is the one that stays", steps: []step{{0, "a1:broken b1:fit c2:fit", "a1/7", "again 30s"}, {30 * s, "a1:broken b1:fit c2:fit", "a1/7", "ask c2"}},
		},
		"newest revision is not fit for long": {
			reason: "who was fit for as long goes first",
			steps:  []step{{0, "a1:broken b1:fit c2:unready", "a1/7", "again 30s"}, {29 * s, "a1:broken b1:fit c2:fit", "a1/7", "again 1s"}, {30 * s, "a1:broken b1:fit c2:fit", "a1/7", "ask b1"}},
		},
		"fit for longest": {
			reason: "it is the least likely to fail",
			steps: []step{
				{0, "a:broken b:unready c:fit", "a/7", "again 30s"},
				{1 * s, "a:broken b:fit c:fit", "a/7", "again 29s"},
				{60 * s, "a:broken b:fit c:fit", "a/7", "ask c"},
			},
		},
		"a part works for life": {
			reason: "it may have looked once whether it leads",
			lock:   webLife,
			steps:  []step{{0, "a:broken* b:fit", "a/7", ""}, {60 * s, "a:broken* b:fit", "a/7", ""}, {61 * s, "a:broken b:fit", "a/7", "ask"}},
		},
		"a part works, unready": {
			reason:   "whoever says unready has an app that looks again",
			lock:     webLife,
			failover: inject.Failover{When: inject.HandoverUnready, For: 30 * s},
			steps:    []step{{0, "a:broken* b:fit", "a/7", "again 30s"}, {30 * s, "a:broken* b:fit", "a/7", "ask"}},
		},
		"a part works on lease": {
			reason: "there apps look again",
			steps:  []step{{0, "a:broken* b:fit", "a/7", "again 30s"}, {30 * s, "a:broken* b:fit", "a/7", "ask b"}},
		},
		"leader-for-life": {
			reason: "there nobody can be preferred", lock: webLife,
			steps: []step{{0, "a:broken b:fit", "a/7", "again 30s"}, {30 * s, "a:broken b:fit", "a/7", "ask"}},
		},
		"somebody asked": {
			reason: "one request is enough",
			steps:  []step{{0, "a:broken b:fit", "a/7!", ""}, {60 * s, "a:broken b:fit", "a/7!", ""}},
		},
		"no token yet": {
			reason: "the request has to name the claim",
			steps:  []step{{0, "a:broken b:fit", "a", ""}, {30 * s, "a:broken b:fit", "a", ""}, {31 * s, "a:broken b:fit", "a/7", "ask b"}},
		},
		"backoff": {
			reason: "each time it takes twice as long, for a claim of anybody's",
			steps: []step{
				{0, "a:broken b:fit", "a/7", "again 30s"},
				{30 * s, "a:broken b:fit", "a/7", "ask b"},
				{31 * s, "a:fit b:broken", "b/8", "again 30s"},
				{61 * s, "a:fit b:broken", "b/8", "ask a"},
				{62 * s, "a:broken b:fit", "a/9", "again 59s"},
				{92 * s, "a:broken b:fit", "a/9", "again 29s"},
				{121 * s, "a:broken b:fit", "a/9", "ask b"},
				{122 * s, "a:fit b:broken", "b/10", "again 1m59s"},
				{300 * s, "a:fit b:broken", "b/10", "ask a"},
				{301 * s, "a:broken b:fit", "a/11", "again 3m59s"},
			},
		},
		"backoff forgotten": {
			reason: "ten minutes of a fit leader are good enough",
			steps: []step{
				{0, "a:broken b:fit", "a/7", "again 30s"},
				{30 * s, "a:broken b:fit", "a/7", "ask b"},
				{31 * s, "a:fit b:broken", "b/8", "again 30s"},
				{61 * s, "a:fit b:broken", "b/8", "ask a"},
				{62 * s, "a:fit b:fit", "a/9", ""},
				{663 * s, "a:broken b:fit", "a/9", "again 30s"},
				{693 * s, "a:broken b:fit", "a/9", "ask b"},
				{694 * s, "a:fit b:broken", "b/10", "again 30s"},
			},
		},
		"one leader, two times": {
			reason: "the lock was another's, or nobody's, in between",
			steps: []step{
				{0, "a:broken b:fit", "a/7", "again 30s"},
				{30 * s, "a:broken b:fit", "a/7", "ask b"},
				{31 * s, "a:fit b:fit", "b/8", ""},
				{400 * s, "a:fit b:fit", "", ""},
				{401 * s, "a:fit b:fit", "b/9", ""},
				{900 * s, "a:fit b:broken", "b/9", "again 30s"},
				{930 * s, "a:fit b:broken", "b/9", "ask a"},
				{931 * s, "a:broken b:fit", "a/10", "again 59s"},
			},
		},
		"another leader, another time": {
			reason: "ten minutes of two leaders are not those of one",
			steps: []step{
				{0, "a:broken b:fit", "a/7", "again 30s"},
				{30 * s, "a:broken b:fit", "a/7", "ask b"},
				{31 * s, "a:fit b:fit", "b/8", ""},
				{400 * s, "a:fit b:fit", "a/9", ""},
				{700 * s, "a:fit b:fit", "a/9", ""},
				{701 * s, "a:broken b:fit", "a/9", "again 30s"},
				{731 * s, "a:broken b:fit", "a/9", "ask b"},
				{732 * s, "a:fit b:broken", "b/10", "again 59s"},
			},
		},
		"no leader": {
			reason: "who gets the lock is not decided here",
			steps:  []step{{0, "a:broken b:fit", "", ""}, {60 * s, "a:broken b:fit", "", ""}},
		},
		"a stranger leads": {
			reason: "another program knows nothing of requests",
			steps:  []step{{0, "a:broken b:fit", "z/7", ""}, {60 * s, "a:broken b:fit", "z/7", ""}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.lock == (locks.Lock{}) {
				tc.lock = web
			}
			if tc.failover == (inject.Failover{}) {
				tc.failover = inject.Failover{When: inject.HandoverBroken, For: 30 * s}
			}
			var m memory
			start := time.Now()
			for _, look := range tc.steps {
				now, pods := start.Add(look.at), podsOf(look.pods, tc.failover)
				next := decide(&memory{}, tc.lock, factsFrom(look.holder, ""), pods, now).next // as if it was noted already
				d := decide(&m, tc.lock, factsFrom(look.holder, next), pods, now)
				m.done(d, now)
				if got := d.String(); got != look.want {
					t.Errorf("after %v: %q, want %q: %s", look.at, got, look.want, tc.reason)
				}
				if d.ask.Token != 0 && d.ask.Validate() != nil {
					t.Errorf("it asks what nobody obeys: %v", d.ask)
				}
			}
		})
	}
}

// TestBackoff doubles it up to ten minutes.
func TestBackoff(t *testing.T) {
	var m memory
	for _, want := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		if m.done(decision{ask: elector.Handover{Token: 1}}, time.Now()); m.backoff != want {
			t.Errorf("backoff %v, want %v", m.backoff, want)
		}
	}
}

// TestDecideKeeps holds that nothing is kept of pods that are gone.
func TestDecideKeeps(t *testing.T) {
	var m memory
	plain := byDefault
	now := time.Now()
	decide(&m, web, factsFrom("a/7", ""), podsOf("a:broken b:fit c:fit", plain), now)
	decide(&m, web, factsFrom("a/7", ""), podsOf("a:broken", plain), now)
	if len(m.pods) != 1 {
		t.Errorf("%d pods are remembered", len(m.pods))
	}
}

// TestAbandon takes the list off a lock for which nobody is left to contend, and off no other.
func TestAbandon(t *testing.T) {
	tests := map[string]struct {
		reason       string
		holder, next string
		pods         string
		want         bool
	}{
		"all go":     {"whoever comes next must not wait for them", "", "a,b", "a:over b:over", true},
		"all ended":  {"so did who released it", "", "a,b", "", true},
		"one stays":  {"it goes first", "", "a,b", "a:over b:fit", false},
		"one starts": {"it may yet be first", "", "a,b", "a:over c:unready", false},
		"held":       {"by somebody else", "x/7", "a,b", "a:over b:over", false},
		"no list":    {"there is nothing to write", "", "", "a:over b:over", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			m := memory{notes: notes{last: now}} // when the first of them went
			d := decide(&m, web, factsFrom(tc.holder, tc.next), podsOf(tc.pods, byDefault), now)
			if d.write != tc.want || d.next != "" {
				t.Errorf("it writes %v %q, want %v: %s", d.write, d.next, tc.want, tc.reason)
			}
		})
	}
}

// TestLeaderFirst has a fault that hits the leader first, and a standby after it, which must not go first then.
func TestLeaderFirst(t *testing.T) {
	var m memory
	next, start := "a,b,c", time.Now()
	for at, pods := range []string{"a:fit b:fit c:fit", "a:unready b:fit c:fit", "a:unready b:broken c:fit", "a:unready b:broken c:fit"} {
		now := start.Add(time.Duration(at) * time.Second)
		d := decide(&m, web, factsFrom("a/7", next), podsOf(pods, byDefault), now)
		m.done(d, now)
		if d.write {
			next = d.next
		}
	}
	if next != "c" {
		t.Errorf("the lock names %q", next)
	}
}

func TestNext(t *testing.T) {
	many := strings.Join(strings.Split("abcdefghijklmnopqrstu", ""), ":fit ") + ":fit"
	var set string
	for i := range 18 {
		set = fmt.Sprintf("web-%d:fit ", i) + set // the first is made last, as in a rollout
	}
	var below, foreign string
	for i := range 16 {
		below = fmt.Sprintf("web--%d:fit ", i+1) + below
		foreign = fmt.Sprintf("db%d-0:fit ", i) + foreign
	}
	tests := map[string]struct {
		reason string
		pods   string
		leader string
		want   string
	}{
		"all fit":            {"in the order of their names, the leader with them", "b:fit a:fit c:fit", "a", "a,b,c"},
		"some are not":       {"they go last", "a:fit b:unready c:fit d:broken e:over", "a", "a,c"},
		"leader is not":      {"it goes last, too", "a:broken b:fit", "a", "b"},
		"leader leaves":      {"it comes back no more", "a:over b:fit", "a", "b"},
		"only the leader":    {"nobody is there to go first, and who comes must not wait", "a:fit b:unready", "a", ""},
		"one pod":            {"who replaces it must not wait", "a:fit", "a", ""},
		"nobody is fit":      {"all contend as ever", "a:broken b:unready", "a", ""},
		"rollout begins":     {"pods of the new revision stay", "a1:fit b1:fit c2:fit", "a1", "c2"},
		"new pod is unready": {"the old ones are better", "a1:fit b1:fit c2:unready", "a1", "a1,b1"},
		"rollout goes on":    {"all of the new revision", "a1:fit b1:fit c2:fit d2:fit", "a1", "c2,d2"},
		"new leader":         {"the leader is of the new one, and an old one is better than none", "a1:fit b2:fit", "b2", "a1,b2"},
		"rolled back":        {"the newest pods are of the old revision", "c2:fit a1:fit b1:fit", "c2", "a1,b1"},
		"more than sixteen":  {"the oldest sixteen", many, "a", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p"},

		"set":                     {"the first is removed last", "web-2:fit web-10:fit web-0:fit web-1:fit", "web-10", "web-0,web-1,web-2,web-10"},
		"set, first is not fit":   {"fit ones are better", "web-0:broken web-2:fit web-10:fit web-11:fit", "web-11", "web-2,web-10,web-11"},
		"set, leader goes":        {"the first is removed last", "web-0:fit web-1:fit web-2:over", "web-2", "web-0,web-1"},
		"set, leader is replaced": {"all of the new revision stay", "web-0:fit web-1:over web-3@2:fit web-2@2:fit", "web-1", "web-2,web-3"},
		"set, leader is new":      {"an old one is better than none, and the first of them best", "web-1:fit web-0:fit web-2@2:fit", "web-2", "web-0,web-1,web-2"},
		"two sets":                {"nobody knows which is removed last", "web-0:fit web-1:fit db-0:fit db-1:fit", "web-1", "db-0,web-0,db-1,web-1"},
		"set, another's name":     {"it has no place in it", "web-0:fit web-x:fit web-1:fit", "web-1", "web-0,web-x,web-1"},
		"set, below its first":    {"no set makes such pods", "web-0:fit web-1:fit web-2:fit " + below, "web-1", "web--10,web--11,web--12,web--13,web--14,web--15,web--16,web--4,web--5,web--6,web--7,web--8,web--9,web-0,web-1,web-2"},
		"set, many other sets":    {"nor do the first of others", "web-1:fit web-2:fit web-3:fit " + foreign, "web-1", "db10-0,db11-0,db12-0,db13-0,db14-0,db15-0,db3-0,db4-0,db5-0,db6-0,db7-0,db8-0,db9-0,web-1,web-2,web-3"},
		"set of more":             {"the first sixteen, although the first is the youngest", set, "web-17", "web-0,web-1,web-2,web-3,web-4,web-5,web-6,web-7,web-8,web-9,web-10,web-11,web-12,web-13,web-14,web-15"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var m memory
			d := decide(&m, web, factsFrom(tc.leader+"/7", ""), podsOf(tc.pods, byDefault), time.Now())
			if d.next != tc.want || d.write != (tc.want != "") {
				t.Errorf("next is %q (written: %v), want %q: %s", d.next, d.write, tc.want, tc.reason)
			}
		})
	}
}

// TestRolloutOfSet rolls a StatefulSet out, with each leader and with notes that come in time or do not, in all ways that there are: the lead
// never goes to a pod that has to pass it on to another that has to, too.
func TestRolloutOfSet(t *testing.T) {
	const most = 2
	for size := 2; size <= 4; size++ {
		for leader := range size {
			r := setRollout{fresh: make([]bool, size), leader: leader}
			r.list = r.note()
			if worst := r.replace(size - 1); len(worst) > most {
				t.Errorf("of %d, pod %d leads first, and then %v", size, leader, worst)
			}
		}
	}
}

// setPod is the name of a set's pod, which may begin with any number: sorted as words these are in no order.
func setPod(i int) string { return fmt.Sprintf("web-%d", i+8) }

// A setRollout replaces the last pod first.
type setRollout struct {
	fresh  []bool // pods that are replaced
	leader int
	list   string // on the lock
}

// note is what the lock is to say. gone are being deleted.
func (r setRollout) note(gone ...int) string {
	var words []string
	for _, old := range []bool{true, false} {
		for i, fresh := range r.fresh {
			if word := setPod(i); fresh != old {
				if fresh {
					word += "@2"
				}
				state := ":fit"
				if slices.Contains(gone, i) {
					state = ":over"
				}
				words = append(words, word+state)
			}
		}
	}
	pods := podsOf(strings.Join(words, " "), byDefault)
	i := slices.IndexFunc(pods, func(p candidates.Pod) bool { return p.Name == setPod(r.leader) })
	return nextOf(pods[i], slices.Delete(slices.Clone(pods), i, i+1))
}

// replace returns the most leaders that may follow while pods from n to 0 are replaced.
func (r setRollout) replace(n int) (leaders []int) {
	if n < 0 {
		return nil
	}
	try := func(after setRollout, first ...int) {
		after.fresh = slices.Clone(after.fresh)
		after.fresh[n] = true
		for _, list := range []string{after.list, after.note()} { // the manager is late, or is not
			after.list = list
			if found := slices.Concat(first, after.replace(n-1)); len(found) > len(leaders) {
				leaders = found
			}
		}
	}
	if r.leader != n {
		try(r)
		return leaders
	}
	for _, list := range []string{r.list, r.note(n)} {
		line := slices.DeleteFunc(elector.ParseNext(list), func(name string) bool { return name == setPod(n) })
		for i := range r.fresh {
			if i != n && (len(line) == 0 || line[0] == setPod(i)) {
				try(setRollout{fresh: r.fresh, leader: i, list: list}, i)
			}
		}
	}
	return leaders
}

// TestLeaving has one pod after the other become unready, as when they depend on the same thing: none of them goes first for longer
// than the pause between two writes.
func TestLeaving(t *testing.T) {
	const step = 100 * time.Millisecond
	tests := map[string]struct {
		reason, name string
		pods         int
	}{
		"eight":     {"each of them is a write", "web-%02d", 8},
		"long":      {"the manager keeps no more of a long list than its sum", strings.Repeat("web-", 10) + "%02d", 15},
		"too many":  {"who is named instead has to wait", "web-%02d", 25},
		"all leave": {"but the leader, which needs nobody to wait", "web-%02d", 4},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var m memory
			next, start, since := "", time.Now(), map[string]time.Time{}
			for now := start; now.Before(start.Add(2 * time.Minute)); now = now.Add(step) {
				if now.Equal(start.Add(time.Minute)) {
					m.notes.full = now.Add(notesAtOnce * noteEvery) // others have come and gone
				}
				pods := podsOf(strings.TrimSpace(strings.Repeat("a:fit ", tc.pods)), byDefault)
				for i := range pods {
					pods[i].Name = fmt.Sprintf(tc.name, i)
					pods[i].UID = types.UID("uid-" + pods[i].Name)
					at := start.Add(time.Minute + time.Duration(i)*1300*time.Millisecond)
					if i > 0 && i < 7 && now.After(at) {
						pods[i].Fitness.State = fitness.Unready
						since[pods[i].Name] = at
					}
				}
				cached, err := locks.Trim(lease(func(l *coordinationv1.Lease) {
					l.Spec.HolderIdentity, l.Annotations["elector.io/next"] = new(pods[0].Identity()), next
				}))
				if err != nil {
					t.Fatal(err)
				}
				d := decide(&m, web, locks.FactsOf(cached.(client.Object)), pods, now)
				m.done(d, now)
				if d.write {
					next = d.next
				}
				for _, name := range elector.ParseNext(next) {
					if at, unready := since[name]; unready && now.Sub(at) > notePause+step {
						t.Fatalf("%s is named %v after it became unready: %s", name, now.Sub(at), tc.reason)
					}
				}
			}
			want := min(tc.pods-min(tc.pods-1, 6), elector.MaxNext)
			if want == 1 {
				want = 0
			}
			if got := len(elector.ParseNext(next)); got != want {
				t.Errorf("in the end %d are named, want %d: %s", got, want, next)
			}
		})
	}
}

// TestNotes counts the writes of a rollout, of pods that flap, and at rest.
func TestNotes(t *testing.T) {
	start := time.Now()
	count := func(seconds int, podsAt func(second int) string) (writes int) {
		var m memory
		next := "a,b"
		for second := range seconds {
			now := start.Add(time.Duration(second) * time.Second)
			d := decide(&m, web, factsFrom("a/7", next), podsOf(podsAt(second), byDefault), now)
			m.done(d, now)
			switch {
			case d.write:
				next = d.next
				writes++
			case d.next != next && d.again == 0:
				t.Errorf("after %d seconds nobody will look again", second)
			}
		}
		if want := podsAt(seconds - 1); strings.Count(next, ",")+1 != strings.Count(want, ":fit") {
			t.Errorf("after all the lock says %q, and the pods are %s", next, want)
		}
		return writes
	}
	const coming = "a:fit b:fit c:fit d:fit e:fit f:fit g:fit h:fit i:fit j:fit"
	got := map[string]int{
		"at rest": count(3600, func(int) string { return "a:fit b:fit" }),
		"flapping each second": count(600, func(second int) string {
			if second%2 == 0 && second < 500 {
				return "a:fit b:fit c:unready"
			}
			return "a:fit b:fit c:fit"
		}),
		"leader's sidecar starts again": count(60, func(second int) string {
			switch {
			case second >= 20 && second < 34:
				return "a:unready? b:fit"
			case second == 35:
				return "a:unready b:fit" // it is up, and its pod not yet Ready
			}
			return "a:fit b:fit"
		}),
		"leader's sidecar stays down": count(60, func(second int) string {
			if second >= 20 {
				return "a:unready? b:fit c:fit"
			}
			return "a:fit b:fit"
		}),
		"leader stays unready": count(60, func(second int) string {
			if second >= 20 {
				return "a:unready b:fit c:fit"
			}
			return "a:fit b:fit"
		}),
		"another each second, of a rollout": count(28, func(second int) string {
			return fmt.Sprintf("a:fit b:fit c%c:fit", 'a'+min(second, 25))
		}),
		"five come in five seconds":   count(60, func(second int) string { return coming[:len("a:fit b:fit")+min(second, 5)*len(" c:fit")] }),
		"eight come in eight seconds": count(20, func(second int) string { return coming[:len("a:fit b:fit")+min(second, 8)*len(" c:fit")] }),
	}
	want := map[string]int{"at rest": 0, "flapping each second": 141, "another each second, of a rollout": 26, "leader's sidecar starts again": 0, "leader's sidecar stays down": 1, "leader stays unready": 1, "five come in five seconds": 5, "eight come in eight seconds": 8}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}
