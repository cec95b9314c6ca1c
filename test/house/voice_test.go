package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// orders are verbs as they would begin an error that tells what to do, where the house tells what was being done: "reading the lock: ...".
var orders = strings.Fields("answer ask connect create decode delete encode find free generate get index label list listen make open parse patch put read register remove serve sign start update wait watch write")

// Both programs speak with one voice: what they log begins in lower case, and an error that passes another on says what was being done.
// docs/messages.md tells of nothing that they don't log.
func TestVoice(t *testing.T) {
	t.Parallel()
	heard := map[string]bool{}
	for _, dir := range []string{"cmd", "elector", "inject"} {
		err := filepath.WalkDir(filepath.Join(root(t), dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				kind, text := said(call)
				if flaw := voice(kind, text); flaw != "" {
					t.Errorf("%s: %q %s", files.Position(call.Pos()), text, flaw)
				}
				heard[text] = true
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, logs, _ := strings.Cut(read(t, "docs", "messages.md"), "\n## Logs\n")
	rows := regexp.MustCompile("(?m)^\\| (`[^`]+`(?:, `[^`]+`)*) \\|").FindAllStringSubmatch(logs, -1)
	if len(rows) == 0 {
		t.Error("messages.md has no logs")
	}
	for _, row := range rows {
		for message := range strings.SplitSeq(strings.Trim(row[1], "`"), "`, `") {
			if !heard[message] {
				t.Errorf("messages.md tells of %q, which nobody logs", message)
			}
		}
	}
}

// said is the text of a call that logs or makes an error, and by which method.
func said(call *ast.CallExpr) (kind, text string) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	place, known := map[string]int{"Info": 0, "Error": 1, "Errorf": 0}[method.Sel.Name]
	if !known || len(call.Args) <= place {
		return "", ""
	}
	literal, ok := call.Args[place].(*ast.BasicLit)
	if !ok {
		return "", ""
	}
	text, err := strconv.Unquote(literal.Value)
	if err != nil {
		return "", ""
	}
	return method.Sel.Name, text
}

// voice says what is wrong with a text.
func voice(kind, text string) string {
	word, _, _ := strings.Cut(text, " ")
	switch {
	case text == "":
	case kind == "Errorf":
		if strings.HasSuffix(text, "%w") && slices.Contains(orders, word) {
			return "gives an order, say what was being done"
		}
	case unicode.IsUpper([]rune(text)[0]) && (word == "A" || word != strings.ToUpper(word)): // CA is a name
		return "begins in upper case"
	}
	return ""
}
