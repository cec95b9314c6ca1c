//go:build integration

package examples

import (
	"bufio"
	"context"
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
}

// programs are those of examples/fencing.
var programs = map[string]struct {
	needs []string
	// rare programs need not be there in CI, but for `make examples`.
	rare bool
	// make returns the command.
	make    func(t *testing.T, dir string) []string
	storage func(t *testing.T) storage
	// write is what the program sends when it writes.
	write string
}{
	"python": {
		needs: []string{"/usr/bin/python3"}, // which has the distribution's packages
		make: func(t *testing.T, dir string) []string {
			t.Helper()
			if out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import psycopg").CombinedOutput(); err != nil {
				absent(t, false, fmt.Errorf("python3-psycopg: %w\n%s", err, out))
			}
			return []string{"/usr/bin/python3", filepath.Join(dir, "python", "fenced.py")}
		},
		storage: inDatabase, write: "UPDATE fence",
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
		storage: inDatabase, write: "UPDATE fence",
	},
	"java": {
		needs: []string{"javac", "/usr/share/java/postgresql.jar"}, rare: true,
		make: func(t *testing.T, dir string) []string {
			t.Helper()
			work := t.TempDir()
			run(t, filepath.Join(dir, "java"), "javac", "-Xlint:all", "-Werror", "-d", work, "Claim.java", "Fenced.java")
			return []string{"java", "-cp", work + ":/usr/share/java/postgresql.jar", "Fenced"}
		},
		storage: inDatabase, write: "UPDATE fence",
	},
	"go": {
		needs: []string{"go"},
		make: func(t *testing.T, dir string) []string {
			t.Helper()
			return compiled(t, filepath.Join(dir, "go"), "./postgres")
		},
		storage: inDatabase, write: "UPDATE fence",
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

// TestFencing runs each program as two candidates with sidecars of their own. The leader's write is held up on its way until after a
// handover, and has to be refused. Then the next leader is frozen, sidecar first, until its lease has run out: thawed beside a sidecar that is
// still frozen, it has to see that its claim is over. No write may follow one with a higher token.
func TestFencing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(root(t), "examples", "fencing")
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
			store, command := program.storage(t), program.make(t, dir)

			a := newCandidate(t, "a", name, store, command)
			a.app.says("leading with token ")
			first := a.app.says("wrote with token ")
			b := newCandidate(t, "b", name, store, command)
			b.app.says("standing by")

			// A write that is late.
			held := a.link.hold(program.write)
			await(t, "a write to be held", held)
			a.resign()
			second := b.app.says("wrote with token ")
			a.link.release()
			if refused := a.app.says("refused: a later leader than that of token "); !strings.HasPrefix(refused, first+" ") {
				t.Errorf("token %s was refused as %q", first, refused)
			}
			a.app.says("standing by")

			// A leader that is frozen.
			b.sidecar.signal(syscall.SIGSTOP)
			b.app.signal(syscall.SIGSTOP)
			a.app.says("leading with token ")
			third := a.app.says("wrote with token ")
			b.app.signal(syscall.SIGCONT)
			b.app.says("standing by")
			b.sidecar.signal(syscall.SIGCONT)

			tokens := store.tokens()
			if !slices.IsSorted(tokens) {
				t.Errorf("the tokens of writes are %v", tokens)
			}
			for _, want := range []string{first, second, third} {
				if n, err := strconv.ParseInt(want, 10, 64); err != nil || !slices.Contains(tokens, n) {
					t.Errorf("the tokens of writes are %v, without %s", tokens, want)
				}
			}
			t.Logf("leaders had tokens %s, %s, %s; %d writes came through", first, second, third, len(tokens))
		})
	}
}

// A transaction that raised the fence and then hangs, as of a leader that froze, holds up the next leader for as long as schema.sql says,
// and is not committed.
func TestFrozenTransaction(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	frozen := exec.CommandContext(t.Context(), d.psql(), "-q", d.url(d.name))
	in, err := frozen.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := frozen.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := frozen.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = frozen.Process.Kill(); _ = frozen.Wait() }()
	if _, err := in.Write([]byte("BEGIN; UPDATE fence SET token = 7 WHERE name = 'report' AND token <= 7; INSERT INTO report (token, writer) VALUES (7, 'frozen');\n\\echo there\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "there\n" {
		t.Fatalf("%q %v", line, err)
	}
	d.query("UPDATE fence SET token = 9 WHERE name = 'report' AND token <= 9")
	if got := d.query("SELECT token, (SELECT count(*) FROM report) FROM fence"); got != "9|0" {
		t.Errorf("token and number of lines are %s", got)
	}
}

// candidate is a sidecar, and a program beside it, which reaches its storage by a link.
type candidate struct {
	t            *testing.T
	sidecar, app *process
	link         *link
	url          string
}

func newCandidate(t *testing.T, name, lock string, store storage, command []string) *candidate {
	t.Helper()
	dir, app := t.TempDir(), freeAddress(t)
	c := &candidate{t: t, link: newLink(t, store.address()), url: "http://" + app}
	c.sidecar = start(t, name+"'s sidecar", nil, cluster.Program("elector"),
		"--namespace=default", "--lock="+lock, "--identity="+elector.Identity(name, "uid-of-"+name), "--status-dir="+dir,
		"--http-address="+app, "--health-address="+freeAddress(t), "--kubeconfig="+cluster.Kubeconfig(),
		"--lease-duration=3s", "--renew-deadline=2s", "--retry-period=500ms")
	env := append(store.env(c.link.address()), "POD_NAME="+name, "ELECTOR_STATUS_DIR="+dir)
	c.app = start(t, name+"'s program", env, command[0], command[1:]...)
	return c
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
