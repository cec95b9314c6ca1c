//go:build integration

package examples

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/embedded"
)

// storage is what a program writes to.
type storage interface {
	// env tells a program where the storage is; it is reached by way of address.
	env(address string) []string
	// address is where the storage is.
	address() string
	// tokens are those of all writes, one after the other.
	tokens() []int64
	// waits returns when a transaction waits for another one.
	waits()
}

// program is one of examples/fencing.
type program struct {
	needs []string
	// rare programs need not be there in CI, but for `make examples`.
	rare bool
	// make returns the command.
	make    func(t *testing.T, dir string) []string
	storage func(t *testing.T) storage
	// write is what the program sends when it writes, and inside what it sends then in the same transaction, if there are any.
	write, inside string
}

// programs are all of them.
var programs = map[string]program{
	"python": {
		needs: []string{"/usr/bin/python3"}, // which has the distribution's packages
		make: func(t *testing.T, dir string) []string {
			t.Helper()
			if out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import psycopg").CombinedOutput(); err != nil {
				absent(t, false, fmt.Errorf("python3-psycopg: %w\n%s", err, out))
			}
			return []string{"/usr/bin/python3", filepath.Join(dir, "python", "fenced.py")}
		},
		storage: inDatabase, write: "UPDATE fence", inside: "INSERT INTO report",
	},
	"node": {
		needs: []string{"node", "npm"}, rare: true,
		make: func(t *testing.T, dir string) []string {
			t.Helper()
			work := t.TempDir()
			run(t, dir, "cp", "-r", "node/.", work)
			run(t, work, "npm", "ci", "--no-audit", "--no-fund", "--prefer-offline")
			return []string{"node", filepath.Join(work, "fenced.js")}
		},
		storage: inDatabase, write: "UPDATE fence", inside: "INSERT INTO report",
	},
	"java": {
		needs: []string{"javac", "/usr/share/java/postgresql.jar"}, rare: true,
		make: func(t *testing.T, dir string) []string {
			t.Helper()
			work := t.TempDir()
			run(t, filepath.Join(dir, "java"), "javac", "-Xlint:all", "-Werror", "-d", work, "Claim.java", "Fenced.java")
			return []string{"java", "-cp", work + ":/usr/share/java/postgresql.jar", "Fenced"}
		},
		storage: inDatabase, write: "UPDATE fence", inside: "INSERT INTO report",
	},
	"go": {
		needs: []string{"go"},
		make: func(t *testing.T, dir string) []string {
			t.Helper()
			return compiled(t, filepath.Join(dir, "go"), "./postgres")
		},
		storage: inDatabase, write: "UPDATE fence", inside: "INSERT INTO report",
	},
	"s3": {
		needs: []string{"go"},
		make: func(t *testing.T, dir string) []string {
			t.Helper()
			return compiled(t, filepath.Join(dir, "go"), "./s3")
		},
		storage: inBucket, write: "PUT /",
	},
}

// absent skips a test, which does not happen in CI, or for rare programs in `make examples`.
func absent(t *testing.T, rare bool, err error) {
	t.Helper()
	if os.Getenv("EXAMPLES") == "all" || os.Getenv("CI") == "true" && !rare {
		t.Fatal("not tested without it:", err)
	}
	t.Skip("not tested without it:", err)
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), embedded.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func compiled(t *testing.T, dir, pkg string) []string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	run(t, dir, "go", "build", "-o", program, pkg)
	return []string{program}
}

// TestFencing runs each program as two candidates with sidecars of their own. No write may follow one with a higher token.
func TestFencing(t *testing.T) {
	t.Parallel()
	for name, program := range programs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, need := range program.needs {
				if _, err := exec.LookPath(need); err != nil && !strings.HasSuffix(need, ".jar") {
					absent(t, program.rare, err)
				} else if _, err := os.Stat(need); err != nil && strings.HasSuffix(need, ".jar") {
					absent(t, program.rare, err)
				}
			}
			fencing(t, name, program, filepath.Join(root(t), "examples", "fencing"))
		})
	}
}

