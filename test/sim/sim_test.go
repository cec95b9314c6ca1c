package sim

import (
	"flag"
	"runtime"
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
	soak    = flag.Duration("soak", 4*time.Second, "how long to run schedules")
	verbose = flag.Bool("show", false, "print the trace of a single schedule")
)

// play runs one schedule in a bubble of its own.
func play(t *testing.T, seed uint64) Result {
	t.Helper()
	var result Result
	synctest.Test(t, func(*testing.T) { result = Run(seed) })
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
	for next, end := *first, time.Now().Add(*soak); time.Now().Before(end); next++ {
		result := play(t, next)
		schedules++
		claims += result.Claims
		virtual += result.Virtual
		if len(result.Violations) > 0 {
			report(t, result)
		}
	}
	t.Logf("%d schedules, %.1f virtual hours, %d claims", schedules, virtual.Hours(), claims)
}

func report(t *testing.T, r Result) {
	t.Helper()
	if *verbose {
		t.Log(strings.Join(r.Trace, "\n"))
	}
	t.Logf("seed %d: digest %s, %d claims", r.Seed, r.Digest, r.Claims)
	for _, v := range r.Violations {
		t.Errorf("seed %d: %s (again with -seed %d -show)", r.Seed, v, r.Seed)
	}
}

// TestSeedsReplay shows that a seed says all about a schedule, so that a failure
// can be looked at again.
func TestSeedsReplay(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		if a, b := play(t, seed), play(t, seed); a.Digest != b.Digest {
			t.Errorf("seed %d ran differently twice", seed)
		}
	}
}

// TestMain runs on one processor: which of several goroutines that wake at one
// virtual moment runs first is then the same every time.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	klog.SetLogger(logr.Discard()) // client-go's candidates have no other logger
	m.Run()
}
