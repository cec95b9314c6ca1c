package history

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/test/judge"
	"github.com/elector-io/elector/test/witness"
)

// written is what the runtime keeps of a container's lines.
func written(container, uid string, restart int, lines ...string) Log {
	l := Log{Namespace: "ns", Pod: "web-" + uid, UID: uid, Container: container, Restart: restart}
	var text strings.Builder
	for _, line := range lines {
		text.WriteString("2026-11-20T15:44:00.123456789Z stderr F " + line + "\n")
	}
	l.Text = text.String()
	return l
}

func elector(uid string, restart int, lines ...string) Log {
	klogged := make([]string, len(lines))
	for i, line := range lines {
		klogged[i] = "I1120 15:44:00.123456       1 tell.go:103] " + line
	}
	return written("elector", uid, restart, klogged...)
}

const (
	startsA  = `"contending" lock="ns/web" identity="web-a_a" mode="lease" clock="1h0m0.5s"`
	startsB  = `"contending" lock="ns/web" identity="web-b_b" mode="lease" clock="1h0m0.6s"`
	leadsA   = `"leading" lock="ns/web" fencingToken=100 clock="1h0m1s" until="1h0m5s"`
	renewsA  = `"still leading" lock="ns/web" fencingToken=100 clock="1h0m2.5s" until="1h0m6.5s"`
	endsA    = `"standing by" lock="ns/web" reason="stopped" holder="web-a_a" clock="1h0m3s"`
	lifeA    = `"contending" lock="ns/web" identity="web-a_a" mode="leader-for-life" clock="1h0m0.5s"`
	leadsAL  = `"leading" lock="ns/web" fencingToken=100 clock="1h0m1s" until="the lock goes"`
	resumesA = `"contending" lock="ns/web" identity="web-a_a" mode="lease" clock="1h0m4s"`
	againA   = `"leading" lock="ns/web" fencingToken=100 clock="1h0m4.1s" until="1h0m8s"`
)

func at(seconds float64) time.Duration {
	return time.Hour + time.Duration(seconds*1000+0.5)*time.Millisecond
}

