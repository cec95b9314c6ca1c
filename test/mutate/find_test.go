package main

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// changes returns the mutants of the function f in a file, as text.
func changes(t *testing.T, src string) []string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "f.go", src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}
	if _, err := (&types.Config{Importer: importer.ForCompiler(fset, "source", nil)}).Check("p", fset, []*ast.File{file}, info); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range find("f.go", []byte(src), fset, file, info, skips) {
		found = append(found, m.fn+": "+m.change())
	}
	return found
}

func TestFind(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body   string
		want   []string
		reason string
	}{
		"less": {
			body:   "func f(a, b int) { g(a < b) }; func g(bool) {}",
			want:   []string{"f: g(a < b) -> (removed)", "f: a < b -> a <= b", "f: a < b -> a >= b"},
			reason: "a limit is where mistakes are; the negation shows that there is a test at all",
		},
		"equal": {
			body:   "func f(a, b int) { for a == b { a++ } }",
			want:   []string{"f: { -> { return", "f: a == b -> a != b", "f: a++ -> (removed)", "f: a++ -> a--"},
			reason: "it has no neighbours",
		},
		"and, with a not": {
			body:   "func f(a, b bool) bool { return a && !b }",
			want:   []string{"f: return a && !b -> return false", "f: return a && !b -> return true", "f: a && !b -> a || !b", "f: !b -> b"},
			reason: "a condition is as good as each of its parts",
		},
		"constants": {
			body:   "const f = 8",
			want:   []string{"f: 8 -> 7", "f: 8 -> 9"},
			reason: "numbers are limits, too; durations are numbers of their unit",
		},
		"min": {
			body:   "func f(a, b int) int { return min(a, b) }",
			want:   []string{"f: return min(a, b) -> return 0", "f: min(a, b) -> max(a, b)"},
			reason: "they are comparisons",
		},
		"another min": {
			body:   "func f(min func() int, true bool) int { g(true); return min() }; func g(bool) {}",
			want:   []string{"f: { -> { return 0", "f: g(true) -> (removed)", "f: return min() -> return 0"},
			reason: "the names are the language's only until somebody takes them",
		},
		"assignment to several": {
			body:   "var a, b int; func f() { a, b = 0, b }",
			want:   []string{"f: a, b = 0, b -> (removed)", "f: a, b = 0, b -> _, b = 0, b", "f: a, b = 0, b -> a, _ = 0, b", "f: 0 -> -1", "f: 0 -> 1"},
			reason: "a test may see one and not the other",
		},
		"the same twice": {
			body:   "var a bool; func f() { a = true; a = true }",
			want:   []string{"f: { -> { return", "f: a = true -> (removed) #1", "f: true -> false #1", "f: a = true -> (removed) #2", "f: true -> false #2"},
			reason: "a name says which one is meant",
		},
		"switch": {
			body: "func f(a, b bool) { switch { case a: g(1, 2); case b: } }; func g(int, int) {}",
			want: []string{
				"f: { -> { return", "f: case a: ... -> (removed)", "f: a -> !(a)", "f: case a: ... -> case a:",
				"f: 1 -> 0", "f: 1 -> 2", "f: 2 -> 1", "f: 2 -> 3", "f: b -> !(b)",
			},
			reason: "without the first case the second may be chosen; the second has nothing to lose",
		},
		"branch": {
			body:   "func f(a bool) { for { if a { break }; continue } }",
			want:   []string{"f: { -> { return", "f: a -> !(a)", "f: if a { ... } -> if a {}", "f: break -> continue", "f: continue -> break"},
			reason: "one ends the loop",
		},
		"zero values": {
			body: "type s struct{ n int }; func f(a s, e error) (s, []int, string, error) { return a, nil, `x`, e }",
			want: []string{
				"f: return a, nil, `x`, e -> return s{}, nil, `x`, e", "f: return a, nil, `x`, e -> return a, nil, \"\", e",
				"f: return a, nil, `x`, e -> return a, nil, `x`, nil",
			},
			reason: "one value at a time; what is zero already can't be told",
		},
		"a zero by name": {
			body:   "const none = ``; func f(a []int) (string, int) { return none, len(a) }",
			want:   []string{"f: return none, len(a) -> return none, 0"},
			reason: "it is the same value",
		},
		"a return of a call": {
			body:   "func f() (int, error) { return f() }",
			want:   []string{"f: return f() -> return 0, nil"},
			reason: "its values have no places of their own",
		},
		"skipped": {
			body: "type l struct{}; func (l) Info(int) {}; type t struct{ log l }; func (x t) f(a bool) { if a { x.log.Info(1 + 2) } }; " +
				"func (x t) String() string { return `t` }",
			want:   []string{"t.f: { -> { return", "t.f: a -> !(a)"},
			reason: "nobody tests a log; an if around it alone is the log's",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, changes(t, "package p\n"+test.body)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}
