package house

import (
	"go/ast"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The findings of `kubectl elector check` and the table of faults in operations.md are the same, and each has been seen by a test: by a
// script that causes it, or by one that has the API server's answers.
func TestCheckTable(t *testing.T) {
	t.Parallel()
	_, table, _ := strings.Cut(read(t, "docs", "operations.md"), "<!-- check -->\n")
	table, after, ok := strings.Cut(table, "<!-- end of check -->\n")
	if !ok {
		t.Fatal("operations.md has no table of what check finds")
	}
	sentences, reasons := findings(t)
	if len(sentences) < 20 {
		t.Fatalf("found only %d sentences in the code", len(sentences))
	}
	quotes := map[string]bool{}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, " | ")
		if len(cells) != 2 || strings.HasPrefix(row, "| What") {
			continue
		}
		said := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1)
		if !strings.HasPrefix(cells[1], "it cannot see this, because ") && len(said) == 0 {
			t.Errorf("a row says neither the check's words nor why it has none: %s", row)
		}
		for _, m := range said {
			quotes[m[1]] = true
		}
	}
	for _, reason := range reasons {
		if !quotes[reason] {
			t.Errorf("the table does not have the Event %s", reason)
		}
		delete(quotes, reason)
	}
	tests := tried(t)
	for _, sentence := range sentences {
		said := regexp.MustCompile("^" + strings.Join(literals(sentence), ".+") + "$")
		found := false
		for quote := range quotes {
			if said.MatchString(quote) {
				found = true
			}
		}
		if !found {
			t.Errorf("the table does not have %q", sentence)
		}
		if !slices.ContainsFunc(own(sentence), func(part string) bool { return strings.Contains(tests, part) }) {
			t.Errorf("no test has seen %q", sentence)
		}
	}
	for quote := range quotes {
		// What a Lock's note says is not the check's own.
		if lock, _, ok := strings.Cut(quote, ": "); ok && lock == "web" {
			continue
		}
		if !slices.ContainsFunc(sentences, func(s string) bool {
			return regexp.MustCompile("^" + strings.Join(literals(s), ".+") + "$").MatchString(quote)
		}) {
			t.Errorf("check does not say %q", quote)
		}
	}
	// All that Troubleshooting is about is in the table.
	after, _, _ = strings.Cut(after, "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllStringSubmatch(after, -1) {
		anchor := strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		if !strings.Contains(table, "(#"+anchor+")") {
			t.Errorf("the table has no row that leads to %q", m[1])
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(Elector\\w+)`").FindAllStringSubmatch(read(t, "docs", "operations.md"), -1) {
		if !strings.Contains(table, "`"+m[1]+"`") {
			t.Errorf("the table has no row for the alert %s", m[1])
		}
	}
}

// findings returns the formats of all that check says with another level than OK and Unknown, and the reasons of the Events that it repeats.
func findings(t *testing.T) (sentences, reasons []string) {
	t.Helper()
	for _, file := range parsed(t, filepath.Join(root(t), "cmd", "kubectl-elector", "internal", "checkup")) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			switch {
			case !ok:
			case method.Sel.Name == "told":
				reasons = append(reasons, text(t, call.Args[3]))
			case method.Sel.Name == "say":
				level, _ := call.Args[0].(*ast.Ident)
				if format := text(t, call.Args[3]); level != nil && level.Name != "OK" && level.Name != "Unknown" && len(own(format)) > 0 {
					sentences = append(sentences, format)
				}
			}
			return true
		})
	}
	return sentences, reasons
}

func text(t *testing.T, e ast.Expr) string {
	t.Helper()
	literal, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatalf("%v is no literal", e)
	}
	s, err := strconv.Unquote(literal.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var verbs = regexp.MustCompile(`%[a-z]`)

// literals are the parts of a format between its verbs, quoted for a regular expression.
func literals(format string) (parts []string) {
	for _, part := range verbs.Split(format, -1) {
		parts = append(parts, regexp.QuoteMeta(part))
	}
	return parts
}

// own are the parts of a format that tell it from others, each to its first letters; none if it only repeats what others say.
func own(format string) (parts []string) {
	for _, part := range verbs.Split(format, -1) {
		if len(part) >= 12 {
			parts = append(parts, part[:min(len(part), 24)])
		}
	}
	return parts
}

// tried is what the tests of check look for, in plain words.
func tried(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	all.WriteString(read(t, "cmd", "kubectl-elector", "internal", "checkup", "server_test.go"))
	for _, dir := range []string{"testdata", filepath.Join("testdata", "alone")} {
		scripts, err := filepath.Glob(filepath.Join(root(t), "test", "integration", "plugin", dir, "*.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, script := range scripts {
			all.WriteString(read(t, strings.TrimPrefix(script, root(t))))
		}
	}
	return strings.NewReplacer("''", "'", `\(`, "(", `\)`, ")", `\.`, ".").Replace(all.String())
}
