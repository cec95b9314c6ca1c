package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// pkg is a package whose files are mutated.
type pkg struct {
	path     string
	fset     *token.FileSet
	names    []string // of its files, relative to the module's root, in the order of files
	sources  [][]byte
	files    []*ast.File
	info     *types.Info
	importer types.Importer
}

// listed is what `go list` says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// load reads and checks the packages in the given directories below root, without the files that are not built here, and without tests.
func load(ctx context.Context, root string, dirs []string) ([]*pkg, error) {
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,DepOnly", "--"}
	for _, dir := range dirs {
		args = append(args, "./"+dir)
	}
	list := exec.CommandContext(ctx, "go", args...)
	list.Dir, list.Stderr = root, os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	exports := map[string]string{}
	var found []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := decoder.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		exports[l.ImportPath] = l.Export
		if !l.DepOnly {
			found = append(found, l)
		}
	}
	var pkgs []*pkg
	for _, l := range found {
		p, err := read(root, l, exports)
		if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
	return pkgs, nil
}

func read(root string, l listed, exports map[string]string) (*pkg, error) {
	p := &pkg{path: l.ImportPath, fset: token.NewFileSet()}
	p.info = &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}
	p.importer = importer.ForCompiler(p.fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("nothing is known of %s", path)
		}
		return os.Open(exports[path])
	})
	for _, name := range l.GoFiles {
		path := filepath.Join(l.Dir, name)
		src, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(p.fset, path, src, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return nil, err
		}
		p.names = append(p.names, filepath.ToSlash(relative))
		p.sources, p.files = append(p.sources, src), append(p.files, file)
	}
	if err := p.check(p.files, p.info); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pkg) check(files []*ast.File, info *types.Info) error {
	cfg := types.Config{Importer: p.importer}
	_, err := cfg.Check(p.path, p.fset, files, info)
	return err
}

// mutants returns the mutants of the package's files that keep lets through.
func (p *pkg) mutants(keep func(file string) bool, skips []skipped) []mutant {
	var all []mutant
	for i, name := range p.names {
		if keep(name) {
			all = append(all, find(name, p.sources[i], p.fset, p.files[i], p.info, skips)...)
		}
	}
	return all
}

// source returns the file of a mutant, mutated in the first way that is a valid program; false if there is none. It is quicker in that
// than a compiler, by far, as what is imported has been read already.
func (p *pkg) source(m mutant) ([]byte, bool) {
	i := slices.Index(p.names, m.file)
	for _, text := range m.texts {
		src := m.apply(p.sources[i], text)
		file, err := parser.ParseFile(p.fset, m.file, src, parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		files := slices.Clone(p.files)
		files[i] = file
		if p.check(files, nil) == nil {
			return src, true
		}
	}
	return nil, false
}
