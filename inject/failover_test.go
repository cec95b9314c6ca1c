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
		err    string
	}{
		"nothing":         {"the defaults", nil, plain, ""},
		"unready":         {"as it says", map[string]string{Prefix + "handover-when": "unready", Prefix + "unready-for": "1m30s"}, Failover{HandoverUnready, 90 * time.Second}, ""},
		"never":           {"as it says", map[string]string{Prefix + "handover-when": "never"}, Failover{HandoverNever, 30 * time.Second}, ""},
		"shortest":        {"it is allowed", map[string]string{Prefix + "unready-for": "5s"}, Failover{HandoverBroken, 5 * time.Second}, ""},
		"longest":         {"it is allowed", map[string]string{Prefix + "unready-for": "1h"}, Failover{HandoverBroken, time.Hour}, ""},
		"annotated":       {"nobody looked at it", map[string]string{Prefix + "handover-when": "sick", Prefix + "unready-for": "0s"}, plain, `elector.io/handover-when "sick" is not allowed: use broken, unready or never`},
		"too short":       {"a restart takes as long", map[string]string{Prefix + "unready-for": "4999ms"}, plain, `elector.io/unready-for "4999ms" is not allowed: use a duration with its unit, from 5s to 1h, such as 30s`},
		"too long":        {"nobody means that", map[string]string{Prefix + "unready-for": "61m"}, plain, `elector.io/unready-for "61m" is not allowed: use a duration with its unit, from 5s to 1h, such as 30s`},
		"without unit":    {"nobody knows what is meant", map[string]string{Prefix + "unready-for": "30"}, plain, `elector.io/unready-for "30" is not allowed: use a duration with its unit, from 5s to 1h, such as 30s`},
		"half of it":      {"the other half is obeyed", map[string]string{Prefix + "handover-when": "unready", Prefix + "unready-for": "soon"}, Failover{HandoverUnready, 30 * time.Second}, `elector.io/unready-for "soon" is not allowed: use a duration with its unit, from 5s to 1h, such as 30s`},
		"kubelet's gate":  {"its leader is never stopped", map[string]string{Prefix + "gate": "true", AnnotationStatus: `{"lock":"web","mode":"leader-for-life"}`, Prefix + "handover-when": "unready"}, Failover{HandoverNever, 30 * time.Second}, ""},
		"wrapper's gate":  {"its leader is stopped", map[string]string{Prefix + "gate": "true", AnnotationStatus: `{"lock":"web","mode":"lease"}`}, plain, ""},
		"gate, no status": {"it is no candidate", map[string]string{Prefix + "gate": "true", AnnotationStatus: "{"}, plain, ""},
		"empty strings":   {"they are no values", map[string]string{Prefix + "handover-when": "", Prefix + "unready-for": ""}, plain, `elector.io/handover-when "" is not allowed: use broken, unready or never`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := FailoverOf(tc.given)
			if got != tc.want {
				t.Errorf("%+v, want %+v: %s", got, tc.want, tc.reason)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != tc.err {
				t.Errorf("error %q, want %q", text, tc.err)
			}
		})
	}
}
