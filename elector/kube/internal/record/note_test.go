package record

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/elector"
)

// TestReadNote reads notes as they are, and as somebody makes them.
func TestReadNote(t *testing.T) {
	t.Parallel()
	const full = `{"holder":"web-0_u0","term":3,"write":"p.1","after":10,"token":9,"leaseSeconds":15,"released":true}`
	want := elector.Note{Holder: "web-0_u0", Write: "p.1", After: 10, Token: 9, LeaseDuration: 15 * time.Second, Released: true}
	with := func(change func(*elector.Note)) elector.Note { n := want; change(&n); return n }
	for name, tc := range map[string]struct {
		reason, text string
		want         elector.Note
	}{
		"full":           {"all of it is read", full, want},
		"none":           {"there is none", "", elector.Note{}},
		"another term":   {"a takeover by another program voids it", strings.Replace(full, `"term":3`, `"term":2`, 1), elector.Note{}},
		"nobody's":       {"it does not say who wrote it", strings.Replace(full, "web-0_u0", "", 1), elector.Note{}},
		"no JSON":        {"it can't be read", full[:len(full)-1], elector.Note{}},
		"half JSON":      {"what could be read of it does not count", strings.Replace(full, "15", `"15"`, 1), elector.Note{}},
		"negative":       {"no promise is", strings.Replace(full, "15", "-1", 1), elector.Note{}},
		"no promise":     {"leader-for-life", strings.Replace(full, "15", "0", 1), with(func(n *elector.Note) { n.LeaseDuration = 0 })},
		"longest":        {"a Duration holds it", strings.Replace(full, "15", "9223372036", 1), with(func(n *elector.Note) { n.LeaseDuration = 9223372036 * time.Second })},
		"too long":       {"in a Duration it would be negative", strings.Replace(full, "15", "9223372037", 1), elector.Note{}},
		"as large as is": {"the largest that is read", full + strings.Repeat(" ", 4096-len(full)), want},
		"larger":         {"it would cost memory", full + strings.Repeat(" ", 4096-len(full)+1), elector.Note{}},
		"larger token":   {"a number of 64 bits", strings.Replace(full, `"token":9`, `"token":18446744073709551615`, 1), with(func(n *elector.Note) { n.Token = math.MaxUint64 })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			annotations := map[string]string{"other": full}
			if tc.text != "" {
				annotations[ClaimAnnotation] = tc.text
			}
			if diff := cmp.Diff(tc.want, ReadNote(annotations, 3)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestBounded holds that a huge holder is short, and still another than its neighbours.
func TestBounded(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("a", 1024)
	if got := bounded(longest); got != longest {
		t.Errorf("a holder of %d bytes became %q", len(longest), got)
	}
	const want = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…6a424025ce84288c"
	if got := bounded(longest + "a"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if bounded(longest+"b") == bounded(longest+"c") {
		t.Error("two holders became one")
	}
}

// TestWishes reads what others ask of candidates, and keeps none of it that is too large.
func TestWishes(t *testing.T) {
	t.Parallel()
	const garbage = `elector.io/handover "now!" is not allowed: it must be like {"token":461,"to":"web-2","why":"maintenance"}`
	for name, tc := range map[string]struct {
		annotations map[string]string
		want        elector.Record
	}{
		"none":            {nil, elector.Record{}},
		"a handover":      {map[string]string{elector.HandoverAnnotation: `{"token":9,"to":"web-1","why":"w"}`}, elector.Record{Handover: elector.Handover{Token: 9, To: "web-1", Why: "w"}}},
		"garbage":         {map[string]string{elector.HandoverAnnotation: "now!"}, elector.Record{HandoverFault: garbage}},
		"nothing":         {map[string]string{elector.HandoverAnnotation: ""}, elector.Record{HandoverFault: strings.Replace(garbage, "now!", "", 1)}},
		"half a handover": {map[string]string{elector.HandoverAnnotation: `{"token":9,"to":"Web 1"}`}, elector.Record{HandoverFault: `elector.io/handover to "Web 1" is not allowed: it must be the name of a pod, or absent`}},
		"a huge one": {
			map[string]string{elector.HandoverAnnotation: strings.Repeat("y", 1<<18)},
			elector.Record{HandoverFault: `elector.io/handover "` + strings.Repeat("y", 80) + `…" is not allowed: it must have at most 1024 bytes`},
		},
		"a list":      {map[string]string{elector.NextAnnotation: "web-1, ,web-2,"}, elector.Record{Next: "web-1,web-2"}},
		"a huge list": {map[string]string{elector.NextAnnotation: strings.Repeat("web-1,", 1<<15)}, elector.Record{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got elector.Record
			readWishes(tc.annotations, &got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
