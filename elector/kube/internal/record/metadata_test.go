package record

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTimes reads the times of a Lease as the API server sends them, and as it sends those that have no such form.
func TestTimes(t *testing.T) {
	t.Parallel()
	read := func(renewTime string) *Time {
		t.Helper()
		var spec LeaseSpec
		if err := json.Unmarshal(fmt.Appendf(nil, `{"acquireTime":null,"renewTime":%s}`, renewTime), &spec); err != nil || spec.AcquireTime != nil {
			t.Errorf("%s: got %v, and %v", renewTime, spec, err)
		}
		return spec.RenewTime
	}
	if got := read("null"); got != nil {
		t.Errorf("none became %v", got)
	}
	if diff := cmp.Diff(time.Date(2026, 11, 20, 12, 0, 0, 5000, time.UTC), read(`"2026-11-20T12:00:00.000005Z"`).Time); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	seen := map[time.Time]string{}
	for _, text := range []string{
		`"10000-01-01T00:00:00.000000Z"`, `"10000-01-01T00:00:00.000001Z"`, `"292277026596-12-04T15:30:07.000000Z"`, `"-0001-01-01T00:00:00.000000Z"`, `"soon"`, `""`, `7`, `{}`,
	} {
		got, again := read(text).Time, read(text).Time
		if !got.Equal(again) {
			t.Errorf("%s was read as %v, then as %v", text, got, again)
		}
		if other := seen[got]; other != "" {
			t.Errorf("%s and %s became one", other, text)
		}
		seen[got] = text
		if got.IsZero() || got.Year() < 1 || got.Year() > 300 || !got.Equal(got.Truncate(time.Microsecond)) {
			t.Errorf("%s became %v: that is none, or could not be written back", text, got)
		}
	}
}
