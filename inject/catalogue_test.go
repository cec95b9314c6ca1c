package inject

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCatalogue holds that docs/messages.md has every refusal and warning of the
// goldens. -update writes them there.
func TestCatalogue(t *testing.T) {
	refusals, warnings := map[string]map[string]bool{}, map[string]bool{}
	for _, dir := range []string{"pod", "workload"} {
		for _, g := range goldens(t, dir) {
			for warning := range strings.Lines(g.given["warnings.txt"]) {
				warnings[strings.TrimSpace(warning)] = true
			}
			sentence := strings.TrimSpace(g.given["denied.txt"])
			if sentence == "" {
				continue
			}
			field, _, _ := strings.Cut(sentence, " ")
			if refusals[field] == nil {
				refusals[field] = map[string]bool{}
			}
			refusals[field][sentence] = true
		}
	}
	var refused, warned strings.Builder
	for _, field := range slices.Sorted(maps.Keys(refusals)) {
		fmt.Fprintf(&refused, "### `%s`\n\n", field)
		for _, sentence := range slices.Sorted(maps.Keys(refusals[field])) {
			fmt.Fprintf(&refused, "- `%s`\n", sentence)
		}
		refused.WriteString("\n")
	}
	for _, warning := range slices.Sorted(maps.Keys(warnings)) {
		fmt.Fprintf(&warned, "- `%s`\n", warning)
	}

	page := filepath.Join("..", "docs", "messages.md")
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := between(t, between(t, string(have), "refusals", refused.String()), "warnings", warned.String())
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(have), want); diff != "" {
		t.Errorf("docs/messages.md is out of date, go test ./inject -update writes it (-have +want):\n%s", diff)
	}
}

// between returns the page with content between its two marks.
func between(t *testing.T, page, name, content string) string {
	t.Helper()
	before, rest, ok := strings.Cut(page, "<!-- "+name+" -->")
	_, after, ok2 := strings.Cut(rest, "<!-- end of "+name+" -->")
	if !ok || !ok2 {
		t.Fatalf("docs/messages.md has no marks around the %s", name)
	}
	return before + "<!-- " + name + " -->\n\n" + strings.TrimSpace(content) + "\n\n<!-- end of " + name + " -->" + after
}
