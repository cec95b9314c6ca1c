package elector

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseSettings(t *testing.T) {
	tests := map[string]struct {
		reason string
		given  map[string]string
		want   Settings
		err    string
	}{
		"defaults": {
			reason: "a lock name alone is enough",
			given:  map[string]string{"lock": "web"},
			want:   Settings{Lock: "web", Mode: ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second},
		},
		"all": {
			reason: "every setting is read",
			given:  map[string]string{"lock": "a.b-c", "mode": "leader-for-life", "lease-duration": "1m", "renew-deadline": "40s", "retry-period": "500ms"},
			want:   Settings{Lock: "a.b-c", Mode: ModeLeaderForLife, LeaseDuration: time.Minute, RenewDeadline: 40 * time.Second, RetryPeriod: 500 * time.Millisecond},
		},
		"unknown mode": {
			reason: "a typing error is refused, not taken for the default",
			given:  map[string]string{"lock": "web", "mode": "primary"},
			err:    `--mode "primary" is not allowed: use lease or leader-for-life`,
		},
		"capital in lock": {
			reason: "the API server would refuse the object",
			given:  map[string]string{"lock": "Web"},
			err:    `--lock "Web" is not allowed: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
		},
		"no lock": {
			reason: "two workloads must not share a nameless lock",
			given:  map[string]string{},
			err:    `--lock "" is not allowed: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
		},
		"long lock": {
			reason: "the value is cut so that the sentence stays readable",
			given:  map[string]string{"lock": strings.Repeat("a", 254)},
			err:    `--lock "` + strings.Repeat("a", 80) + `…" is not allowed: a name has at most 253 characters, this one has 254`,
		},
		"not whole": {
			reason: "the Lease stores seconds: 1.9s would become 1s and let two lead",
			given:  map[string]string{"lock": "web", "lease-duration": "1.5s"},
			err:    `--lease-duration "1.5s" is not allowed: use whole seconds from 1s to 24h, because the Lease stores seconds`,
		},
		"no unit": {
			reason: "15 is not a duration",
			given:  map[string]string{"lock": "web", "lease-duration": "15"},
			err:    `--lease-duration "15" is not allowed: use a duration such as 15s, 1m or 500ms`,
		},
		"deadline above duration": {
			reason: "a claim must end before a standby takes over",
			given:  map[string]string{"lock": "web", "renew-deadline": "20s"},
			err:    `--renew-deadline "20s" is not allowed: it must be above 0s and below --lease-duration (15s)`,
		},
		"deadline equals duration": {
			reason: "no drift would be tolerated at all",
			given:  map[string]string{"lock": "web", "renew-deadline": "15s"},
			err:    `--renew-deadline "15s" is not allowed: it must be above 0s and below --lease-duration (15s)`,
		},
		"retry too long": {
			reason: "no retry would fit into the claim",
			given:  map[string]string{"lock": "web", "retry-period": "9s"},
			err:    `--retry-period "9s" is not allowed: 1.2 times it must be below --renew-deadline (10s), so that a retry fits in`,
		},
		"retry too short": {
			reason: "retries must not become a load",
			given:  map[string]string{"lock": "web", "retry-period": "-1s"},
			err:    `--retry-period "-1s" is not allowed: it must be at least 100ms`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseSettings("--", func(f string) (string, bool) { v, ok := tc.given[f]; return v, ok })
			if tc.err != "" {
				var fe *FieldError
				if !errors.As(err, &fe) || err.Error() != tc.err {
					t.Fatalf("%s:\n got %v\nwant %s", tc.reason, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if got != tc.want {
				t.Fatalf("%s:\n got %+v\nwant %+v", tc.reason, got, tc.want)
			}
		})
	}
}
