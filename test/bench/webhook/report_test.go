package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/bench/internal/measure/measuretest"
)

// made is a run that never was: the same every time.
func made() results {
	spread := measuretest.Spread
	began := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	memory := func(resident int64) measure.Memory {
		return measure.Memory{Resident: resident, Anonymous: resident / 2, Peak: resident + 1e6}
	}
	r := results{
		began: began, ended: began.Add(2 * time.Minute),
		machine: measure.Machine{CPU: "made of sand", Cores: 2, Kernel: "6.12.0", Go: "1.26.8", Kubernetes: "1.36.3", ClientGo: "0.37.2", Load: 0.1}, loadAfter: 2.5,
		paced: paced{bytes: 6000, due: spread(2000, 400*time.Microsecond, time.Millisecond), sent: spread(2000, 300*time.Microsecond, 900*time.Microsecond)},
		full: full{window: 5 * time.Second, latency: spread(20_000, time.Millisecond, 20*time.Millisecond), used: []usage{
			{cpu: 2 * time.Second}, {leads: true, cpu: time.Second},
		}},
		handler: handler{
			bytes: 6000, p50: 150 * time.Microsecond, p99: 2 * time.Millisecond, cpu50: 140 * time.Microsecond, cpu99: 400 * time.Microsecond,
			allocations: 436, allocatedBytes: 56_000,
		},
		large: handler{
			bytes: 60_000, p50: 450 * time.Microsecond, p99: 3 * time.Millisecond, cpu50: 440 * time.Microsecond, cpu99: 900 * time.Microsecond,
			allocations: 1936, allocatedBytes: 312_000,
		},
		injection: injection{took: 20 * time.Microsecond, allocations: 136, memory: 21_000},
		quiet:     spread(50, 40*time.Millisecond, 70*time.Millisecond),
		storm: storm{
			namespaces: 200, latency: spread(2000, 100*time.Millisecond, 9*time.Second), created: 11 * time.Second, total: 12 * time.Second,
			used: []usage{
				{before: memory(36e6), after: memory(50e6), cpu: 3 * time.Second},
				{leads: true, before: memory(40e6), after: memory(60e6), cpu: 5 * time.Second},
			},
		},
	}
	r.many = many{
		pods: 20_000, ready: 3 * time.Second, granted: 400 * time.Millisecond,
		used: []usage{
			{leads: true, before: memory(60e6), after: memory(120e6), cpu: 20 * time.Second}, {before: memory(50e6), after: memory(100e6), cpu: 10 * time.Second},
		},
		started: []usage{{after: memory(110e6), cpu: 4 * time.Second}, {leads: true, after: memory(130e6), cpu: 6 * time.Second}},
	}
	r.creates.called = 1200 * time.Microsecond
	for i := range 400 {
		plain := time.Duration(3000+i) * time.Microsecond
		added := time.Duration(1500+i) * time.Microsecond
		r.creates.plain, r.creates.elected = append(r.creates.plain, plain), append(r.creates.elected, plain+added)
		r.creates.added = append(r.creates.added, added)
	}
	role, binding := spread(30, 5*time.Millisecond, 7*time.Millisecond), spread(30, 100*time.Millisecond, 100*time.Millisecond)
	quick := spread(30, time.Millisecond, 2*time.Millisecond)
	r.writes = append(r.writes,
		writes{who: "one with the manager's rights", role: role, binding: binding, both: binding, waits: 120, waited: 3 * time.Second},
		writes{who: "the cluster's administrator", role: quick, binding: quick, both: quick},
	)
	return r
}

// TestReport compares what is written of a made-up run with testdata/report.txtar.
func TestReport(t *testing.T) {
	measuretest.Golden(t, made().page())
}

