package main

import (
	"slices"
	"testing"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/bench/internal/measure/measuretest"
)

// made is a run that never was: the same every time.
func made() results {
	spread := func(from, to time.Duration) measure.Sample { return measuretest.Spread(20, from, to) }
	began := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	r := results{
		began: began, ended: began.Add(13 * time.Minute),
		machine: measure.Machine{
			CPU: "made of sand", Cores: 2, Kernel: "6.12.0", Go: "1.26.8", Kubernetes: "1.36.3", ClientGo: "0.37.2", Load: 0.1,
		},
		start:    [2]measure.Sample{spread(15*time.Millisecond, 40*time.Millisecond), spread(10*time.Millisecond, 41*time.Millisecond)},
		demotion: [2]measure.Sample{spread(2*time.Millisecond, 8*time.Millisecond), spread(10*time.Second, 12*time.Second)},
		traffic: [2]traffic{
			{window: 11 * time.Minute, standbys: 2, leader: counts{"update": 198, "watch": 1}, standby: counts{"watch": 3}},
			{window: 11 * time.Minute, standbys: 2, leader: counts{"update": 330}, standby: counts{"get": 413}},
		},
		footprints: [2]footprint{
			{
				binary:  8_700_000,
				leader:  usage{memory: measure.Memory{Resident: 12_400_000, Anonymous: 2_900_000, FileShare: 3_000_000, PageTables: 100_000, Stacks: 100_000, Peak: 12_900_000}, cpu: 150 * time.Millisecond, window: 10 * time.Minute},
				standby: usage{memory: measure.Memory{Resident: 11_900_000, Anonymous: 2_400_000, FileShare: 2_000_000, PageTables: 100_000, Stacks: 100_000, Peak: 12_000_000}, cpu: 50 * time.Millisecond, window: 10 * time.Minute, age: 11 * time.Minute},
			},
			{
				binary:  26_800_000,
				leader:  usage{memory: measure.Memory{Resident: 23_000_000, Anonymous: 9_000_000, Peak: 24_000_000}, cpu: 300 * time.Millisecond, window: 10 * time.Minute},
				standby: usage{memory: measure.Memory{Resident: 22_000_000, Anonymous: 8_000_000, Peak: 22_500_000}, cpu: 200 * time.Millisecond, window: 10 * time.Minute},
			},
		},
	}
	r.storms = storms{
		each: []gale{{
			name: "connections that say nothing", port: "health", connections: 12345, before: measure.Memory{Peak: 12_500_000}, after: measure.Memory{Peak: 18_900_000},
			anonymous: 7_800_000, asked: 30, answered: 29, slowest: 512 * time.Millisecond,
		}},
		all: gale{before: measure.Memory{Peak: 12_600_000}, after: measure.Memory{Peak: 24_000_000}, connections: 54321, anonymous: 12_000_000, asked: 60, answered: 60, slowest: time.Second},
	}
	r.mass = [2]mass{
		{
			locks: 500,
			least: least{writes: 1000, cpu: cpu{server: time.Second, etcd: 250 * time.Millisecond}},
			rest: quiet{
				window: time.Minute, cpu: cpu{18 * time.Second, 6 * time.Second, 12 * time.Second}, bytes: 60_000_000, connections: 1500,
				before: 300_000_000, loaded: 410_000_000, stacks: 60_000_000, goroutines: 9_000,
			},
			alone:   departures{rounds: 3, handover: spread(100*time.Millisecond, time.Second), writes: 60, conflicts: 20, cpu: cpu{100 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond}},
			listed:  departures{rounds: 3, handover: spread(80*time.Millisecond, 900*time.Millisecond), writes: 40, cpu: cpu{80 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond}},
			drained: departures{handover: spread(8*time.Millisecond, 20*time.Millisecond), writes: 41, cpu: cpu{80 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond}},
			outage: outage{
				down: 3 * time.Second, renewed: spread(0, 2*time.Second), back: spread(0, time.Second), burst: 150, peak: 180,
			},
		},
		{
			locks: 500,
			rest: quiet{
				window: time.Minute, cpu: cpu{40 * time.Second, 15 * time.Second, 11 * time.Second}, bytes: 120_000_000, connections: 1500,
				before: 300_000_000, loaded: 420_000_000, stacks: 30_000_000, goroutines: 3_000,
			},
			alone:   departures{rounds: 3, handover: spread(100*time.Millisecond, 4*time.Second), writes: 80, conflicts: 2, dialled: 1, cpu: cpu{90 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond}},
			drained: departures{handover: spread(20*time.Millisecond, 4*time.Second), writes: 45, cpu: cpu{70 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond}},
			outage: outage{
				down: 3 * time.Second, renewed: spread(0, 4*time.Second), back: spread(0, 4*time.Second), burst: 90, peak: 120, lost: 2,
			},
		},
	}
	for i, replicas := range []int{2, 3, 10} {
		r.graceful = append(r.graceful, latency{replicas, [2]measure.Sample{
			spread(4*time.Millisecond, 20*time.Millisecond), spread(20*time.Millisecond, 4*time.Second/time.Duration(i+1)),
		}})
		r.crash = append(r.crash, latency{replicas, [2]measure.Sample{
			spread(11700*time.Millisecond, 15020*time.Millisecond), spread(15*time.Second, time.Duration(20-i)*time.Second),
		}})
	}
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
			reason: "the leader's memory is above 12 MB",
			spoil:  func(*results) {},
			want:   map[string]string{"sidecar, resident memory of a leader": "missed by 0.4 MB"},
		},
		"all met": {
			reason: "a limit that is reached exactly is kept",
			spoil:  func(r *results) { r.footprints[ours].leader.memory.Resident = 12e6 },
		},
		"handover": {
			reason: "the ratio counts, not the time: client-go's p95 is 1 s, its twentieth 50 ms",
			spoil: func(r *results) {
				r.footprints[ours].leader.memory.Resident = 0
				r.graceful[0].of = [2]measure.Sample{{59 * time.Millisecond}, {time.Second}}
			},
			want: map[string]string{"graceful handover, 2 replicas, p95": "missed by 9.00 ms"},
		},
		"polling standby": {
			reason: "one get is one too many",
			spoil: func(r *results) {
				r.footprints[ours].leader.memory.Resident = 0
				r.traffic[ours].standby["get"] = 66
			},
			want: map[string]string{"standby at rest, requests but watches": "missed by 0.050/s"},
		},
		"restless watch": {
			reason: "in eleven minutes two standbys may begin four watches anew",
			spoil: func(r *results) {
				r.footprints[ours].leader.memory.Resident = 0
				r.traffic[ours].standby["watch"] = 5
			},
			want: map[string]string{"watches begun anew by 2 standbys at rest in 11m0s": "missed by 1"},
		},
		"many locks": {
			reason: "as many locks cost too much",
			spoil: func(r *results) {
				r.footprints[ours].leader.memory.Resident = 0
				r.mass[ours].rest.cpu.server = 30 * time.Second
				r.mass[ours].rest.loaded = 450_000_000
				r.mass[ours].alone.handover = measure.Sample{1100 * time.Millisecond}
				r.mass[ours].listed.handover = measure.Sample{1010 * time.Millisecond}
				r.mass[ours].outage.lost = 1
			},
			want: map[string]string{
				"500 locks at rest, API server and etcd":                    "missed by 19 %",
				"500 locks at rest, API server's memory for each candidate": "missed by 20 kB",
				"500 locks, all leaders leave at once, p95":                 "missed by 100 ms",
				"500 locks, the same with a list of who goes next":          "missed by 10.0 ms",
				"500 locks, claims lost when the API server restarts":       "missed by 1",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := made()
			tc.spoil(&r)
			measuretest.Missed(t, r.page(), tc.want, tc.reason)
		})
	}
}

