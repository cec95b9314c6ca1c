package elector

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHandover(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		want  Handover
		err   string
	}{
		"whole":          {value: `{"token":461,"to":"web-2","why":"kubectl: alice"}`, want: Handover{461, "web-2", "kubectl: alice"}},
		"any follower":   {value: `{"token":461}`, want: Handover{Token: 461}},
		"later version":  {value: `{"token":461,"urgent":true}`, want: Handover{Token: 461}},
		"large token":    {value: `{"token":18446744073709551615}`, want: Handover{Token: 1<<64 - 1}},
		"empty":          {err: `elector.io/handover "" is not allowed: it must be like {"token":461,"to":"web-2","why":"maintenance"}`},
		"garbage":        {value: "now!", err: `elector.io/handover "now!" is not allowed: it must be like {"token":461,"to":"web-2","why":"maintenance"}`},
		"negative token": {value: `{"token":-1}`, err: `elector.io/handover "{\"token\":-1}" is not allowed: it must be like {"token":461,"to":"web-2","why":"maintenance"}`},
		"no token":       {value: `{}`, err: `elector.io/handover token "0" is not allowed: it must be the fencing token of the claim that is to end`},
		"no pod name":    {value: `{"token":1,"to":"Web 2"}`, err: `elector.io/handover to "Web 2" is not allowed: it must be the name of a pod, or absent`},
		"long reason": {
			value: Handover{1, "", strings.Repeat("y", 257)}.String(),
			err:   `elector.io/handover why "` + strings.Repeat("y", 80) + `…" is not allowed: it must have at most 256 bytes`,
		},
		"huge": {value: strings.Repeat("y", 1<<10+1), err: `elector.io/handover "` + strings.Repeat("y", 80) + `…" is not allowed: it must have at most 1024 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseHandover(c.value)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != c.err {
				t.Errorf("error %q, want %q", text, c.err)
			}
			if err == nil {
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
				if again, err := ParseHandover(got.String()); again != got || err != nil {
					t.Errorf("read back: %+v, %v", again, err)
				}
			}
		})
	}
}

// What can be written can be read.
func TestHandoverLength(t *testing.T) {
	for name, c := range map[string]struct {
		why, err string
	}{
		"markup":    {why: strings.Repeat("<", 256)},
		"quotes":    {why: strings.Repeat(`"`, 256)},
		"separator": {why: strings.Repeat("\u2028", 85)},
		"controls": {
			why: strings.Repeat("\x01", 256),
			err: `elector.io/handover why "` + strings.Repeat(`\x01`, 80) + `…" is not allowed: with its control characters escaped, the request must have at most 1024 bytes`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := Handover{1<<64 - 1, strings.Repeat("x", 253), c.why}
			text := ""
			if err := h.Validate(); err != nil {
				text = err.Error()
			}
			if text != c.err {
				t.Errorf("error %q, want %q", text, c.err)
			}
			if got, err := ParseHandover(h.String()); c.err == "" && (got != h || err != nil) {
				t.Errorf("read back: %+v, %v", got, err)
			}
		})
	}
}

func TestNext(t *testing.T) {
	many := strings.Split(strings.Repeat("a,", 20)+"a", ",")
	for name, c := range map[string]struct {
		value string
		want  []string
	}{
		"none":    {},
		"two":     {"web-1,web-2", []string{"web-1", "web-2"}},
		"garbage": {"web-1,,Web 2, web-3," + strings.Repeat("x", 254), []string{"web-1"}},
		"many":    {strings.Join(many, ","), many[:16]},
		"long":    {strings.Repeat(strings.Repeat("x", 253)+",", 16), slices.Repeat([]string{strings.Repeat("x", 253)}, 16)},
		"huge":    {strings.Repeat(",", 16*254-1) + "ab", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, ParseNext(c.value)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got, want := FormatNext(many), strings.Join(many[:16], ","); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
