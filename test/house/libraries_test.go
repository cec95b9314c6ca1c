package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLibrariesPageKnowsEverySymbol reads client-go's leader election packages and
// looks for each of their exported names, methods and fields of configurations
// included, on the page that says what elector has instead.
func TestLibrariesPageKnowsEverySymbol(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "libraries.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"k8s.io/client-go/tools/leaderelection", "k8s.io/client-go/tools/leaderelection/resourcelock"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		names := exportedNames(t, strings.TrimSpace(string(out)))
		if len(names) < 10 {
			t.Fatalf("found only %v in %s", names, pkg)
		}
		for _, name := range names {
			if !strings.Contains(string(page), name) {
				t.Errorf("docs/libraries.md does not mention %s of %s", name, pkg)
			}
		}
	}
}

// exportedNames returns the exported functions, methods, types, constants,
// variables, and fields of the struct types named Config or Callbacks.
func exportedNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	add := func(id *ast.Ident) {
		if id.IsExported() {
			names = append(names, id.Name)
		}
	}
	for _, file := range parsed(t, dir) {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil || receiverIsExported(d) {
					add(d.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					addSpec(spec, add)
				}
			}
		}
	}
	return names
}

// parsed are the files of a package, without its tests.
func parsed(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func receiverIsExported(d *ast.FuncDecl) bool {
	receiver := d.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	id, ok := receiver.(*ast.Ident)
	return ok && id.IsExported()
}

func addSpec(spec ast.Spec, add func(*ast.Ident)) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, id := range s.Names {
			add(id)
		}
	case *ast.TypeSpec:
		add(s.Name)
		fields, ok := s.Type.(*ast.StructType)
		if !ok || !strings.HasSuffix(s.Name.Name, "Config") && !strings.HasSuffix(s.Name.Name, "Callbacks") {
			return
		}
		for _, field := range fields.Fields.List {
			for _, id := range field.Names {
				add(id)
			}
		}
	}
}
