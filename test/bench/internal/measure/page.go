package measure

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
)

// Row is one figure, and what is wanted of it.
type Row struct {
	Figure string
	// Values are what is shown of it, one for each of Page.Columns.
	Values []string
	// Wanted is empty for figures without a target, and so is Verdict.
	Wanted, Verdict string
	// Missed is that the target was.
	Missed bool
}

// Want is the row with a target, unless wanted is empty: met, or missed by so much.
func (r Row) Want(wanted string, met bool, by string) Row {
	switch r.Wanted = wanted; {
	case wanted == "":
	case met:
		r.Verdict = "met"
	default:
		r.Verdict, r.Missed = "missed by "+by, true
	}
	return r
}

// Page is what a run has found, as people read it.
type Page struct {
	// Text is the page, a template that is named for the page's file, and Data what it shows.
	Text *template.Template
	Data any
	// Files are what the page links to, by name.
	Files map[string]func(io.Writer) error
	// Rows are the figures that matter most, and Columns head their values on a terminal.
	Rows    []Row
	Columns []string
}

// Write makes the page and its files in dir.
func (p Page) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the report's directory: %w", err)
	}
	if err := writeFile(filepath.Join(dir, p.Text.Name()), p.WriteText); err != nil {
		return err
	}
	for name, content := range p.Files {
		if err := writeFile(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, content func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := errors.Join(content(f), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// WriteText writes the page alone.
func (p Page) WriteText(w io.Writer) error { return p.Text.Execute(w, p.Data) }

// WriteTable shows the figures that matter most on a terminal.
func (p Page) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(figure string, values []string, wanted, verdict string) {
		fmt.Fprintln(t, strings.Join(slices.Concat([]string{figure}, values, []string{wanted, verdict}), "\t"))
	}
	line("FIGURE", p.Columns, "TARGET", "")
	for _, r := range p.Rows {
		line(r.Figure, r.Values, r.Wanted, r.Verdict)
	}
	return t.Flush()
}

// Check returns ErrMissed when a target was missed.
func (p Page) Check() error {
	if slices.ContainsFunc(p.Rows, func(r Row) bool { return r.Missed }) {
		return ErrMissed
	}
	return nil
}
