// Package measuretest helps to test what benchmarks write, without measuring.
package measuretest

import (
	"bytes"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

var update = flag.Bool("update", false, "write the goldens anew; their diff is the review")

// golden is beside the test.
const golden = "testdata/report.txtar"

// Spread is a sample of n, two at least, from the one to the other in even steps and no order: the same every time.
func Spread(n int, from, to time.Duration) measure.Sample {
	var s measure.Sample
	for i := range n {
		s = append(s, from+(to-from)/time.Duration(n-1)*time.Duration(i*7%n))
	}
	return s
}

// Golden compares what is written of a made-up run, files and table, with testdata/report.txtar.
func Golden(t *testing.T, p measure.Page) {
	t.Helper()
	dir := t.TempDir()
	if err := p.Write(dir); err != nil {
		t.Fatal(err)
	}
	got := &txtar.Archive{Comment: []byte("What a run writes, of figures that are made up.\n")}
	for _, name := range slices.Concat([]string{p.Text.Name()}, slices.Sorted(maps.Keys(p.Files))) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got.Files = append(got.Files, txtar.File{Name: name, Data: data})
	}
	var table bytes.Buffer
	if err := p.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	got.Files = append(got.Files, txtar.File{Name: "table.txt", Data: table.Bytes()})
	if *update {
		if err := os.WriteFile(golden, txtar.Format(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(txtar.Format(got))); diff != "" {
		t.Errorf("the report is not the golden, which -update writes (-want +got):\n%s", diff)
	}
}

// Missed compares the targets that were missed with those that are wanted to be, verdicts by figure, and has -check say whether there are any.
func Missed(t *testing.T, p measure.Page, want map[string]string, reason string) {
	t.Helper()
	var got map[string]string
	for _, row := range p.Rows {
		if row.Missed {
			if got == nil {
				got = map[string]string{}
			}
			got[row.Figure] = row.Verdict
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", reason, diff)
	}
	if err := p.Check(); errors.Is(err, measure.ErrMissed) != (len(want) > 0) {
		t.Errorf("%s: check says %v", reason, err)
	}
}
