package inject

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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

	checkPage(t, "messages.md", map[string]string{"refusals": refused.String(), "warnings": warned.String()})
}

// TestCatalogueIsComplete holds that docs/messages.md has every sentence that the
// code can refuse or warn with.
func TestCatalogueIsComplete(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "messages.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	verb := regexp.MustCompile(`%[a-z]`)
	found := 0
	for _, file := range append(files, filepath.Join("..", "elector", "settings.go")) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range ast.Preorder(parsed) {
			sentence, ok := sentenceOf(n)
			if !ok {
				continue
			}
			found++
			parts := verb.Split(sentence, -1)
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			if !regexp.MustCompile(strings.Join(parts, ".+")).Match(page) {
				t.Errorf("docs/messages.md has nothing like what %s says: %s", file, sentence)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d sentences were found", found)
	}
}

// sentenceOf returns the format of a refusal or a warning, if the node has one.
func sentenceOf(n ast.Node) (string, bool) {
	literal := func(e ast.Expr) (string, bool) {
		l, ok := e.(*ast.BasicLit)
		if !ok || l.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(l.Value)
		return s, err == nil
	}
	switch n := n.(type) {
	case *ast.CallExpr:
		name, ok := n.Fun.(*ast.Ident)
		at, known := map[string]int{"refuse": 2, "refusePod": 0, "readDuration": 1}[name.String()]
		if ok && known && len(n.Args) > at {
			return literal(n.Args[at])
		}
	case *ast.KeyValueExpr:
		if name, ok := n.Key.(*ast.Ident); ok && name.Name == "Allowed" {
			return literal(n.Value)
		}
	case *ast.BasicLit:
		if s, ok := literal(n); ok && strings.HasPrefix(s, "elector.io: ") {
			return s, true
		}
	}
	return "", false
}

// TestReference holds that docs/reference.md has the annotations as the table in
// the code has them. -update writes them there.
func TestReference(t *testing.T) {
	var rows strings.Builder
	rows.WriteString("| Annotation | Value | Default |\n|---|---|---|\n")
	for _, a := range Annotations() {
		fmt.Fprintf(&rows, "| `%s` | %s | %s |\n", a.Key, a.Value, a.Default)
	}
	checkPage(t, "reference.md", map[string]string{"annotations": rows.String()})
}

// TestDocumentedDefaults asks for every default that is written down as a value:
// it must be what a pod gets that asks for nothing.
func TestDocumentedDefaults(t *testing.T) {
	want, err := Pod(electedPod(), options)
	if err != nil {
		t.Fatal(err)
	}
	values := 0
	for _, a := range Annotations() {
		before, rest, _ := strings.Cut(a.Default, "`")
		value, _, ok := strings.Cut(rest, "`")
		if before != "" || !ok {
			continue
		}
		values++
		asking := electedPod()
		asking.Annotations[a.Key] = value
		got, err := Pod(asking, options)
		if err != nil {
			t.Errorf("the default of %s is refused: %v", a.Key, err)
			continue
		}
		if diff := cmp.Diff(want.Spec, got.Spec); diff != "" {
			t.Errorf("the default of %s is another (-without +with):\n%s", a.Key, diff)
		}
	}
	if values < 10 {
		t.Errorf("only %d defaults were tried", values)
	}
}

// checkPage holds that the page of docs has the content between the marks, or
// writes it there.
func checkPage(t *testing.T, name string, content map[string]string) {
	t.Helper()
	path := filepath.Join("..", "docs", name)
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(have)
	for mark, text := range content {
		want = between(t, want, mark, text)
	}
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(have), want); diff != "" {
		t.Errorf("docs/%s is out of date, go test ./inject -update writes it (-have +want):\n%s", name, diff)
	}
}

// between returns the page with content between its two marks.
func between(t *testing.T, page, name, content string) string {
	t.Helper()
	before, rest, ok := strings.Cut(page, "<!-- "+name+" -->")
	_, after, ok2 := strings.Cut(rest, "<!-- end of "+name+" -->")
	if !ok || !ok2 {
		t.Fatalf("the page has no marks around the %s", name)
	}
	return before + "<!-- " + name + " -->\n\n" + strings.TrimSpace(content) + "\n\n<!-- end of " + name + " -->" + after
}
