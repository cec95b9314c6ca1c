package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/elector"
)

// told are an event and its token, of each line.
func told(t *testing.T, text string) (events []string) {
	t.Helper()
	for line := range strings.Lines(text) {
		var l Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		events = append(events, strings.TrimSpace(fmt.Sprintf("%s@%d %s", l.Event, l.Clock, strings.Repeat("*", int(l.Token)))))
	}
	return events
}

func TestView(t *testing.T) {
	t.Parallel()
	type look struct {
		began, ended time.Duration
		token        uint64 // 0: does not lead
	}
	tests := map[string]struct {
		looks  []look
		want   []string
		reason string
	}{
		"Whole": {
			looks:  []look{{1, 2, 0}, {3, 4, 1}, {5, 6, 1}, {7, 8, 1}, {9, 10, 0}, {11, 12, 0}},
			want:   []string{"leads@4 *", "looked@7 *", "follows@10"},
			reason: "from the end of the first look that said so to the begin of the last one",
		},
		"Long": {
			looks:  []look{{1, 2, 1}, {50, 51, 1}, {101, 102, 1}, {103, 104, 1}, {202, 203, 1}, {204, 205, 0}},
			want:   []string{"leads@2 *", "still@101 *", "still@202 *", "looked@202 *", "follows@205"},
			reason: "who is killed has said not long ago that it led",
		},
		"Once": {
			looks: []look{{1, 5, 1}, {6, 7, 0}}, want: []string{"leads@5 *", "looked@1 *", "follows@7"},
			reason: "of one look nobody knows when what it saw was true",
		},
		"OtherToken": {
			looks: []look{{1, 2, 1}, {3, 4, 1}, {5, 6, 2}, {7, 8, 0}}, want: []string{"leads@2 *", "looked@3 *", "leads@6 **", "looked@5 **", "follows@8"},
			reason: "another token is another claim",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			v := view{by: ByStatus, log: newLog(&out), every: 99}
			for _, l := range test.looks {
				v.saw(l.began, l.ended, Status{Token: l.token}, l.token > 0)
			}
			if diff := cmp.Diff(test.want, told(t, out.String())); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	const (
		leader  = `{"role":"leader","identity":"web-0_0","namespace":"ns","lock":"web","fencingToken":7,"validUntil":"%s"}`
		standby = `{"role":"standby"}`
	)
	until := func(in time.Duration) string { return fmt.Sprintf(leader, time.Now().Add(in).Format(time.RFC3339Nano)) }
	tests := map[string]struct {
		file        bool
		status      string
		bare, leads bool
		token       uint64
		reason      string
	}{
		"Leader":      {file: true, status: until(time.Hour), bare: true, leads: true, token: 7, reason: "both files say so"},
		"ForLife":     {file: true, status: strings.Replace(until(0), "validUntil", "x", 1), bare: true, leads: true, token: 7, reason: "this claim has no end"},
		"Expired":     {file: true, status: until(-time.Second), bare: true, token: 7, reason: "a frozen sidecar can't remove its file"},
		"NoFile":      {status: until(time.Hour), token: 7, reason: "a sidecar that was restarted removes the file first"},
		"Standby":     {status: standby, reason: "the usual sight"},
		"Contradicts": {file: true, status: standby, bare: true, reason: "a file that was left is a claim, without a token"},
		"Garbled":     {file: true, status: `{"role":"leader"`, bare: true, reason: "half a file tells a careful app nothing"},
		"Nothing":     {reason: "the sidecar has not started"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if test.file {
				write(t, dir, leaderFile, "web-0\n")
			}
			if test.status != "" {
				write(t, dir, statusFile, test.status)
			}
			s := Look(dir)
			if s.File != test.bare || s.Leads != test.leads || s.Status.Token != test.token || string(s.Raw) != test.status {
				t.Errorf("%s: %+v", test.reason, s)
			}
			if s.Began > s.Ended {
				t.Errorf("the look ended before it began: %+v", s)
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// recorder is a log that a test can wait for.
type recorder struct {
	mu      sync.Mutex
	lines   []Line
	changed chan struct{}
}

func (r *recorder) Write(p []byte) (int, error) {
	var l Line
	if err := json.Unmarshal(p, &l); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
	close(r.changed)
	r.changed = make(chan struct{})
	return len(p), nil
}

// await waits for so many lines of an event in a view.
func (r *recorder) await(t *testing.T, event string, by By, n int) Line {
	t.Helper()
	for {
		r.mu.Lock()
		changed, found, last := r.changed, 0, Line{}
		for _, l := range r.lines {
			if l.Event == event && l.By == by {
				found, last = found+1, l
			}
		}
		r.mu.Unlock()
		if found >= n {
			return last
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("%d of %d lines %q by %q", found, n, event, by)
		}
	}
}

// TestRun shows a witness the files that elector itself writes.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := elector.StatusDir(t.TempDir())
	now, hour := time.Now(), time.Now().Add(time.Hour)
	standby := elector.Status{Role: elector.RoleStandby, Identity: "web-0_0", Leader: "web-1", Lock: "web", Namespace: "ns", Mode: elector.ModeLease, Since: now}
	leader := standby
	leader.Role, leader.Leader, leader.FencingToken, leader.Renewed, leader.ValidUntil = elector.RoleLeader, "web-0", 7, &now, &hour
	var mu sync.Mutex
	answer := standby
	sidecar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != statusPath {
			t.Errorf("asked for %s", r.URL)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer sidecar.Close()
	announce := func(s elector.Status) {
		t.Helper()
		mu.Lock()
		answer = s
		mu.Unlock()
		if err := dir.Announce(s); err != nil {
			t.Fatal(err)
		}
	}
	announce(standby)
	out := &recorder{changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, Config{StatusDir: string(dir), URL: sidecar.URL, Out: out}) }()

	if l := out.await(t, EventWrite, "", 1); l.Note != "done" { // this directory is not mounted
		t.Errorf("it tried to write: %q", l.Note)
	}
	out.await(t, EventLeads, ByFile, 1)
	announce(standby) // which takes back what it wrote
	before := out.await(t, EventFollows, ByFile, 1).Clock
	announce(leader)
	for by, nth := range map[By]int{ByFile: 2, ByStatus: 1, ByHTTP: 1} {
		l := out.await(t, EventLeads, by, nth)
		if l.Identity != "web-0_0" || l.Token != 7 || l.Lock != "ns/web" {
			t.Errorf("by %s: %+v", by, l)
		}
	}
	announce(standby)
	leader.FencingToken = 9
	announce(leader) // before anybody can have looked
	out.await(t, EventLeads, ByStatus, 2)
	if l := out.await(t, EventFollows, ByFile, 2); l.Clock <= before {
		t.Errorf("it did not see the file go: %+v", l)
	}
	announce(standby)
	out.await(t, EventFollows, ByStatus, 2)
	out.await(t, EventFollows, ByHTTP, 1)
	announce(leader)
	out.await(t, EventLeads, ByStatus, 3)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	out.await(t, EventAsked, "", 1)
	out.await(t, EventLooked, ByStatus, 3)
	if last := out.lines[len(out.lines)-1]; last.Event != EventStops {
		t.Errorf("the last line is %+v", last)
	}
	for _, l := range out.lines {
		if l.Event == EventSees && l.Status != nil {
			var s elector.Status
			if err := json.Unmarshal(l.Status, &s); err != nil || s.Identity != "web-0_0" {
				t.Errorf("%s: %v", l.Status, err)
			}
		}
	}
}

func TestLeadFor(t *testing.T) {
	t.Parallel()
	dir := elector.StatusDir(t.TempDir())
	if err := dir.Announce(elector.Status{Role: elector.RoleLeader, Identity: "web-0_0", Leader: "web-0", FencingToken: 7}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Run(t.Context(), Config{StatusDir: string(dir), LeadFor: 20 * time.Millisecond, Out: &out}); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, EventLooked) || !strings.Contains(text, EventStops) || strings.Contains(text, EventAsked) {
		t.Errorf("it said:\n%s", text)
	}
}
