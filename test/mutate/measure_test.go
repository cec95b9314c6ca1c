package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sampleFile = "test/mutate/testdata/sample/sample.go"

// onSample is a config for the package in testdata.
func onSample(t *testing.T) *config {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return &config{
		root: root, files: map[string]bool{sampleFile: true}, skips: skips, parallel: 1, timeout: 2 * time.Second, progress: io.Discard,
		plans: []plan{{files: "*", target: 0.9, steps: []step{{pkg: "test/mutate/testdata/sample"}}}},
		equivalents: []equivalent{
			{sampleFile + ": unequal: a > b -> a >= b", "at the limit they are equal"},
			{sampleFile + ": unequal: a > c -> a >= c", "there is no c any more"},
		},
	}
}

// line returns the number of the line of the sample that has text.
func line(t *testing.T, c *config, text string) int {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(c.root, sampleFile))
	if err != nil {
		t.Fatal(err)
	}
	return 1 + slices.IndexFunc(strings.Split(string(src), "\n"), func(l string) bool { return strings.Contains(l, text) })
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		line   string
		want   map[string]verdict
		reason string
	}{
		"killed": {
			line: "func tested",
			want: map[string]verdict{
				"return n > 2 -> return false": killed, "return n > 2 -> return true": killed, "n > 2 -> n >= 2": killed, "n > 2 -> n <= 2": killed,
				"2 -> 1": killed, "2 -> 3": killed,
			},
			reason: "a test fails",
		},
		"survived": {
			line:   "func untested",
			want:   map[string]verdict{"return n + 1 -> return 0": survived, "n + 1 -> n - 1": survived, "1 -> 0": survived, "1 -> 2": survived},
			reason: "no test looks",
		},
		"equivalent": {
			line:   "if a > b",
			want:   map[string]verdict{"a > b -> a >= b": listedAs, "a > b -> a <= b": killed, "if a > b { ... } -> if a > b {}": killed},
			reason: "the list says so",
		},
		"timed out": {
			line:   "n--",
			want:   map[string]verdict{"n-- -> (removed)": timedOut, "n-- -> n++": timedOut},
			reason: "the sum has no end",
		},
		"did not compile": {
			line:   "return s + ",
			want:   map[string]verdict{`return s + "!" -> return ""`: killed, `s + "!" -> s - "!"`: uncompiled},
			reason: "strings have no difference",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := onSample(t)
			c.line = line(t, c, test.line)
			r, err := c.measure(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]verdict{}
			for _, res := range r.results {
				got[res.change()] = res.verdict
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
			if diff := cmp.Diff([]string{"matches no mutant any more: " + sampleFile + ": unequal: a > c -> a >= c"}, r.faults); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a seed chooses is the same each time, and not what another one does.
func TestSample(t *testing.T) {
	t.Parallel()
	sample := func(seed uint64) (names []string) {
		c := onSample(t)
		c.line, c.seed, c.sample = line(t, c, "func tested"), seed, 2
		c.parallel = 2
		r, err := c.measure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, res := range r.results {
			names = append(names, res.name())
		}
		return names
	}
	one, again, two := sample(1), sample(1), sample(2)
	if len(one) != 2 || !slices.Equal(one, again) || slices.Equal(one, two) {
		t.Errorf("seed 1 chose %v, then %v, and seed 2 %v", one, again, two)
	}
}

// A list that is wrong is worse than none: what it names is tried if asked for.
func TestListedButKilled(t *testing.T) {
	t.Parallel()
	c := onSample(t)
	c.doubt = true
	c.equivalents = []equivalent{{sampleFile + ": tested: n > 2 -> n >= 2", "not so"}}
	r, err := c.measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.check(); err == nil || !strings.Contains(err.Error(), "TestTested: "+c.equivalents[0].name) {
		t.Errorf("got %v", err)
	}
}

// Where the tests fail anyway nothing can be said of mutants.
func TestBrokenTests(t *testing.T) {
	t.Parallel()
	c := onSample(t)
	c.plans[0].steps[0].pkg = "test/mutate/testdata/broken"
	if _, err := c.measure(t.Context()); err == nil || !strings.Contains(err.Error(), "the tests fail without a mutant") {
		t.Errorf("got %v", err)
	}
}
