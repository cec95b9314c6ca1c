package main

import (
	"errors"
	"fmt"
	"strings"
)

// equivalent is a mutant that no test can tell from the program, and the reason.
type equivalent struct{ name, reason string }

// parseEquivalents reads a list of them. A line "file: function: before -> after", as the report shows a survivor without its line
// number, begins one; the indented lines below it give the reason. Empty lines and those that begin with "#" say nothing.
func parseEquivalents(text string) ([]equivalent, error) {
	var list []equivalent
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case line[0] != ' ' && line[0] != '\t':
			if parts := strings.SplitN(line, ": ", 3); len(parts) != 3 || !strings.Contains(parts[2], " -> ") {
				return nil, fmt.Errorf("line %d: not \"file: function: before -> after\"", i+1)
			}
			list = append(list, equivalent{name: flat(line)})
		case len(list) == 0:
			return nil, fmt.Errorf("line %d: a reason for nothing", i+1)
		default:
			last := &list[len(list)-1]
			last.reason = flat(last.reason + " " + line)
		}
	}
	for _, e := range list {
		if e.reason == "" {
			return nil, errors.New("no reason is given for " + e.name)
		}
	}
	return list, nil
}

// match tells which mutants are in the list, by name, and returns the faults of the list: entries of the files that were looked at
// which name no mutant, more than one, or one that was named before.
func match(list []equivalent, mutants []mutant, looked func(file string) bool) (listed map[string]equivalent, faults []string) {
	known, alike := map[string]bool{}, map[string]int{}
	for _, m := range mutants {
		known[m.name()] = true
		if m.nth > 0 {
			m.nth = 0
			alike[m.name()]++
		}
	}
	listed = map[string]equivalent{}
	for _, e := range list {
		file, _, _ := strings.Cut(e.name, ": ")
		_, twice := listed[e.name]
		switch {
		case !looked(file):
		case twice:
			faults = append(faults, "listed twice: "+e.name)
		case known[e.name]:
			listed[e.name] = e
		case alike[e.name] > 0:
			faults = append(faults, fmt.Sprintf("say which of %d, with #1 to #%d behind it: %s", alike[e.name], alike[e.name], e.name))
		default:
			faults = append(faults, "matches no mutant any more: "+e.name)
		}
	}
	return listed, faults
}
