//go:build integration

package manager

import (
	"context"
	"fmt"
	"testing"

	"github.com/elector-io/elector/elector"
)

// While leaders only renew, no reconciler has anything to do. This test is the first, by the name of its
// file: the end of another one's pods would be work, and others exchange the manager.
func TestQuiet(t *testing.T) {
	s := newScene(t, elector.ModeLease)
	s.deploy(2, s.spec(sleeper), elector.FieldLeaseDuration, "3s", elector.FieldRenewDeadline, "2s", elector.FieldRetryPeriod, "500ms")
	s.awaitLabels("", 2)
	s.awaitNext(2) // the last that is written about new pods
	renewals := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.writes
	}
	work := func() float64 {
		return metric(s, `controller_runtime_reconcile_total{controller="reap",result="success"}`) +
			metric(s, `controller_runtime_reconcile_total{controller="role",result="success"}`) +
			metric(s, `controller_runtime_reconcile_total{controller="fit",result="success"}`)
	}
	// What creating the pods led to may still be under way, and the answer a second old: four renewals take longer.
	before, since := work(), renewals()
	s.poll("the reconcilers to be done", func(context.Context) error {
		if now := work(); now != before {
			before, since = now, renewals()
		}
		if n := renewals() - since; n < 4 {
			return fmt.Errorf("%v passes, the last one %d renewals ago", before, n)
		}
		return nil
	})
	was := renewals()
	s.await("five renewals", func() error {
		if s.writes < was+5 {
			return fmt.Errorf("%d", s.writes-was)
		}
		return nil
	})
	if after := work(); after != before {
		t.Errorf("%d renewals led to %v passes", renewals()-was, after-before)
	}
}
