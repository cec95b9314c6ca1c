package main

import (
	"testing"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/bench/internal/measure/measuretest"
)

// made is a run that never was: the same every time.
func made() results {
	spread := measuretest.Spread
	began := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	r := results{
		plan: fullPlan, began: began, ended: began.Add(3 * time.Minute),
		machine: measure.Machine{CPU: "made of sand", Cores: 2, Kernel: "6.12.0", Go: "1.26.8", Load: 0.1},
		reviews: []review{{body: make([]byte, 6000)}, {body: make([]byte, 60_000)}},
	}
	for i, s := range subjects {
		f := found{subject: s, version: "v1.2.3", kubernetes: "v0.37.2"}
		for j := range r.reviews {
			times := (i*4 + 1) * (j*4 + 1)
			cpu := spread(1000, time.Duration(times)*100*time.Microsecond, time.Duration(times)*200*time.Microsecond)
			f.reviews = append(f.reviews, figures{
				cpu: cpu, whole: measure.Sample{3 * cpu.P50(), cpu.P50(), 2 * cpu.P50()}, served: measure.Sample{3 * cpu.P50()},
				allocations: 400 * float64(times), allocated: 40_000 * float64(times), rate: []float64{1, 4000 / float64(times), 1e6}, answer: 5000 + 1000*i,
			})
		}
		r.subjects = append(r.subjects, f)
	}
	r.subjects[1].lost = []string{"metadata", "probe"}
	return r
}

// TestReport compares what is written of a made-up run with testdata/report.txtar.
func TestReport(t *testing.T) {
	measuretest.Golden(t, made().page())
}

// TestMissed takes one figure of a run behind its target at a time.
func TestMissed(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		spoil  func(*results)
		want   map[string]string // verdicts that are not "met", by figure
	}{
		"as made": {
			reason: "all are met",
			spoil:  func(*results) {},
		},
		"slow handler": {
			reason: "the ratio counts, of what the process took in all",
			spoil:  func(r *results) { r.subjects[0].reviews[0].whole = r.subjects[1].reviews[0].whole },
			want:   map[string]string{"CPU time of a review of 6 KB with the garbage collector, mean": "missed by 0.67"},
		},
		"slow handler of large reviews": {
			reason: "they have the same target",
			spoil:  func(r *results) { r.subjects[0].reviews[1].whole = r.subjects[1].reviews[1].whole },
			want:   map[string]string{"CPU time of a review of 60 KB with the garbage collector, mean": "missed by 0.67"},
		},
		"lost field": {
			reason: "what others lose does not count",
			spoil:  func(r *results) { r.subjects[0].lost = []string{"volume"} },
			want:   map[string]string{"unknown fields kept": "missed by 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := made()
			tc.spoil(&r)
			measuretest.Missed(t, r.page(), tc.want, tc.reason)
		})
	}
}

func TestBeside(t *testing.T) {
	for want, value := range map[string]float64{"x": 2, "x (0.25×)": 0.5, "x (1.5×)": 3, "x (12×)": 24.2} {
		if got := beside("x", value, 2); got != want {
			t.Errorf("of %v it shows %q, want %q", value, got, want)
		}
	}
}
