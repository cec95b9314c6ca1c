package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	t.Parallel()
	of := func(file string, line int, v verdict, by string) result {
		return result{mutant: mutant{file: file, fn: "t.f", line: line, before: "a", after: "b"}, verdict: v, by: by, building: time.Second, run: 2 * time.Second}
	}
	r := &report{
		plans: []plan{{files: "a.go", target: 0.95}, {files: "*", target: 0.5}}, found: 9, sample: 7, seed: 3, took: 10 * time.Second,
		faults: []string{"matches no mutant any more: a.go: f: a -> b"},
		results: []result{
			of("a.go", 1, killed, "./p: TestA"), of("a.go", 2, survived, ""), of("a.go", 3, timedOut, "./p"), of("a.go", 4, listedAs, ""),
			of("b.go", 5, survived, ""), of("b.go", 6, killed, "./p: TestA"), of("b.go", 7, uncompiled, "no\nsuch"),
		},
	}
	want := `# Mutants

9 places to change were found; of them were tried: a sample of 7, seed 3.

| file | killed | of them timed out | survived | equivalent | did not compile | score |
|---|---|---|---|---|---|---|
| a.go | 2 | 1 | 1 | 1 | 0 | 66.7 % |
| b.go | 1 | 0 | 1 | 0 | 1 | 50.0 % |
| **a.go** | 2 | 1 | 1 | 1 | 0 | 66.7 % (target 95 %) |
| **the rest** | 1 | 0 | 1 | 0 | 1 | 50.0 % (target 50 %) |

## Survived

- a.go:2: t.f: ` + "`a -> b`" + `
- b.go:5: t.f: ` + "`a -> b`" + `

## Killed by

| | mutants |
|---|---|
| go test ./p: TestA | 2 |
| go test ./p | 1 |

Not compiled: b.go:7: ` + "`a -> b`" + `: no such

## Wrong in equivalent.txt

- matches no mutant any more: a.go: f: a -> b

7 mutants took 10 s; each 1.0 s to build and 2.0 s to run.
`
	if diff := cmp.Diff(want, r.page()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	err := r.check()
	if err == nil || !strings.Contains(err.Error(), "a.go: 66.7 % of the mutants were killed, 95 % should be") ||
		!strings.Contains(err.Error(), "any more") || strings.Contains(err.Error(), "the rest") {
		t.Errorf("check says %v", err)
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	own, fast, slow := step{pkg: "p", run: "Own"}, step{pkg: "p"}, step{pkg: "q"}
	plans := []plan{{files: "a.go", steps: []step{own}}, {files: "*", steps: []step{fast, slow}}}
	tests := map[string]struct {
		took   map[step]time.Duration
		want   []step
		notes  int
		reason string
	}{
		"own tests":    {map[step]time.Duration{own: 1, fast: 1, slow: 1}, []step{own}, 0, "they alone must do"},
		"no own tests": {map[step]time.Duration{fast: 1, slow: 1}, []step{fast, slow}, 1, "nothing else could kill a mutant; the report says so"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ready, notes := prepare(plans, test.took)
			got := ready[planOf(ready, "a.go")].steps
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(step{})); diff != "" || len(notes) != test.notes {
				t.Errorf("%s: %v\n%s", test.reason, notes, diff)
			}
		})
	}
}