func TestMade(t *testing.T) {
	t.Parallel()
	claim := func(mode string, begin, end time.Duration, reason string) Claim {
		return Claim{Lock: "ns/web", Identity: "web-a_a", Mode: mode, UID: "a", Token: 100, Begin: begin, End: end, Reason: reason}
	}
	open := claim("leader-for-life", at(1), judge.Forever, "")
	open.Open = true
	tests := map[string]struct {
		logs   []Log
		deaths []Death
		want   []Claim
		reason string
	}{
		"Stopped": {
			logs: []Log{elector("a", 0, startsA, leadsA, renewsA, endsA)}, want: []Claim{claim("lease", at(1), at(3), "stopped")},
			reason: "the sidecar says when its claim ended",
		},
		"Silent": {
			logs: []Log{elector("a", 0, startsA, leadsA, renewsA)}, want: []Claim{claim("lease", at(1), at(6.5), "")},
			reason: "a lease runs out after the last renewal",
		},
		"SaidLate": {
			logs:   []Log{elector("a", 0, startsA, leadsA, strings.Replace(endsA, "1h0m3s", "1h0m30s", 1))},
			want:   []Claim{claim("lease", at(1), at(5), "stopped")},
			reason: "a process that was frozen says late what status.json had said long before",
		},
		"Killed": {
			logs:   []Log{elector("a", 0, startsA, leadsA, renewsA), elector("a", 1, resumesA, againA)},
			want:   []Claim{claim("lease", at(1), at(4), ""), claim("lease", at(4.1), at(8), "")},
			reason: "the next process removes the leader file",
		},
		"Unordered": {
			logs:   []Log{elector("a", 1, resumesA, againA), elector("a", 0, startsA, leadsA, renewsA)},
			want:   []Claim{claim("lease", at(1), at(4), ""), claim("lease", at(4.1), at(8), "")},
			reason: "files come in any order",
		},
		"ForLifeOpen": {
			logs: []Log{elector("a", 0, lifeA, leadsAL)}, want: []Claim{open}, reason: "nothing ends this claim",
		},
		"ForLifeDied": {
			logs:   []Log{elector("a", 0, lifeA, leadsAL)},
			deaths: []Death{{UIDs: []string{"b"}, At: at(2)}, {UIDs: []string{"b", "a"}, At: at(7)}, {UIDs: []string{"a"}, At: at(9)}},
			want:   []Claim{claim("leader-for-life", at(1), at(7), "")},
			reason: "its node was switched off",
		},
		"DiedAndCameBack": {
			logs:   []Log{elector("a", 0, lifeA, leadsAL), elector("a", 1, strings.Replace(resumesA, "lease", "leader-for-life", 1))},
			deaths: []Death{{UIDs: []string{"a"}, At: at(2)}},
			want:   []Claim{claim("leader-for-life", at(1), at(2), "")},
			reason: "its node was switched off and on",
		},
		"DiedBefore": {
			logs: []Log{elector("a", 0, lifeA, leadsAL)}, deaths: []Death{{UIDs: []string{"a"}, At: at(0.5)}}, want: []Claim{open},
			reason: "a death before the claim was another process's",
		},
		"Partial": {
			logs: []Log{{UID: "a", Container: "elector", Text: "t stderr F I1120 15:44:00.123456       1 x.go:1] " + startsA + "\n" +
				"t stderr P I1120 15:44:00.123456       1 x.go:1] " + leadsA[:30] + "\nt stderr F " + leadsA[30:] + "\n"}},
			want: []Claim{claim("lease", at(1), at(5), "")}, reason: "runtimes split long lines",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, Made(test.logs, test.deaths)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	b := func(clock, until, token string) string {
		return `"leading" lock="ns/web" fencingToken=` + token + ` clock="` + clock + `" until="` + until + `"`
	}
	tests := map[string]struct {
		logs   []Log
		faults []string // a part of each
		want   Report   // without Faults
		reason string
	}{
		"Handover": {
			logs:   []Log{elector("a", 0, startsA, leadsA, endsA), elector("b", 0, startsB, b("1h0m3.02s", "1h0m7s", "120"))},
			want:   Report{Locks: 1, Claims: 2, Handovers: 1, Gap: 20 * time.Millisecond},
			reason: "one after the other",
		},
		"Takeover": {
			logs:   []Log{elector("a", 0, startsA, leadsA), elector("b", 0, startsB, b("1h0m7.1s", "1h0m11s", "120"))},
			want:   Report{Locks: 1, Claims: 2, Handovers: 1, Gap: 2100 * time.Millisecond},
			reason: "after the lease had run out",
		},
		"TooEarly": {
			logs:   []Log{elector("a", 0, startsA, leadsA, endsA), elector("b", 0, startsB, b("1h0m2.99s", "1h0m7s", "120"))},
			faults: []string{"two lead for 10ms"},
			want:   Report{Locks: 1, Claims: 2, Handovers: 1, Gap: -10 * time.Millisecond},
			reason: "b claims before a has stopped",
		},
		"Within": {
			logs: []Log{
				elector("a", 0, startsA, leadsA, endsA),
				elector("b", 0, startsB, b("1h0m1.5s", "1h0m7s", "120"), strings.Replace(endsA, "1h0m3s", "1h0m2s", 1)),
				elector("c", 0, strings.ReplaceAll(startsB, "web-b_b", "web-c_c"), b("1h0m2.8s", "1h0m7s", "130")),
			},
			faults: []string{"two lead for 500ms", "two lead for 200ms"},
			want:   Report{Locks: 1, Claims: 3, Handovers: 2, Gap: -1500 * time.Millisecond},
			reason: "a short claim inside a long one does not hide it",
		},
		"AfterRenewal": {
			logs:   []Log{elector("a", 0, startsA, leadsA, renewsA), elector("b", 0, startsB, b("1h0m6s", "1h0m10s", "120"))},
			faults: []string{"two lead for 500ms"},
			want:   Report{Locks: 1, Claims: 2, Handovers: 1, Gap: -500 * time.Millisecond},
			reason: "what a renewal promised counts",
		},
		"OpenForLife": {
			logs:   []Log{elector("a", 0, lifeA, leadsAL), elector("b", 0, strings.Replace(startsB, "lease", "leader-for-life", 1), b("2h0m0s", "the lock goes", "120"))},
			faults: []string{"two lead"},
			want:   Report{Locks: 1, Claims: 2, Handovers: 1, Gap: at(3600) - judge.Forever},
			reason: "a leader for life whose end nobody knows may lead",
		},
		"TokenShrinks": {
			logs:   []Log{elector("a", 0, startsA, leadsA, endsA), elector("b", 0, startsB, b("1h0m3.02s", "1h0m7s", "99"))},
			faults: []string{"token 99 of web-b_b comes after 100 of web-a_a"},
			want:   Report{Locks: 1, Claims: 2, Handovers: 1, Gap: 20 * time.Millisecond},
			reason: "storage would refuse the new leader",
		},
		"TokenStays": {
			logs:   []Log{elector("a", 0, startsA, leadsA, endsA), elector("b", 0, startsB, b("1h0m3.02s", "1h0m7s", "100"))},
			faults: []string{"token 100 of web-b_b comes after 100 of web-a_a"},
			want:   Report{Locks: 1, Claims: 2, Handovers: 1, Gap: 20 * time.Millisecond},
			reason: "storage could not tell the two apart",
		},
		"OwnTokenShrinks": {
			logs:   []Log{elector("a", 0, startsA, leadsA), elector("a", 1, resumesA, strings.Replace(againA, "100", "90", 1))},
			faults: []string{"token 90 of web-a_a comes after its own 100"},
			want:   Report{Locks: 1, Claims: 2, Gap: judge.Forever},
			reason: "a resumed claim may not go back",
		},
		"Resumed": {
			logs:   []Log{elector("a", 0, startsA, leadsA), elector("a", 1, resumesA, againA)},
			want:   Report{Locks: 1, Claims: 2, Gap: judge.Forever},
			reason: "one candidate's claims are no overlap, and keep their token",
		},
		"OtherLocks": {
			logs: []Log{
				elector("a", 0, startsA, leadsA), elector("b", 0, startsB, strings.Replace(b("1h0m2s", "1h0m7s", "50"), "ns/web", "ns/db", 1)),
				elector("c", 0, strings.Replace(lifeA, "web-a_a", "web-c_c", 1), leadsAL),
			},
			want:   Report{Locks: 3, Claims: 3, Gap: judge.Forever},
			reason: "a Lease, another Lease, and a ConfigMap of the first one's name",
		},
		"Headless": {
			logs:   []Log{elector("a", 0, leadsA)},
			faults: []string{"a claim without candidate or token"},
			want:   Report{Locks: 1, Claims: 1, Gap: judge.Forever},
			reason: "a claim of somebody unknown can't be compared: the log was cut",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Check(Made(test.logs, nil))
			checkFaults(t, test.reason, test.faults, got.Faults)
			got.Faults = nil
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

// checkFaults checks that there are as many faults as wanted, with these parts.
func checkFaults(t *testing.T, reason string, want, got []string) {
	t.Helper()
	if !slices.EqualFunc(want, got, func(part, fault string) bool { return strings.Contains(fault, part) }) {
		t.Errorf("%s: the faults are %q, want %q", reason, got, want)
	}
}

func TestCheckSeen(t *testing.T) {
	t.Parallel()
	app := func(token string, events ...string) Log {
		lines := []string{`{"event":"started","clock":3600000000000}`, "no JSON"}
		for _, e := range events {
			event, clock, _ := strings.Cut(e, "@")
			lines = append(lines, `{"event":"`+event+`","clock":36`+clock+`,"by":"status","took":2,"lock":"ns/web","identity":"web-a_a","mode":"lease","token":`+token+`}`)
		}
		return written("app", "a", 0, lines...)
	}
	made := Made([]Log{elector("a", 0, startsA, leadsA, endsA)}, nil)
	tests := map[string]struct {
		app    Log
		faults []string
		reason string
	}{
		"Within":    {app: app("100", "leads@01010000000", "still@01500000000", "looked@02990000000"), reason: "the app saw less than the whole"},
		"OneLook":   {app: app("100", "leads@03000000001", "looked@02999999999"), reason: "a look that took a while is true of a moment in between"},
		"TooEarly":  {app: app("100", "leads@00990000000", "looked@02990000000"), faults: []string{"did not claim"}, reason: "the app led before its sidecar did"},
		"TooLate":   {app: app("100", "leads@01010000000", "still@03100000000"), faults: []string{"did not claim"}, reason: "the app led on"},
		"WrongOnes": {app: app("101", "leads@01010000000", "looked@02990000000"), faults: []string{"did not claim"}, reason: "nobody had this token"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := Seen([]Log{test.app}, witness.ByStatus)
			if len(seen) != 1 {
				t.Fatalf("the app saw %d claims", len(seen))
			}
			checkFaults(t, test.reason, test.faults, CheckSeen(seen, made))
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	var got Log
	if err := got.Parse("ns_web-5d4c-x_0c1e-4f/elector/2.log"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Log{Namespace: "ns", Pod: "web-5d4c-x", UID: "0c1e-4f", Container: "elector", Restart: 2}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, name := range []string{"", "ns_pod/elector/0.log", "ns_pod_uid/elector/0.log.gz", "ns_pod_uid/elector/x.log"} {
		if err := new(Log).Parse(name); err == nil {
			t.Errorf("%q was taken for the name of a log", name)
		}
	}
}
