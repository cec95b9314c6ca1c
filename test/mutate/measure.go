package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"time"
)

// config is what to mutate, and how.
type config struct {
	root        string
	files       map[string]bool // relative to root; those that are not built here are left out
	plans       []plan          // the last one is for every file
	skips       []skipped
	equivalents []equivalent

	// file and line narrow down what is tried; empty and 0 do not.
	file string
	line int
	// sample is how many are tried, chosen by seed; 0 for all.
	sample int
	seed   uint64
	// doubt tries those that are listed as equivalent, and no others.
	doubt bool

	parallel int
	timeout  time.Duration
	progress io.Writer
}

// measure tries the mutants.
func (c *config) measure(ctx context.Context) (_ *report, err error) {
	began := time.Now()
	pkgs, err := load(ctx, c.root, c.dirs())
	if err != nil {
		return nil, err
	}
	home := map[string]*pkg{} // by file
	var all []mutant
	for _, p := range pkgs {
		for _, name := range p.names {
			home[name] = p
		}
		all = append(all, p.mutants(c.wanted, c.skips)...)
	}
	listed, faults := match(c.equivalents, all, c.wanted)

	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l := &laboratory{root: c.root, dir: dir, timeout: c.timeout}
	fmt.Fprintln(c.progress, "running the tests without a mutant")
	if err := l.measure(ctx, c.plansFor(all)); err != nil {
		return nil, err
	}
	ready, notes := prepare(c.plans, l.took)
	for _, s := range slices.SortedFunc(maps.Keys(l.took), func(a, b step) int { return cmp.Compare(a.String(), b.String()) }) {
		if l.took[s] > c.timeout/2 {
			notes = append(notes, fmt.Sprintf("go test %s takes %.1f s of processor time without a mutant, so it has %.1f s with one.", s, l.took[s].Seconds(), l.limit(s).Seconds()))
		}
	}

	r := &report{plans: ready, faults: faults, notes: notes, seed: c.seed, sample: c.sample, found: len(all), doubt: c.doubt}
	jobs := make(chan job)
	choosing := make(chan struct{})
	go func() {
		defer close(choosing)
		defer close(jobs)
		c.choose(ctx, all, listed, home, ready, jobs, r)
	}()
	tried, err := c.tryAll(ctx, l, jobs)
	<-choosing
	if err != nil {
		return nil, err
	}
	r.results = append(r.results, tried...)
	r.took = time.Since(began)
	slices.SortStableFunc(r.results, func(a, b result) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.start, b.start))
	})
	return r, nil
}

// wanted tells whether a file is to be mutated.
func (c *config) wanted(file string) bool {
	return c.files[file] && (c.file == "" || matches(c.file, file))
}

func (c *config) dirs() []string {
	dirs := map[string]bool{}
	for file := range c.files {
		if c.wanted(file) {
			dirs[path.Dir(file)] = true
		}
	}
	return slices.Sorted(maps.Keys(dirs))
}

// plansFor returns the plans that mutants have, and the last one.
func (c *config) plansFor(mutants []mutant) []plan {
	used := map[int]bool{len(c.plans) - 1: true}
	for _, m := range mutants {
		used[planOf(c.plans, m.file)] = true
	}
	var found []plan
	for i, p := range c.plans {
		if used[i] {
			found = append(found, p)
		}
	}
	return found
}

type job struct {
	mutant
	src   []byte
	steps []step
}

// choose sends the mutants that are to be tried. Which ones a seed chooses depends on each one alone, so that a change of the code
// exchanges few of them.
func (c *config) choose(ctx context.Context, all []mutant, listed map[string]equivalent, home map[string]*pkg, plans []plan, jobs chan<- job, r *report) {
	if c.sample > 0 {
		all = slices.Clone(all)
		slices.SortStableFunc(all, func(a, b mutant) int { return cmp.Compare(c.rank(a), c.rank(b)) })
	}
	sent := 0
	for _, m := range all {
		_, equal := listed[m.name()]
		switch {
		case c.line != 0 && m.line != c.line, c.doubt && !equal:
			continue
		case equal && !c.doubt:
			r.results = append(r.results, result{mutant: m, verdict: listedAs})
			continue
		}
		src, ok := home[m.file].source(m)
		if !ok {
			r.results = append(r.results, result{mutant: m, verdict: uncompiled})
			continue
		}
		if c.sample > 0 && sent == c.sample {
			return
		}
		select {
		case jobs <- job{m, src, plans[planOf(plans, m.file)].steps}:
			sent++
		case <-ctx.Done():
			return
		}
	}
}

func (c *config) rank(m mutant) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", c.seed, m.name()))
	return binary.BigEndian.Uint64(sum[:])
}

// tryAll tries what comes. A mutant that timed out beside another is tried once more alone.
func (c *config) tryAll(ctx context.Context, l *laboratory, jobs <-chan job) ([]result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var results []result
	var again []job
	var failed error
	var workers sync.WaitGroup
	for range c.parallel {
		workers.Go(func() {
			for j := range jobs {
				r, err := l.try(ctx, j.mutant, j.src, j.steps)
				mu.Lock()
				switch {
				case err != nil && failed == nil:
					failed = err
					cancel()
				case err != nil:
				case r.verdict == timedOut && c.parallel > 1:
					again = append(again, j)
				default:
					results = append(results, r)
					c.show(len(results), r)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	for _, j := range again {
		if failed != nil {
			break
		}
		var r result
		if r, failed = l.try(ctx, j.mutant, j.src, j.steps); failed == nil {
			results = append(results, r)
			c.show(len(results), r)
		}
	}
	return results, failed
}

func (c *config) show(n int, r result) {
	fmt.Fprintf(c.progress, "%4d  %-10s %s:%d: %s  (%.1f s + %.1f s)\n", n, r.verdict, r.file, r.line, r.change(), r.building.Seconds(), r.run.Seconds())
}
