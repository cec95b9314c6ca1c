package sim

import (
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

var (
	seed    = flag.Uint64("seed", 0, "run this schedule alone")
	first   = flag.Uint64("first", 1, "the first seed")
	soak    = flag.Duration("soak", defaultSoak, "how long to run schedules")
	verbose = flag.Bool("show", false, "print the trace of a single schedule")
	with    = flag.String("with", "", "what to do and check besides what the engine stands: names with commas, or all")
)

// play runs one schedule in a bubble of its own.
func play(t *testing.T, seed uint64, without ...string) Result {
	t.Helper()
	features, err := FeaturesFor(*with)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range without {
		features[name] = false
	}
	var result Result
	synctest.Test(t, func(*testing.T) { result = Run(seed, features) })
	return result
}

// TestNeverTwoLeaders breaks everything at random for as long as -soak says.
func TestNeverTwoLeaders(t *testing.T) {
	if *seed != 0 {
		report(t, play(t, *seed))
		return
	}
	var schedules, claims int
	var virtual time.Duration
	happened, excused := map[string]int{}, map[string]int{}
	for next, end := *first, time.Now().Add(*soak); time.Now().Before(end); next++ {
		result := play(t, next)
		schedules++
		claims += result.Claims
		virtual += result.Virtual
		addUp(happened, result.Happened)
		addUp(excused, result.Excused)
		if len(result.Violations) > 0 {
			report(t, result)
		}
	}
	t.Logf("%d schedules, %.1f virtual hours, %d claims", schedules, virtual.Hours(), claims)
	t.Logf("what happened:%s", counts(happened))
	t.Logf("what a documented limit excused:%s", counts(excused))
}

func addUp(sum, more map[string]int) {
	for name, n := range more {
		sum[name] += n
	}
}

func counts(of map[string]int) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(of)) {
		fmt.Fprintf(&b, "\n\t%7d %s", of[name], name)
	}
	return b.String()
}

func report(t *testing.T, r Result) {
	t.Helper()
	if *verbose {
		t.Log(strings.Join(r.Trace, "\n"))
	}
	t.Logf("seed %d: digest %s, %d claims", r.Seed, r.Digest, r.Claims)
	again := fmt.Sprintf("-seed %d -show", r.Seed)
	if *with != "" {
		again += fmt.Sprintf(" -with %q", *with)
	}
	for _, v := range r.Violations {
		t.Errorf("seed %d: %s (again with %s)", r.Seed, v, again)
	}
}

// TestSeedsReplay shows that a seed says all about a schedule, so that a failure
// can be looked at again.
func TestSeedsReplay(t *testing.T) {
	// A loop that was blocked finds several things to do at once, and its select
	// takes one by chance. Everything else comes at an instant of its own.
	const without = "announcements block"
	for seed := uint64(1); seed <= replays; seed++ {
		if a, b := play(t, seed, without), play(t, seed, without); a.Digest != b.Digest {
			t.Errorf("seed %d ran differently twice", seed)
		}
	}
}

// TestMain runs on one processor: which of several goroutines that wake at one
// virtual moment runs first is then mostly the same every time. A busy machine
// changes it all the same, so nothing may depend on it; see node.stagger.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	klog.SetLogger(logr.Discard()) // client-go's candidates have no other logger
	m.Run()
}