func fencing(t *testing.T, lock string, program program, dir string) {
	t.Helper()
	store, command := program.storage(t), program.make(t, dir)
	a, b := newCandidate(t, "a", lock, store), newCandidate(t, "b", lock, store)
	var leaders []string

	// The very first write is held up on its way. A claim has more than one write.
	held := a.link.hold(program.write)
	a.run(command)
	first := a.app.says("leading with token ")
	await(t, "the first write to be held", held)
	b.run(command)
	b.app.says("standing by")
	a.resign()
	second := b.app.says("wrote with token ")
	if again := b.app.says("wrote with token "); again != second {
		t.Errorf("token %s became %s within a claim", second, again)
	}

	// It is refused when it arrives, though its pod leads again by then: it belongs to the claim that is over. So is one that is held up
	// when others have been made.
	held = b.link.hold(program.write)
	await(t, "a write to be held", held)
	b.resign()
	a.leads()
	a.link.release()
	if line, want := a.app.says(""), "refused: a later leader than that of token "+first+" has written"; line != want {
		t.Errorf("of the late write %q is said, not %q", line, want)
	}
	third := a.app.says("wrote with token ")
	b.link.release()
	b.app.says("refused: a later leader than that of token " + second)
	b.app.says("standing by")
	leaders = append(leaders, second, third)

	// A transaction that has raised the fence comes before the next leader's, which waits for it.
	leader, standby := a, b
	if program.inside != "" {
		held = a.link.hold(program.inside)
		await(t, "a transaction to be held", held)
		a.resign()
		store.waits()
		a.link.release()
		leaders = append(leaders, b.app.says("wrote with token "))
		leader, standby = b, a
	}

	// A leader is frozen, sidecar first, until its lease has run out. Thawed beside a sidecar that is still frozen, it has to see that its
	// claim is over.
	leader.sidecar.signal(syscall.SIGSTOP)
	leader.app.signal(syscall.SIGSTOP)
	standby.app.says("leading with token ")
	leaders = append(leaders, standby.app.says("wrote with token "))
	leader.app.signal(syscall.SIGCONT)
	leader.app.says("standing by")
	leader.sidecar.signal(syscall.SIGCONT)

	tokens := store.tokens()
	if !slices.IsSorted(tokens) {
		t.Errorf("the tokens of writes are %v", tokens)
	}
	for _, want := range leaders {
		if n, err := strconv.ParseInt(want, 10, 64); err != nil || !slices.Contains(tokens, n) {
			t.Errorf("the tokens of writes are %v, without %s", tokens, want)
		}
	}
	t.Logf("leaders had tokens %s, %s; %d writes came through", first, strings.Join(leaders, ", "), len(tokens))
}

// A transaction that raised the fence and then hangs, as of a leader that froze, holds up the next leader for as long as schema.sql says,
// and is not committed.
func TestFrozenTransaction(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.session("BEGIN; UPDATE fence SET token = 7 WHERE name = 'report' AND token <= 7; INSERT INTO report (token, writer) VALUES (7, 'frozen');")
	d.query("UPDATE fence SET token = 9 WHERE name = 'report' AND token <= 9")
	if got := d.query("SELECT token, (SELECT count(*) FROM report) FROM fence"); got != "9|0" {
		t.Errorf("token and number of lines are %s", got)
	}
}

// A late write that comes while the next leader's transaction has raised the fence, but is not over, waits for it, and is refused.
func TestLateInTransaction(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.patient()
	next := d.session("BEGIN; UPDATE fence SET token = 9 WHERE name = 'report' AND token <= 9;")
	late := make(chan string, 1)
	go func() {
		sql := "UPDATE fence SET token = 7 WHERE name = 'report' AND token <= 7 RETURNING token"
		out, err := exec.CommandContext(t.Context(), d.psql(), "-qtAc", sql, d.url(d.name)).CombinedOutput()
		late <- fmt.Sprint(string(out), err)
	}()
	d.waits()
	next("COMMIT;")
	if got := <-late; got != "<nil>" {
		t.Errorf("late, it has %s", got)
	}
	if got := d.query("SELECT token FROM fence"); got != "9" {
		t.Errorf("the token is %s", got)
	}
}

// candidate is a sidecar, and a program beside it, which reaches its storage by a link.
type candidate struct {
	t            *testing.T
	name         string
	flags, env   []string // the sidecar's and the program's
	sidecar, app *process
	link         *link
	url          string
}

func newCandidate(t *testing.T, name, lock string, store storage) *candidate {
	t.Helper()
	dir, app := t.TempDir(), freeAddress(t)
	c := &candidate{t: t, name: name, link: newLink(t, store.address()), url: "http://" + app}
	c.env = append(store.env(c.link.address()), "POD_NAME="+name, "ELECTOR_STATUS_DIR="+dir)
	c.flags = []string{
		"--namespace=default", "--lock=" + lock, "--identity=" + elector.Identity(name, "uid-of-"+name), "--status-dir=" + dir,
		"--http-address=" + app, "--health-address=" + freeAddress(t), "--kubeconfig=" + cluster.Kubeconfig(),
		"--lease-duration=3s", "--renew-deadline=2s", "--retry-period=500ms",
	}
	return c
}

// run starts the sidecar and the program.
func (c *candidate) run(command []string) {
	c.t.Helper()
	c.sidecar = start(c.t, c.name+"'s sidecar", nil, cluster.Program("elector"), c.flags...)
	c.app = start(c.t, c.name+"'s program", c.env, command[0], command[1:]...)
}

func (c *candidate) resign() {
	c.t.Helper()
	response, err := http.Post(c.url+"/resign", "", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		c.t.Fatal("asked to resign, the sidecar answers", response.Status)
	}
}

// leads waits until the sidecar says that its pod leads.
func (c *candidate) leads() {
	c.t.Helper()
	cluster.Eventually(c.t, c.name+" to lead", func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/leader", http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}
