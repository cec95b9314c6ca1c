package elector

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDescription(t *testing.T) {
	t.Parallel()
	valid := Description{Settings: Settings{Lock: "web"}, Namespace: "shop", Identity: "web-0_u0"}
	for name, tc := range map[string]struct {
		reason string
		change func(*Description)
		err    string // without its prefix
	}{
		"valid":                 {"a lock, a namespace and an identity are enough", func(*Description) {}, ""},
		"no namespace":          {"locks outside a cluster have none", func(d *Description) { d.Namespace = "" }, ""},
		"longest namespace":     {"a label has 63 characters", func(d *Description) { d.Namespace = strings.Repeat("a", 63) }, ""},
		"longer namespace":      {"a label has 63 characters", func(d *Description) { d.Namespace = strings.Repeat("a", 64) }, "namespace"},
		"capital in namespace":  {"the API server would refuse it", func(d *Description) { d.Namespace = "Shop" }, "namespace"},
		"dot in namespace":      {"a namespace's name is one label", func(d *Description) { d.Namespace = "a.b" }, "namespace"},
		"bad settings":          {"they are part of it", func(d *Description) { d.Settings.RetryPeriod = -1 }, "retry-period"},
		"no identity":           {"nobody could tell candidates apart", func(d *Description) { d.Identity = "" }, "identity"},
		"longest identity":      {"several names fit", func(d *Description) { d.Identity = "a_" + strings.Repeat("b", 510) }, ""},
		"longer identity":       {"everybody who reads the lock reads it", func(d *Description) { d.Identity = "a_" + strings.Repeat("b", 511) }, "identity"},
		"no text":               {"the API server would store another", func(d *Description) { d.Identity = "a\xff_b" }, "identity"},
		"space":                 {"nobody would see it", func(d *Description) { d.Identity = "a b_c" }, "identity"},
		"no-break space":        {"nobody would see it", func(d *Description) { d.Identity = "a\u00a0b_c" }, "identity"},
		"control character":     {"terminals obey it", func(d *Description) { d.Identity = "a\x1b_c" }, "identity"},
		"other letters":         {"they are text", func(d *Description) { d.Identity = "wêb_ü" }, ""},
		"no name":               {"POD_NAME is not set", func(d *Description) { d.Identity = Identity("", "u0") }, "identity"},
		"no UID":                {"POD_UID is not set", func(d *Description) { d.Identity = Identity("web-0", "") }, "identity"},
		"a name alone":          {"outside a cluster any name will do", func(d *Description) { d.Identity = "laptop" }, ""},
		"a name alone for life": {"a Pod has to own the lock", func(d *Description) { d.Identity = "laptop"; d.Settings.Mode = ModeLeaderForLife }, "identity"},
		"a Pod for life":        {"it owns the lock", func(d *Description) { d.Settings.Mode = ModeLeaderForLife }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := valid
			tc.change(&d)
			err := d.WithDefaults().Validate("--")
			if tc.err == "" {
				if err != nil {
					t.Errorf("%s: %v", tc.reason, err)
				}
				return
			}
			var field *FieldError
			if !errors.As(err, &field) || field.Field != "--"+tc.err || field.Allowed == "" {
				t.Errorf("%s: got %v, want an error that names --%s", tc.reason, err, tc.err)
			}
		})
	}
}

// TestWithDefaults takes the defaults for what is not set, each by itself.
func TestWithDefaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ given, want Settings }{
		"nothing": {Settings{}, Settings{Mode: ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second}},
		"all": {
			Settings{"web", ModeLeaderForLife, time.Second, 2 * time.Second, 3 * time.Second},
			Settings{"web", ModeLeaderForLife, time.Second, 2 * time.Second, 3 * time.Second},
		},
		"some": {Settings{RenewDeadline: time.Second}, Settings{Mode: ModeLease, LeaseDuration: 15 * time.Second, RenewDeadline: time.Second, RetryPeriod: 2 * time.Second}},
	} {
		given := Description{Settings: tc.given, Namespace: "shop", Identity: "web-0_u0"}
		want := Description{Settings: tc.want, Namespace: "shop", Identity: "web-0_u0"}
		if diff := cmp.Diff(want, given.WithDefaults()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(tc.given, given.Settings); diff != "" {
			t.Errorf("%s: what was given is changed:\n%s", name, diff)
		}
	}
}

func TestPartsOfAnIdentity(t *testing.T) {
	t.Parallel()
	for identity, want := range map[string][2]string{
		"web-0_u0":    {"web-0", "u0"},
		"a_b_c":       {"a_b", "c"},
		"client-go":   {"client-go", ""},
		"_u0":         {"_u0", "u0"},
		"web-0_":      {"web-0", ""},
		"":            {"", ""},
		"host_random": {"host", "random"},
	} {
		if got := [2]string{NameOf(identity), UIDOf(identity)}; got != want {
			t.Errorf("%q is of %q, want %q", identity, got, want)
		}
	}
}
