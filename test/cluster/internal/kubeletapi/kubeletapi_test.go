package kubeletapi

import (
	"io"
	"strings"
	"testing"
)

func TestSeekTail(t *testing.T) {
	long := strings.Repeat("x", 5000) + "\n"
	tests := map[string]struct {
		reason string
		log    string
		lines  int
		want   string
	}{
		"Some":      {"the last lines", "a\nb\nc\n", 2, "b\nc\n"},
		"All":       {"exactly as many as there are", "a\nb\n", 2, "a\nb\n"},
		"More":      {"more than there are", "a\nb\n", 9, "a\nb\n"},
		"None":      {"no line", "a\nb\n", 0, ""},
		"Empty":     {"an empty log", "", 3, ""},
		"Unended":   {"a last line that goes on", "a\nb\nc", 2, "b\nc"},
		"LongLines": {"lines over the border of blocks", "a\n" + long + long + long, 2, long + long},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			f := strings.NewReader(tc.log)
			if err := seekTail(f, tc.lines); err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(f); string(got) != tc.want {
				t.Errorf("%s: got %d bytes %.20q, want %d bytes", tc.reason, len(got), got, len(tc.want))
			}
		})
	}
}
