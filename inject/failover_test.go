package inject

import (
	"testing"
	"time"
)

func TestFailoverOf(t *testing.T) {
	plain := Failover{HandoverBroken, 30 * time.Second}
	tests := map[string]struct {
		reason string
		given  map[string]string
		want   Failover
	}{
		"nothing":       {"the defaults", nil, plain},
		"unready":       {"as it says", map[string]string{Prefix + "handover-when": "unready", Prefix + "unready-for": "1m30s"}, Failover{HandoverUnready, 90 * time.Second}},
		"never":         {"as it says", map[string]string{Prefix + "handover-when": "never"}, Failover{HandoverNever, 30 * time.Second}},
		"shortest":      {"it is allowed", map[string]string{Prefix + "unready-for": "5s"}, Failover{HandoverBroken, 5 * time.Second}},
		"longest":       {"it is allowed", map[string]string{Prefix + "unready-for": "1h"}, Failover{HandoverBroken, time.Hour}},
		"annotated":     {"nobody looked at it", map[string]string{Prefix + "handover-when": "sick", Prefix + "unready-for": "0s"}, plain},
		"too short":     {"a restart takes as long", map[string]string{Prefix + "unready-for": "4999ms"}, plain},
		"too long":      {"nobody means that", map[string]string{Prefix + "unready-for": "61m"}, plain},
		"without unit":  {"nobody knows what is meant", map[string]string{Prefix + "unready-for": "30"}, plain},
		"half of it":    {"the other half is obeyed", map[string]string{Prefix + "handover-when": "unready", Prefix + "unready-for": "soon"}, Failover{HandoverUnready, 30 * time.Second}},
		"empty strings": {"they are no values", map[string]string{Prefix + "handover-when": "", Prefix + "unready-for": ""}, plain},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := FailoverOf(tc.given); got != tc.want {
				t.Errorf("%+v, want %+v: %s", got, tc.want, tc.reason)
			}
		})
	}
}
