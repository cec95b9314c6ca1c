package elector

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// Metrics counts what one candidate does and writes it in Prometheus' text
// format (https://prometheus.io/docs/instrumenting/exposition_formats/). The
// usual client library would make the sidecar a third larger, and the small ones
// have histograms that Prometheus can't read. Safe for use by several goroutines.
// The zero value is ready, and so is nil, which counts nothing.
type Metrics struct {
	mu        sync.Mutex
	claims    uint64
	losses    map[lossReason]uint64
	requests  map[request]uint64
	renewals  histogram
	handovers histogram
}

type request struct{ verb, result string }

// Request counts a request to the API server: its verb, and "200" or "error".
func (m *Metrics) Request(verb, result string) {
	m.count(func() {
		if m.requests == nil {
			m.requests = map[request]uint64{}
		}
		m.requests[request{verb, result}]++
	})
}

func (m *Metrics) claimed() { m.count(func() { m.claims++ }) }

func (m *Metrics) lost(why lossReason) {
	m.count(func() {
		if m.losses == nil {
			m.losses = map[lossReason]uint64{}
		}
		m.losses[why]++
	})
}

func (m *Metrics) renewed(took time.Duration) { m.count(func() { m.renewals.add(took) }) }

func (m *Metrics) handedOver(took time.Duration) { m.count(func() { m.handovers.add(took) }) }

func (m *Metrics) count(do func()) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
}

// bounds are the upper limits of the histograms' buckets: from a quick write to a
// renewal that all but missed the default renew-deadline.
var bounds = [...]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

type histogram struct {
	buckets [len(bounds) + 1]uint64
	sum     float64
}

func (h *histogram) add(d time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], d.Seconds())
	h.buckets[i]++
	h.sum += d.Seconds()
}

func (h *histogram) write(w io.Writer, name string) {
	var total uint64
	for i, n := range h.buckets {
		total += n
		bound := math.Inf(1)
		if i < len(bounds) {
			bound = bounds[i]
		}
		fmt.Fprintf(w, "%s_bucket{le=\"%s\"} %d\n", name, number(bound), total)
	}
	fmt.Fprintf(w, "%s_sum %g\n%s_count %d\n", name, h.sum, name, total)
}

// WriteMetrics writes the metrics of e.
func (e *Elector) WriteMetrics(w io.Writer) error {
	s, last := e.look()
	leader, left := 0, 0.0
	if s.Role == RoleLeader {
		leader = 1
		left = math.Inf(1)
		if last.end != forever {
			left = (last.end - e.cfg.Clock.Now()).Seconds()
		}
	}
	var b bytes.Buffer
	metric := func(name, kind, help string) { fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }

	metric("elector_is_leader", "gauge", "Whether this candidate leads.")
	fmt.Fprintf(&b, "elector_is_leader{namespace=%q,lock=%q,mode=%q} %d\n", s.Namespace, s.Lock, s.Mode, leader)
	metric("elector_claim_seconds_left", "gauge", "Seconds until the claim ends unless it is renewed; 0 on standbys, +Inf in leader-for-life.")
	fmt.Fprintf(&b, "elector_claim_seconds_left %s\n", number(left))
	metric("elector_fencing_token", "gauge", "Fencing token of the claim; 0 on standbys.")
	fmt.Fprintf(&b, "elector_fencing_token %d\n", s.FencingToken)
	e.cfg.Metrics.count(func() { e.cfg.Metrics.write(&b, metric) })
	_, err := w.Write(b.Bytes())
	return err
}

// write writes the counters.
func (m *Metrics) write(b *bytes.Buffer, metric func(name, kind, help string)) {
	metric("elector_claims_total", "counter", "Claims that began.")
	fmt.Fprintf(b, "elector_claims_total %d\n", m.claims)
	metric("elector_claim_losses_total", "counter", "Claims that ended, by reason: expired, taken, erased, twin, resigned, stopped, untold, handover, yielded.")
	for _, why := range []lossReason{lossExpired, lossTaken, lossErased, lossTwin, lossResigned, lossStopped, lossUntold, lossHandover, lossYielded} {
		fmt.Fprintf(b, "elector_claim_losses_total{reason=%q} %d\n", why, m.losses[why])
	}
	metric("elector_api_requests_total", "counter", "Requests to the API server, by verb and result: the status code, or error.")
	for _, r := range slices.SortedFunc(maps.Keys(m.requests), func(a, b request) int {
		return strings.Compare(a.verb+" "+a.result, b.verb+" "+b.result)
	}) {
		fmt.Fprintf(b, "elector_api_requests_total{verb=%q,result=%q} %d\n", r.verb, r.result, m.requests[r])
	}
	metric("elector_renew_duration_seconds", "histogram", "Time that successful renewals took.")
	m.renewals.write(b, "elector_renew_duration_seconds")
	metric("elector_handover_duration_seconds", "histogram", "Time from seeing the lock free to leading.")
	m.handovers.write(b, "elector_handover_duration_seconds")
}

func number(f float64) string {
	if math.IsInf(f, 1) {
		return "+Inf"
	}
	return fmt.Sprint(f)
}
