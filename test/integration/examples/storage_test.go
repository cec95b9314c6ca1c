//go:build integration

package examples

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elector-io/elector/test/embedded"
)

// server is a PostgreSQL that all tests share, started for the first one.
type server struct {
	bin, dir, address string
	cmd               *exec.Cmd
}

var postgres struct {
	sync.Mutex
	*server
}

// stopPostgres stops the server, if one was started.
func stopPostgres() error {
	if postgres.server == nil {
		return nil
	}
	if err := postgres.cmd.Process.Signal(syscall.SIGINT); err != nil { // a fast shutdown
		return fmt.Errorf("stopping PostgreSQL: %w", err)
	}
	return errors.Join(postgres.cmd.Wait(), os.RemoveAll(postgres.dir))
}

// startPostgres starts it in a directory of its own. It refuses to run as root, so then it runs as the user that its package made.
func startPostgres(bin string) (s *server, err error) {
	s = &server{bin: bin}
	if s.dir, err = os.MkdirTemp("", "elector-postgres-"); err != nil {
		return nil, err
	}
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		if attributes.Credential, err = credential("postgres"); err != nil {
			return nil, err
		}
		if err := os.Chown(s.dir, int(attributes.Credential.Uid), int(attributes.Credential.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(s.dir, "data")
	initialize := exec.Command(filepath.Join(bin, "initdb"), "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D", data)
	initialize.SysProcAttr, initialize.Dir = attributes, s.dir
	if out, err := initialize.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making a PostgreSQL cluster: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.address = l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(s.address)
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", s.dir, "-h", "127.0.0.1", "-p", port, "-F")
	s.cmd.SysProcAttr, s.cmd.Dir = attributes, s.dir
	return s, s.cmd.Start()
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func (s *server) psql() string { return filepath.Join(s.bin, "psql") }

// database is one of the server's, with what schema.sql makes in it.
type database struct {
	*server
	t    *testing.T
	name string
}

func inDatabase(t *testing.T) storage {
	t.Helper()
	d := newDatabase(t)
	d.patient()
	return d
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		absent(t, false, fmt.Errorf("PostgreSQL of Debian or Ubuntu: %w", exec.ErrNotFound))
	}
	postgres.Lock()
	defer postgres.Unlock()
	if postgres.server == nil {
		if postgres.server, err = startPostgres(filepath.Dir(found[len(found)-1])); err != nil {
			t.Fatal(err)
		}
	}
	d := &database{postgres.server, t, strings.ToLower(strings.ReplaceAll(t.Name(), "/", "_"))}
	for end := time.Now().Add(embedded.Patience); exec.CommandContext(t.Context(), filepath.Join(d.bin, "pg_isready"), "-q", "-d", d.url("postgres")).Run() != nil; {
		if time.Now().After(end) {
			t.Fatal("PostgreSQL does not get ready")
		}
	}
	run(t, ".", d.psql(), "-qc", "CREATE DATABASE "+d.name, d.url("postgres"))
	run(t, filepath.Join(root(t), "examples", "fencing"), d.psql(), "-q", "-v", "ON_ERROR_STOP=1", "-f", "schema.sql", d.url(d.name))
	return d
}

func (d *database) url(name string) string {
	return "postgres://postgres@" + d.server.address + "/" + name + "?sslmode=disable"
}

func (d *database) address() string { return d.server.address }

func (d *database) env(address string) []string {
	rest := address + "/" + d.name + "?sslmode=disable"
	return []string{"DATABASE_URL=postgres://postgres@" + rest, "JDBC_URL=jdbc:postgresql://" + rest + "&user=postgres"}
}

func (d *database) query(sql string) string {
	d.t.Helper()
	return strings.TrimSpace(run(d.t, ".", d.psql(), "-qtAc", sql, d.url(d.name)))
}

// patient gives transactions that are held up in a test longer than schema.sql does. Those of a program that is frozen end, though.
func (d *database) patient() {
	d.t.Helper()
	d.query("ALTER ROLE CURRENT_USER IN DATABASE " + d.name + " SET idle_in_transaction_session_timeout = '30s'")
}

// session begins one with a few statements, which are done when it returns. It can be given more, and ends with the test.
func (d *database) session(sql string) (more func(sql string)) {
	d.t.Helper()
	p := exec.Command(d.psql(), "-q", "-v", "ON_ERROR_STOP=1", d.url(d.name))
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := p.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	lines := bufio.NewReader(out)
	more = func(sql string) {
		d.t.Helper()
		if _, err := io.WriteString(in, sql+"\n\\echo there\n"); err != nil {
			d.t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); err != nil || line != "there\n" {
			d.t.Fatalf("after %s, psql says %q: %v", sql, line, err)
		}
	}
	more(sql)
	return more
}

func (d *database) waits() {
	d.t.Helper()
	sql := "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
	cluster.Eventually(d.t, "a transaction to wait for another", func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, d.psql(), "-qtAc", sql, d.url(d.name)).Output()
		if err != nil {
			return err
		}
		if len(out) == 0 {
			return errors.New("none does")
		}
		return nil
	})
}

func (d *database) tokens() []int64 {
	d.t.Helper()
	return numbers(d.t, d.query("SELECT token FROM report ORDER BY id"))
}

// numbers are those that the lines of a text begin with.
func numbers(t *testing.T, text string) (all []int64) {
	t.Helper()
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// bucket is one of a server of test/s3.
type bucket struct {
	t    *testing.T
	addr string
}

func inBucket(t *testing.T) storage {
	t.Helper()
	b := &bucket{t, freeAddress(t)}
	start(t, "the store", nil, compiled(t, filepath.Join(root(t), "test", "s3"), ".")[0], b.addr, "bucket")
	for end := time.Now().Add(embedded.Patience); ; {
		if conn, err := net.Dial("tcp", b.addr); err == nil {
			conn.Close()
			return b
		}
		if time.Now().After(end) {
			t.Fatal("the store does not get ready")
		}
	}
}

func (b *bucket) address() string { return b.addr }

func (b *bucket) env(address string) []string {
	return []string{"S3_ENDPOINT=" + address, "S3_INSECURE=true", "S3_BUCKET=bucket", "AWS_ACCESS_KEY_ID=me", "AWS_SECRET_ACCESS_KEY=secret"}
}

func (b *bucket) waits() { b.t.Helper(); b.t.Fatal("there are no transactions") }

func (b *bucket) tokens() []int64 {
	b.t.Helper()
	response, err := http.Get("http://" + b.addr + "/bucket/report")
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return numbers(b.t, string(text))
}
