package terminal_test

import (
	"strings"
	"testing"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/terminal"
)

func TestText(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ reason, give, want string }{
		"plain":          {"what is nearly always there", "web-0_7f3c, größer 世界 😀", "web-0_7f3c, größer 世界 😀"},
		"colour":         {"it could hide what follows", "a\x1b[8mb", `a\x1b[8mb`},
		"C1":             {"0x9b begins a sequence, too", "a\u009b8mb", `a\u009b8mb`},
		"byte":           {"a terminal may take it for C1", "a\x9bb", `a\x9bb`},
		"line":           {"it could forge a row", "a\nb\r\tc", `a\nb\r\tc`},
		"direction":      {"it could turn what follows round", "a\u202eb", `a\u202eb`},
		"invisible":      {"two names would look alike", "a\u200bb", `a\u200bb`},
		"line separator": {"some programs break lines there", "a\u2028b", `a\u2028b`},
		"replacement":    {"it is a character like others", "a\ufffdb", "a\ufffdb"},
		"long":           {"of a megabyte nobody reads more", strings.Repeat("a", 257), strings.Repeat("a", 256) + "…"},
		"nothing":        {"", "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := terminal.Text(test.give); got != test.want {
				t.Errorf("%q, want %q: %s", got, test.want, test.reason)
			}
		})
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 300)
	for give, want := range map[string]string{
		"one\ntwo\n":   "one\ntwo\n",
		"one\x1b\ntwo": "one\\x1b\ntwo",
		long:           long,
	} {
		if got := terminal.Lines(give); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := terminal.Lines(strings.Repeat("a", 1<<20)); len(got) > 5<<10 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 300)
	for give, want := range map[string]string{
		"is not granted\nok        grants": `is not granted\nok        grants`,
		"one\x1b\r":                        `one\x1b\r`,
		long:                               long,
	} {
		if got := terminal.Line(give); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := terminal.Line(strings.Repeat("\n", 1<<20)); len(got) > 10<<10 {
		t.Errorf("%d bytes", len(got))
	}
}
