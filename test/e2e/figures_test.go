//go:build e2e

package e2e

import (
	"cmp"
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
	case d%time.Second == 0:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 100*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

// count is a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// spread tells of several measurements.
func spread(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("%s to %s, median %s", seconds(all[0]), seconds(all[len(all)-1]), seconds(all[len(all)/2]))
}

// The order of the table.
var (
	scenarios = []string{
		"helm install", "helm test", "Annotate a Deployment", "Delete the leader's pod", "Eviction by API", "kubectl drain of the leader's node",
		"Rolling update", "`kill -9` of the leader's sidecar", "OOM kill of the leader's sidecar", "Job", "CronJob",
		"StatefulSet pod recreated under its name", "Pod Security restricted", "Crash loop of the leader's app",
		"Readiness of the leader's app lost", "Image that cannot be pulled in a rollout", "Leader that hangs in its init containers",
		"All applications unwell", "An app behind the gate", "Manager scaled to 0 meanwhile", "`kubectl elector switchover` under load", "Leader's node cut off from the API server",
		"Leader's node paused (docker pause)", "Leader's node stopped (docker stop)", "API server restart", "etcd paused for 20 s",
		"Webhook rollout", "Forged pods", "Certificate rotation", "helm upgrade and rollback", "helm uninstall", "History check",
	}
	modes = []string{"", string(modeLease), string(modeLife)}
)

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
	// Those that have no place are at the end, in the order in which they were measured.
	place := func(in []string, what string) int {
		if i := slices.Index(in, what); i >= 0 {
			return i
		}
		return len(in)
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(
			cmp.Compare(place(scenarios, a.scenario), place(scenarios, b.scenario)),
			cmp.Compare(place(modes, a.mode), place(modes, b.mode)),
		)
	})
	var table strings.Builder
	fmt.Fprintf(&table, "Measured on %s, with %d cores, in %s.\n\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), seconds(time.Since(world.begun)))
	table.WriteString("| Scenario | Mode | Measured | Figure |\n|---|---|---|---|\n")
	previous := ""
	for _, r := range rows {
		name := r.scenario
		if name == previous {
			name = ""
		}
		previous = r.scenario
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", name, r.mode, r.measured, r.figure)
	}
	if err := os.WriteFile(path, []byte(before+tableBegin+table.String()+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