func TestRatio(t *testing.T) {
	for name, tc := range map[string]struct {
		mine, theirs float64
		want         string
	}{
		"a twentieth":     {1, 20, "1/20"},
		"about a half":    {5, 9, "1/1.8"},
		"nearly the same": {9, 10, "0.90"},
		"more":            {15, 10, "1.50"},
		"nothing":         {0, 10, "0"},
		"of nothing":      {1, 0, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ratio(tc.mine, tc.theirs); got != tc.want {
				t.Errorf("ratio(%v, %v) = %q, want %q", tc.mine, tc.theirs, got, tc.want)
			}
		})
	}
}

// TestAxis wants axes that hold what was measured and have ticks that people can read.
func TestAxis(t *testing.T) {
	of := func(from, to time.Duration) []latency { return []latency{{2, [2]measure.Sample{{from}, {to}}}} }
	for name, tc := range map[string]struct {
		chart    chart
		from, to float64
		ticks    []float64
	}{
		"decades":    {chart{log: true, lines: of(4*time.Millisecond, 3*time.Second)}, 0.001, 10, []float64{0.001, 0.01, 0.1, 1, 10}},
		"one decade": {chart{log: true, lines: of(10*time.Millisecond, 10*time.Millisecond)}, 0.01, 0.1, []float64{0.01, 0.1}},
		"whole seconds": {
			chart{lines: of(12300*time.Millisecond, 14200*time.Millisecond), mark: 15 * time.Second},
			12, 16, []float64{12, 13, 14, 15, 16},
		},
		"nothing": {chart{lines: []latency{{replicas: 2}}}, 1, 11, []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
	} {
		t.Run(name, func(t *testing.T) {
			a := tc.chart.axis()
			if a.from != tc.from || a.to != tc.to || !slices.EqualFunc(a.ticks, tc.ticks, func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }) {
				t.Errorf("axis from %v to %v with ticks %v, want %v to %v with %v", a.from, a.to, a.ticks, tc.from, tc.to, tc.ticks)
			}
			for _, l := range tc.chart.lines {
				for _, s := range l.of {
					for _, d := range s {
						if p := a.position(d.Seconds()); p < plotLeft || p > plotRight {
							t.Errorf("%s lies at %v, outside the plot", d, p)
						}
					}
				}
			}
		})
	}
}
