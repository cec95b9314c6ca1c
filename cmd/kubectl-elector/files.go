package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/manifest"
)

// files is what -f and -R say.
type files struct {
	names     []string
	recursive bool
}

func (f *files) addFlags(c *cobra.Command) {
	c.Flags().StringSliceVarP(&f.names, "filename", "f", nil, "files, directories, or - for standard input; may be given several times")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "read directories below the given ones, too")
}

// noArguments catches files that are named without -f.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("argument %q is not allowed: name files with -f, see %s --help", args[0], c.CommandPath())
	}
	return nil
}

// source is one file.
type source struct {
	name string
	data []byte
}

// extensions are those of the files that are read in directories, as kubectl does.
var extensions = []string{".yaml", ".yml", ".json"}

// read reads all files, those of a directory in order of their names.
func (f *files) read(streams genericiooptions.IOStreams) ([]source, error) {
	if len(f.names) == 0 {
		return nil, usagef("no files are given, name them with -f, or -f - for standard input")
	}
	var all []source
	for _, name := range f.names {
		if name == "-" {
			data, err := io.ReadAll(streams.In)
			if err != nil {
				return nil, fmt.Errorf("reading standard input: %w", err)
			}
			all = append(all, source{"standard input", data})
			continue
		}
		paths, err := f.find(name)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("reading files: %w", err)
			}
			all = append(all, source{path, data})
		}
	}
	return all, nil
}

// find returns the files that a name means.
func (f *files) find(name string) ([]string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("reading files: %w", err)
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	var paths []string
	err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != name && !f.recursive:
			return fs.SkipDir
		case !entry.IsDir() && slices.Contains(extensions, filepath.Ext(path)):
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading files: %w", err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("the directory %s has no file that ends in .yaml, .yml or .json", name)
	}
	return paths, nil
}

// change returns the files one after the other, with their objects changed. The error
// has one line for each object that was refused; if there is one, there is no text.
func change(all []source, decide manifest.Change) (*bytes.Buffer, error) {
	var refused []error
	var b bytes.Buffer
	for _, s := range all {
		text, err := manifest.Each(s.name, s.data, decide)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		appendDocument(&b, text)
	}
	return &b, errors.Join(refused...)
}

// appendDocument puts a separator between two documents where there is none.
func appendDocument(b *bytes.Buffer, text []byte) {
	if len(bytes.TrimSpace(text)) == 0 {
		return
	}
	if b.Len() > 0 {
		if !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
			b.WriteByte('\n')
		}
		if !bytes.HasPrefix(text, []byte("---")) {
			b.WriteString("---\n")
		}
	}
	b.Write(text)
}
