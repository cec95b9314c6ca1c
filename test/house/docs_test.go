package house

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

// root is the top of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := embedded.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{root(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// rows returns the first cells of a table of docs/reference.md that match, without their backquotes.
func rows(t *testing.T, pattern string) []string {
	t.Helper()
	var found []string
	for _, m := range regexp.MustCompile("(?m)^\\| `("+pattern+")`").FindAllStringSubmatch(read(t, "docs", "reference.md"), -1) {
		found = append(found, m[1])
	}
	return found
}

func checkSame(t *testing.T, what string, code, docs []string) {
	t.Helper()
	slices.Sort(code)
	slices.Sort(docs)
	if len(code) == 0 {
		t.Fatalf("no %s found in the code", what)
	}
	if !slices.Equal(code, docs) {
		t.Errorf("%s\nin the code       %v\nin reference.md   %v", what, code, docs)
	}
}

func TestReferenceAnnotations(t *testing.T) {
	t.Parallel()
	var code []string
	for _, a := range inject.Annotations() {
		code = append(code, a.Key)
	}
	checkSame(t, "annotations", code, rows(t, `elector\.io/[a-z-]+`))
}

func TestReferenceFlags(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "run", module+"cmd/elector", "--help").Output()
	if err != nil {
		t.Fatal("elector --help:", err)
	}
	var code, variables []string
	for _, m := range regexp.MustCompile(`(?m)^  (--[a-z-]+)(?:  \((.*)\))?$`).FindAllStringSubmatch(string(out), -1) {
		code = append(code, m[1])
		if m[2] != "" {
			variables = append(variables, m[1]+" `"+strings.ReplaceAll(m[2], ", ", "`, `")+"`")
		}
	}
	checkSame(t, "flags", code, rows(t, `--[a-z-]+`))
	reference := read(t, "docs", "reference.md")
	for _, v := range variables {
		flagName, names, _ := strings.Cut(v, " ")
		if row := fmt.Sprintf("| `%s` | %s |", flagName, names); !strings.Contains(reference, row) {
			t.Errorf("reference.md has no row that begins with %s", row)
		}
	}
}

func TestReferenceStatus(t *testing.T) {
	t.Parallel()
	reference := read(t, "docs", "reference.md")
	for field := range reflect.TypeFor[elector.Status]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !strings.Contains(reference, "`"+name+"`") {
			t.Errorf("reference.md does not tell of %s in status.json", name)
		}
	}
}

// noLock is for a candidate that never runs.
type noLock struct{}

func (noLock) Describe() elector.Description {
	return elector.Description{Settings: elector.Settings{Lock: "web"}, Identity: "me"}
}
func (noLock) Observe(context.Context, func(elector.Record)) error { return nil }
func (noLock) Put(context.Context, elector.Record, elector.Record) (elector.Record, error) {
	return elector.Record{}, nil
}

func TestReferenceMetrics(t *testing.T) {
	t.Parallel()
	e, err := elector.New(elector.Config{Lock: noLock{}, Metrics: new(elector.Metrics)})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := e.WriteMetrics(&text); err != nil {
		t.Fatal(err)
	}
	var code []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+)`).FindAllStringSubmatch(text.String(), -1) {
		code = append(code, m[1])
	}
	// The manager's are registered where they are counted.
	sources, err := filepath.Glob(filepath.Join(root(t), "cmd", "webhook", "internal", "*", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		data, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`Name:\s+"(elector_webhook_\w+)"`).FindAllStringSubmatch(string(data), -1) {
			code = append(code, m[1])
		}
	}
	checkSame(t, "metrics", code, rows(t, `elector_\w+`))
}

func TestReadmeTargets(t *testing.T) {
	t.Parallel()
	command := exec.CommandContext(t.Context(), "make", "help")
	command.Dir = root(t)
	help, err := command.Output()
	if err != nil {
		t.Fatal("make help:", err)
	}
	if !strings.Contains(read(t, "README.md"), string(help)) {
		t.Errorf("the README does not have these targets:\n%s", help)
	}
}

// Every test that security.md names is there; of a table's case, its name.
func TestSecurityTests(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile("\\[`(Test\\w+)(?:/([^`]+))?`\\]\\(\\.\\./([^)]+)\\)").FindAllStringSubmatch(read(t, "docs", "security.md"), -1)
	if len(named) == 0 {
		t.Fatal("security.md names no tests")
	}
	for _, m := range named {
		name, testCase, path := m[1], m[2], m[3]
		source := read(t, path)
		if !strings.Contains(source, "\nfunc "+name+"(") || testCase != "" && !strings.Contains(source, fmt.Sprintf("%q", testCase)) {
			t.Errorf("%s has no %s %q", path, name, testCase)
		}
	}
}
