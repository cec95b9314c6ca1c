package elector

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// still is a clock that stands still.
type still time.Duration

func (s still) Now() time.Duration     { return time.Duration(s) }
func (still) NewAlarm() (Alarm, error) { return nil, errors.New("nobody waits") }

// TestMetricsText writes everything that is counted, to the byte: a scraper is no person who would see what is meant.
func TestMetricsText(t *testing.T) {
	t.Parallel()
	var m Metrics
	m.Request("put", "200")
	m.Request("put", "200")
	m.Request("get", "error")
	m.Request("get", "403")
	m.claimed()
	m.claimed()
	m.claimed()
	m.lost(lossTaken)
	m.lost(lossExpired)
	m.lost(lossExpired)
	for _, took := range []time.Duration{0, 5 * time.Millisecond, 5*time.Millisecond + 1, 10 * time.Second, 11 * time.Second} {
		m.renewed(took)
	}
	m.handedOver(500 * time.Millisecond)
	m.handedOver(750 * time.Millisecond)

	const counters = `# HELP elector_claims_total Claims that began.
# TYPE elector_claims_total counter
elector_claims_total 3
# HELP elector_claim_losses_total Claims that ended, by reason: expired, taken, erased, twin, resigned, stopped, untold, handover, yielded.
# TYPE elector_claim_losses_total counter
elector_claim_losses_total{reason="expired"} 2
elector_claim_losses_total{reason="taken"} 1
elector_claim_losses_total{reason="erased"} 0
elector_claim_losses_total{reason="twin"} 0
elector_claim_losses_total{reason="resigned"} 0
elector_claim_losses_total{reason="stopped"} 0
elector_claim_losses_total{reason="untold"} 0
elector_claim_losses_total{reason="handover"} 0
elector_claim_losses_total{reason="yielded"} 0
# HELP elector_api_requests_total Requests to the API server, by verb and result: the status code, or error.
# TYPE elector_api_requests_total counter
elector_api_requests_total{verb="get",result="403"} 1
elector_api_requests_total{verb="get",result="error"} 1
elector_api_requests_total{verb="put",result="200"} 2
# HELP elector_renew_duration_seconds Time that successful renewals took.
# TYPE elector_renew_duration_seconds histogram
elector_renew_duration_seconds_bucket{le="0.005"} 2
elector_renew_duration_seconds_bucket{le="0.01"} 3
elector_renew_duration_seconds_bucket{le="0.025"} 3
elector_renew_duration_seconds_bucket{le="0.05"} 3
elector_renew_duration_seconds_bucket{le="0.1"} 3
elector_renew_duration_seconds_bucket{le="0.25"} 3
elector_renew_duration_seconds_bucket{le="0.5"} 3
elector_renew_duration_seconds_bucket{le="1"} 3
elector_renew_duration_seconds_bucket{le="2.5"} 3
elector_renew_duration_seconds_bucket{le="5"} 3
elector_renew_duration_seconds_bucket{le="10"} 4
elector_renew_duration_seconds_bucket{le="+Inf"} 5
elector_renew_duration_seconds_sum 21.010000001
elector_renew_duration_seconds_count 5
# HELP elector_handover_duration_seconds Time from seeing the lock free to leading.
# TYPE elector_handover_duration_seconds histogram
elector_handover_duration_seconds_bucket{le="0.005"} 0
elector_handover_duration_seconds_bucket{le="0.01"} 0
elector_handover_duration_seconds_bucket{le="0.025"} 0
elector_handover_duration_seconds_bucket{le="0.05"} 0
elector_handover_duration_seconds_bucket{le="0.1"} 0
elector_handover_duration_seconds_bucket{le="0.25"} 0
elector_handover_duration_seconds_bucket{le="0.5"} 1
elector_handover_duration_seconds_bucket{le="1"} 2
elector_handover_duration_seconds_bucket{le="2.5"} 2
elector_handover_duration_seconds_bucket{le="5"} 2
elector_handover_duration_seconds_bucket{le="10"} 2
elector_handover_duration_seconds_bucket{le="+Inf"} 2
elector_handover_duration_seconds_sum 1.25
elector_handover_duration_seconds_count 2
`
	gauges := func(mode Mode, leader, left, token string) string {
		return `# HELP elector_is_leader Whether this candidate leads.
# TYPE elector_is_leader gauge
elector_is_leader{namespace="ns",lock="web",mode="` + string(mode) + `"} ` + leader + `
# HELP elector_claim_seconds_left Seconds until the claim ends unless it is renewed; 0 on standbys, +Inf in leader-for-life.
# TYPE elector_claim_seconds_left gauge
elector_claim_seconds_left ` + left + `
# HELP elector_fencing_token Fencing token of the claim; 0 on standbys.
# TYPE elector_fencing_token gauge
elector_fencing_token ` + token + "\n"
	}
	const now = 5 * time.Second
	leader := func(mode Mode) Status {
		return Status{Role: RoleLeader, Namespace: "ns", Lock: "web", Mode: mode, FencingToken: 7}
	}
	for name, tc := range map[string]struct {
		reason  string
		status  Status
		end     time.Duration
		metrics *Metrics
		want    string
	}{
		"leader":            {"all is counted", leader(ModeLease), now + 2500*time.Millisecond, &m, gauges(ModeLease, "1", "2.5", "7") + counters},
		"leader for life":   {"its claim has no end", leader(ModeLeaderForLife), forever, nil, gauges(ModeLeaderForLife, "1", "+Inf", "7")},
		"standby":           {"it has no claim", Status{Role: RoleStandby, Namespace: "ns", Lock: "web", Mode: ModeLease}, 0, nil, gauges(ModeLease, "0", "0", "0")},
		"stuck in its loop": {"a claim that is over is none", leader(ModeLease), now, nil, gauges(ModeLease, "0", "0", "0")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &Elector{cfg: Config{Clock: still(now), Metrics: tc.metrics}}
			e.show(tc.status, tc.end)
			var got strings.Builder
			if err := e.WriteMetrics(&got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
	e := &Elector{cfg: Config{Clock: still(now)}}
	e.show(Status{}, 0)
	if err := e.WriteMetrics(broken{}); !errors.Is(err, errBroken) {
		t.Errorf("a writer that fails: %v", err)
	}
}

var errBroken = errors.New("broken pipe")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }
