package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
	"github.com/elector-io/elector/elector"
)

func TestReferences(t *testing.T) {
	t.Parallel()
	locks := []survey.Lock{
		{Name: "both", Mode: elector.ModeLease}, {Name: "both", Mode: elector.ModeLeaderForLife},
		{Name: "life", Mode: elector.ModeLeaderForLife}, {Name: "web", Mode: elector.ModeLease},
	}
	for name, test := range map[string]struct {
		args  []string
		begun string
		want  []string
	}{
		"nothing yet":  {nil, "", []string{"lease/both", "configmap/both", "life", "web"}},
		"a name":       {nil, "w", []string{"web"}},
		"there before": {[]string{"web", "lease/both"}, "", []string{"configmap/both", "life"}},
		"a kind":       {nil, "configmap/", []string{"configmap/both", "configmap/life"}},
		"half a kind":  {nil, "l", []string{"lease/both", "life"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, references(locks, test.args, test.begun)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