// TestBusy holds that a page says so when the machine was not quiet.
func TestBusy(t *testing.T) {
	r := made()
	for load, want := range map[float64]string{0.1: "The machine was quiet: its load was\n0.1 before", 13: "its load was\n13.0 before the run began, and 2.5 at its end"} {
		r.machine.Load = load
		var page bytes.Buffer
		if err := r.page().WriteText(&page); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(page.String(), want) {
			t.Errorf("with a load of %v the page does not say %q", load, want)
		}
	}
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
		"slow webhook": {
			reason: "a target is to be below the limit, not at it",
			spoil:  func(r *results) { r.creates.added = measure.Sample{3 * time.Millisecond} },
			want:   map[string]string{"added to a pod's create by the webhook, p50": "missed by 0"},
		},
		"slow reviews": {
			reason: "the time from when a review was due counts, not from when it was sent; two of a hundred are more than one",
			spoil: func(r *results) {
				r.paced.due = make(measure.Sample, 100)
				r.paced.due[3], r.paced.due[90] = 4*time.Millisecond, 5*time.Millisecond
			},
			want: map[string]string{"review over HTTPS at 100/s, p99": "missed by 1.00 ms"},
		},
		"slow handler": {
			reason: "its CPU time counts, not its time",
			spoil:  func(r *results) { r.handler.p50, r.handler.cpu50 = 0, 650*time.Microsecond },
			want:   map[string]string{"handler alone, CPU time of a review of 6 KB, p50": "missed by 500 µs"},
		},
		"slow handler of large reviews": {
			reason: "it has a target of its own",
			spoil:  func(r *results) { r.large.cpu50 = 600 * time.Microsecond },
			want:   map[string]string{"handler alone, CPU time of a review of 60 KB, p50": "missed by 100 µs"},
		},
		"wasteful handler": {
			reason: "so many are allowed, and no more",
			spoil:  func(r *results) { r.handler.allocations = 681 },
			want:   map[string]string{"handler alone, allocations of a review of 6 KB": "missed by 1"},
		},
		"few reviews": {
			reason: "at least so many are wanted",
			spoil:  func(r *results) { r.full.window = 8 * time.Second },
			want:   map[string]string{"reviews over 8 connections": "missed by 1500/s"},
		},
		"slow grants": {
			reason: "those of a quiet cluster count",
			spoil:  func(r *results) { r.quiet = measure.Sample{120 * time.Millisecond} },
			want:   map[string]string{"first grant of a lock, quiet cluster, p50": "missed by 60.0 ms"},
		},
		"late grants": {
			reason: "while pods are created, grants may wait",
			spoil:  func(r *results) { r.storm.created, r.storm.total = 30*time.Second, 33*time.Second },
			want:   map[string]string{"grants of 2000 pods created at once, the last after the last create": "missed by 1.00 s"},
		},
		"much memory": {
			reason: "of either replica",
			spoil:  func(r *results) { r.storm.used[0].after.Resident = 61e6 },
			want:   map[string]string{"resident memory with 2000 pods, standby": "missed by 1.0 MB"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := made()
			tc.spoil(&r)
			measuretest.Missed(t, r.page(), tc.want, tc.reason)
		})
	}
}

// TestPerReview holds that both replicas' CPU time is counted.
func TestPerReview(t *testing.T) {
	f := full{window: 2 * time.Second, latency: make(measure.Sample, 1000), used: []usage{{cpu: time.Second}, {cpu: 500 * time.Millisecond}}}
	if f.rate() != 500 || f.cpu() != 1500*time.Microsecond {
		t.Errorf("%v/s, %s each", f.rate(), f.cpu())
	}
	if none := (full{window: time.Second}); none.cpu() != 0 {
		t.Error("no review took", none.cpu())
	}
}

func TestParseHandler(t *testing.T) {
	const head = "goos: linux\npkg: github.com/elector-io/elector/cmd/webhook/internal/admit\n"
	for name, tc := range map[string]struct {
		reason, output string
		want           handler
		err            string
	}{
		"whole": {
			reason: "values come before their units, in any order",
			output: head + "BenchmarkReview-2   \t    3000\t    247316 ns/op\t    133769 cpu-p50-ns\t    333304 cpu-p99-ns\t    135121 p50-ns\t   2866835 p99-ns\t   86246 B/op\t     936 allocs/op\nPASS\n",
			want:   handler{p50: 135121, p99: 2866835, cpu50: 133769, cpu99: 333304, allocations: 936, allocatedBytes: 86246},
		},
		"nothing":  {reason: "a benchmark of another name did not run", output: "PASS\n", err: "BenchmarkReview has no result in\nPASS\n"},
		"no unit":  {reason: "a figure of 0 would meet its target", output: "BenchmarkReview-2 3000 1 ns/op 1 p50-ns 2 p99-ns 3 cpu-p50-ns\n", err: "the line of BenchmarkReview has no cpu-p99-ns"},
		"no value": {reason: "the line is cut", output: "BenchmarkReview-2 3000 x ns/op\n", err: `reading the line of BenchmarkReview: strconv.ParseFloat: parsing "x": invalid syntax`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseHandler([]byte(tc.output))
			if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Errorf("%s: got error %v, want %q", tc.reason, err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(handler{})); tc.err == "" && diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}
