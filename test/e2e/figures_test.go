//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tell prints a line for people who follow the run.
func tell(who, what string) {
	fmt.Printf("%7.1f s  %-32s %s\n", time.Since(world.begun).Seconds(), who, what)
}

// figures are what was measured.
var figures struct {
	sync.Mutex
	rows []row
}

type row struct{ scenario, mode, measured, figure string }

// figure notes a row of the table in docs/e2e.md.
func figure(scenario, mode, measured, value string) {
	tell(strings.TrimSpace(scenario+" "+mode), "= "+measured+": "+value)
	figures.Lock()
	defer figures.Unlock()
	figures.rows = append(figures.rows, row{scenario, mode, measured, value})
}

func seconds(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 100*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

// spread tells of several measurements.
func spread(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("%s to %s, median %s", seconds(all[0]), seconds(all[len(all)-1]), seconds(all[len(all)/2]))
}

const (
	tableBegin = "<!-- figures: written by the tests -->\n"
	tableEnd   = "<!-- end of figures -->\n"
)

// writeFigures puts the table into docs/e2e.md.
func writeFigures(t *testing.T) {
	t.Helper()
	path := filepath.Join(world.root, "docs", "e2e.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		t.Fatalf("%s has no place for the table", path)
	}
	figures.Lock()
	defer figures.Unlock()
	rows := slices.Clone(figures.rows)
	order := map[string]int{}
	for _, r := range rows {
		if _, known := order[r.scenario]; !known {
			order[r.scenario] = len(order)
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		if a.scenario != b.scenario {
			return order[a.scenario] - order[b.scenario]
		}
		return strings.Compare(b.mode, a.mode) * -1
	})
	var table strings.Builder
	fmt.Fprintf(&table, "Measured on %s, with %d cores, in %s.\n\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), seconds(time.Since(world.begun)))
	table.WriteString("| Scenario | Mode | Measured | Figure |\n|---|---|---|---|\n")
	last := ""
	for _, r := range rows {
		name := r.scenario
		if name == last {
			name = ""
		}
		last = r.scenario
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", name, r.mode, r.measured, r.figure)
	}
	if err := os.WriteFile(path, []byte(before+tableBegin+table.String()+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
