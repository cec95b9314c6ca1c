package main

import (
	"fmt"
	"strings"
)

// mutant is a program that differs from the one in the tree in one small place.
type mutant struct {
	// file is relative to the module's root, with slashes.
	file string
	// fn is the function that it is in, "type.method" for methods, or the first name of a declaration at the package's level.
	fn   string
	line int
	// before and after show the place on one line each.
	before, after string
	// nth counts the mutants of one function that read the same, from 1; 0 when there is one.
	nth int

	// The bytes from start to end are replaced by the first of texts that compiles.
	start, end int
	texts      []string
}

const removed = "(removed)"

// change is what the mutant does, unambiguous in its function.
func (m mutant) change() string {
	s := m.before + " -> " + m.after
	if m.nth > 0 {
		s += fmt.Sprintf(" #%d", m.nth)
	}
	return s
}

// name identifies the mutant in every version of its file that has the same function with the same text: there is no line in it.
func (m mutant) name() string { return m.file + ": " + m.fn + ": " + m.change() }

// apply returns src with one of the mutant's texts in it.
func (m mutant) apply(src []byte, text string) []byte {
	out := make([]byte, 0, len(src)+len(text))
	out = append(out, src[:m.start]...)
	out = append(out, text...)
	return append(out, src[m.end:]...)
}

// number sets nth. The mutants of a file are in the order of its text.
func number(mutants []mutant) {
	count := map[string]int{}
	for _, m := range mutants {
		count[m.name()]++
	}
	seen := map[string]int{}
	for i := range mutants {
		name := mutants[i].name()
		if count[name] < 2 {
			continue
		}
		seen[name]++
		mutants[i].nth = seen[name]
	}
}

// flat is source text on one line.
func flat(text string) string { return strings.Join(strings.Fields(text), " ") }
