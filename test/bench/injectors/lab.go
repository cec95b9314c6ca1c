package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// lab has what all rounds share.
type lab struct {
	root     string
	plan     plan
	progress io.Writer

	dir     string // of the programs and reviews
	reviews []review
	unknown review
}

// review is one of a pod.
type review struct {
	pod, body []byte
	file      string
}

func (l *lab) remove() error {
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("removing the injectors: %w", err)
	}
	return nil
}

// prepare builds the programs and writes the reviews. What it has made has to be removed, unless there is an error.
func (l *lab) prepare(ctx context.Context) (err error) {
	if l.dir, err = os.MkdirTemp("", "elector-bench-"); err != nil {
		return fmt.Errorf("making a directory for the injectors: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.remove())
		}
	}()
	for i, s := range shapes {
		pod, err := json.Marshal(newPod(s))
		if err != nil {
			return fmt.Errorf("writing a pod: %w", err)
		}
		r, err := l.writeReview(fmt.Sprintf("review-%d.json", i), pod)
		if err != nil {
			return err
		}
		l.reviews = append(l.reviews, r)
	}
	pod, err := withUnknown(l.reviews[0].pod)
	if err != nil {
		return err
	}
	if l.unknown, err = l.writeReview("unknown.json", pod); err != nil {
		return err
	}
	fmt.Fprintln(l.progress, "building the injectors; the first time much of Istio and Dapr is compiled, which takes minutes")
	for _, s := range subjects {
		if err := s.build(ctx, l.root, l.program(s)); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) program(s subject) string { return filepath.Join(l.dir, s.name) }

func (l *lab) writeReview(name string, pod []byte) (review, error) {
	body, err := newReview(pod)
	if err != nil {
		return review{}, err
	}
	r := review{pod: pod, body: body, file: filepath.Join(l.dir, name)}
	if err := os.WriteFile(r.file, body, 0o600); err != nil {
		return review{}, fmt.Errorf("writing a review: %w", err)
	}
	return r, nil
}

// found is what was measured of a subject.
type found struct {
	subject
	version, kubernetes string
	lost                []string // see places
	pod                 []byte   // the first, patched
	reviews             []figures
}

// figures are of all rounds, of reviews of one size.
type figures struct {
	cpu                    measure.Sample // of each review
	whole                  measure.Sample // of each round: on average, with the garbage collector
	allocations, allocated float64        // of the last round; they hardly differ
	rate                   []float64      // of each round
	served                 measure.Sample // CPU time over HTTPS, of each round
	answer                 int            // bytes
}

// perSecond is the median of the rounds.
func (f figures) perSecond() float64 {
	sorted := slices.Sorted(slices.Values(f.rate))
	return sorted[len(sorted)/2]
}

func (l *lab) measure(ctx context.Context) ([]found, error) {
	all := make([]found, len(subjects))
	for i, s := range subjects {
		all[i] = found{subject: s, reviews: make([]figures, len(l.reviews))}
	}
	for round := range l.plan.rounds {
		for i := range all {
			fmt.Fprintf(l.progress, "round %d of %d: %s\n", round+1, l.plan.rounds, all[i].name)
			if err := l.measureOne(ctx, &all[i]); err != nil {
				return nil, fmt.Errorf("measuring %s: %w", all[i].name, err)
			}
		}
	}
	// The page says that these two differ in the way alone.
	if !jsonpatch.Equal(all[0].pod, all[1].pod) {
		return nil, fmt.Errorf("%s makes another pod than %s:\n%s\n%s", all[1].name, all[0].name, all[1].pod, all[0].pod)
	}
	return all, nil
}

// measureOne adds a round of a subject to what was found.
func (l *lab) measureOne(ctx context.Context, f *found) (err error) {
	var files []string
	for _, r := range l.reviews {
		files = append(files, r.file)
	}
	p, err := f.start(ctx, l.root, l.program(f.subject), l.plan.alone, files...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	f.version, f.kubernetes = p.Versions[f.library], p.Versions["k8s.io/api"]
	c, err := measure.NewCaller(p.URL, []byte(p.CA), "", connections)
	if err != nil {
		return err
	}
	defer c.Close()
	if f.lost, err = l.measureLost(ctx, c); err != nil {
		return err
	}
	for i, r := range l.reviews {
		alone, to := p.Reviews[i], &f.reviews[i]
		pod, err := patched(r.pod, alone.Answer)
		if err != nil {
			return err
		}
		if err := checkSidecar(pod, f.sidecar); err != nil {
			return err
		}
		if i == 0 {
			f.pod = pod
		}
		over, err := measureFull(ctx, c, p.cmd.Process.Pid, r.body, l.plan.full)
		if err != nil {
			return err
		}
		to.cpu, to.whole = append(to.cpu, alone.CPU...), append(to.whole, alone.Whole)
		to.allocations, to.allocated, to.answer = alone.Allocations, alone.Allocated, len(alone.Answer)
		to.rate, to.served = append(to.rate, over.rate), append(to.served, over.cpu)
	}
	return nil
}

// measureLost has a pod with unknown fields injected.
func (l *lab) measureLost(ctx context.Context, c *measure.Caller) ([]string, error) {
	answer, err := c.Send(ctx, l.unknown.body)
	if err != nil {
		return nil, err
	}
	pod, err := patched(l.unknown.pod, answer)
	if err != nil {
		return nil, err
	}
	return lost(pod), nil
}

// results is what a run has found.
type results struct {
	plan         plan
	machine      measure.Machine
	began, ended time.Time
	reviews      []review
	subjects     []found
}
