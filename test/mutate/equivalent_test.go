package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseEquivalents(t *testing.T) {
	t.Parallel()
	got, err := parseEquivalents("# A comment.\n\na.go: t.f: a < b -> a <= b\n\tThey are never\n\tequal.\nb.go: g: x -> (removed) #2\n  It is nil.\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []equivalent{{"a.go: t.f: a < b -> a <= b", "They are never equal."}, {"b.go: g: x -> (removed) #2", "It is nil."}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(equivalent{})); diff != "" {
		t.Error(diff)
	}
	for text, reason := range map[string]string{
		"a.go: f: a -> b\n":                           "no reason",
		"a.go: f: a -> b\nb.go: f: a -> b\n\tBoth.\n": "no reason for the first",
		"a.go:12: a -> b\n\tIt is.\n":                 "a line number and no function",
		"a.go: f: a\n\tIt is.\n":                      "no change",
		"\tIt is.\n":                                  "a reason alone",
	} {
		if list, err := parseEquivalents(text); err == nil {
			t.Errorf("%s: got %v", reason, list)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	mutants := []mutant{
		{file: "a.go", fn: "f", line: 7, before: "x", after: "y"},
		{file: "a.go", fn: "g", line: 9, before: "x", after: "y", nth: 1},
		{file: "a.go", fn: "g", line: 10, before: "x", after: "y", nth: 2},
	}
	tests := map[string]struct {
		list   []string
		listed []string
		faults []string
		reason string
	}{
		"one":              {list: []string{"a.go: f: x -> y"}, listed: []string{"a.go: f: x -> y"}, reason: "the line does not matter"},
		"one of two":       {list: []string{"a.go: g: x -> y #2"}, listed: []string{"a.go: g: x -> y #2"}, reason: "the other may not be equivalent"},
		"either of two":    {list: []string{"a.go: g: x -> y"}, faults: []string{"say which of 2, with #1 to #2 behind it: a.go: g: x -> y"}, reason: "a second place like it has to be judged anew"},
		"none":             {list: []string{"a.go: f: z -> y"}, faults: []string{"matches no mutant any more: a.go: f: z -> y"}, reason: "the code has changed"},
		"twice":            {list: []string{"a.go: f: x -> y", "a.go: f: x -> y"}, listed: []string{"a.go: f: x -> y"}, faults: []string{"listed twice: a.go: f: x -> y"}, reason: "one of the reasons is not needed"},
		"a file aside":     {list: []string{"b.go: f: z -> y"}, reason: "nothing is known of files that were not looked at"},
		"a number too big": {list: []string{"a.go: g: x -> y #3"}, faults: []string{"matches no mutant any more: a.go: g: x -> y #3"}, reason: "one of three is gone"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var list []equivalent
			for _, name := range test.list {
				list = append(list, equivalent{name: name, reason: "it is"})
			}
			matched, faults := match(list, mutants, func(file string) bool { return file == "a.go" })
			var listed []string
			for _, m := range mutants {
				if _, ok := matched[m.name()]; ok {
					listed = append(listed, m.name())
				}
			}
			if diff := cmp.Diff([][]string{test.listed, test.faults}, [][]string{listed, faults}); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}
