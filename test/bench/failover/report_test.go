package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/bench/internal/measure/measuretest"
)

// made is a run that never was: the same every time.
func made() results {
	spread := func(from, to time.Duration) measure.Sample { return measuretest.Spread(20, from, to) }
	began := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	return results{
		began: began, ended: began.Add(9 * time.Minute),
		machine: measure.Machine{CPU: "made of sand", Cores: 2, Kernel: "6.12.0", Go: "1.26.8", Kubernetes: "1.36.3", ClientGo: "0.37.2", Load: 0.1},
		rest: rest{
			pods: 200, window: time.Minute, requests: requests{writes: 0, reads: 3}, renewals: 1800, cpu: 900 * time.Millisecond, idle: 600 * time.Millisecond, resident: 60e6,
		},
		breaks: []breaks{
			{"crash loop, `unready-for: 5s`", 5 * time.Second, spread(5*time.Second, 6*time.Second)},
			{"crash loop, the defaults", 30 * time.Second, spread(30*time.Second, 31*time.Second)},
		},
		switchovers: []switchovers{
			{"elector: switchover to a pod", spread(20*time.Millisecond, 60*time.Millisecond)},
			{"elector: leader's pod deleted", spread(80*time.Millisecond, 200*time.Millisecond)},
			{"client-go: leader's pod deleted", spread(300*time.Millisecond, 4*time.Second)},
		},
		managed: []rollouts{{deployment, 2, []int{1, 1, 1}}, {statefulSet, 3, []int{2, 1, 2}}},
		bare:    []rollouts{{deployment, 2, []int{1, 2, 1}}, {statefulSet, 3, []int{3, 2, 3}}},
	}
}

// TestReport compares what is written of a made-up run with testdata/report.txtar.
func TestReport(t *testing.T) {
	t.Parallel()
	measuretest.Golden(t, made().page())
}

// TestMissed takes one figure of a run behind its target at a time.
func TestMissed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*results)
		missed bool
		reason string
	}{
		"None":      {func(*results) {}, false, "all targets are met"},
		"Break":     {func(r *results) { r.breaks[0].knows = measure.Sample{8 * time.Second} }, true, "3 s after unready-for is too late"},
		"Default":   {func(r *results) { r.breaks[1].knows = measure.Sample{31 * time.Second} }, false, "1 s after unready-for is soon enough"},
		"Switch":    {func(r *results) { r.switchovers[0].knows = measure.Sample{time.Second} }, true, "more than a fifth of client-go's 4 s"},
		"Deleted":   {func(r *results) { r.switchovers[1].knows = measure.Sample{time.Hour} }, false, "that has no target"},
		"Rollouts":  {func(r *results) { r.managed[0].changes[1] = 2 }, true, "a Deployment's leader changes once in a rollout"},
		"Stateful":  {func(r *results) { r.managed[1].changes[1] = 3 }, true, "one rollout of three with three changes is one too many"},
		"Bare":      {func(r *results) { r.bare[0].changes[1] = 9 }, false, "that is not the manager's"},
		"OneWrite":  {func(r *results) { r.rest.writes = 1 }, true, "at rest the manager writes nothing"},
		"OnlyReads": {func(r *results) { r.rest.reads = 99 }, false, "reads are not writes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := made()
			tc.change(&r)
			if err := r.page().Check(); errors.Is(err, measure.ErrMissed) != tc.missed {
				t.Errorf("%s: %v", tc.reason, err)
			}
		})
	}
}

// Of the audit log the manager's own requests count, from where it was read last, line by line.
func TestAudit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	a := &auditLog{path: path}
	line := func(verb, user, resource, namespace, name string) string {
		return `{"verb":"` + verb + `","user":{"username":"` + user + `"},"objectRef":{"resource":"` + resource + `","namespace":"` + namespace + `","name":"` + name + `"}}` + "\n"
	}
	for name, step := range map[string]struct {
		text string
		want requests
	}{
		"others": {line("update", "system:serviceaccount:bench:app", "leases", "bench", "web"), requests{}},
		"own":    {line("update", managerUser, "leases", managerNamespace, managerName), requests{}},
		"other":  {line("update", managerUser, "leases", managerNamespace, "web"), requests{writes: 1}},
		"writes": {line("patch", managerUser, "leases", "bench", "web") + line("create", managerUser, "events", "bench", "") + line("get", managerUser, "pods", "bench", "web"), requests{writes: 2, reads: 1}},
		"watch":  {line("watch", managerUser, "pods", "", ""), requests{}},
		"none":   {`{"verb":"get","user":{"username":"` + managerUser + `"},"requestURI":"/readyz"}` + "\n", requests{reads: 1}},
	} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		half := len(step.text) - 3
		for _, part := range []string{step.text[:half], step.text[half:]} {
			if _, err := f.WriteString(part); err != nil {
				t.Fatal(err)
			}
			got, err := a.more()
			if err != nil {
				t.Fatal(name, err)
			}
			step.want.writes -= got.writes
			step.want.reads -= got.reads
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if step.want != (requests{}) {
			t.Errorf("%s: of the requests there are left: %+v", name, step.want)
		}
	}
}

// A lock changes hands when another holder is seen, not when it is free in between.
func TestHolders(t *testing.T) {
	t.Parallel()
	h := &holders{done: make(chan struct{})}
	for _, holder := range []string{"a", "a", "", "a", "b", "", "c", "b"} {
		h.note(holder)
	}
	if n, err := h.seen(); err != nil || n != 4 {
		t.Errorf("%d changes, %v; want 4: a b c b", n, err)
	}
	close(h.done)
	if _, err := h.seen(); err == nil {
		t.Error("a watch that has ended counts on")
	}
}
