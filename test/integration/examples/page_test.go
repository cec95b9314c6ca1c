//go:build integration

package examples

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/test/embedded"
)

// TestPage does what docs/active-passive.md says, block after block as they stand there.
func TestPage(t *testing.T) {
	t.Parallel()
	lookFor(t, "bash", "busybox")
	blocks := regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(read(t, "docs", "active-passive.md"), -1)
	if len(blocks) < 2 {
		t.Fatal("the page has no blocks")
	}
	s := newSpace(t)
	for _, block := range blocks {
		switch language, text := block[1], block[2]; language {
		case "sh":
			t.Logf("%s\n%s", text, s.shell(text))
		case "yaml":
			if !slices.ContainsFunc([]string{"deployment.yaml"}, func(file string) bool { return strings.Contains(read(t, "examples", file), text) }) {
				t.Errorf("examples/deployment.yaml does not have\n%s", text)
			}
		default:
			t.Errorf("nobody runs a block of %q\n%s", language, text)
		}
	}
}

// An installation that waits until all replicas are Ready ends, with two of them standbys, and so does an upgrade.
func TestHelmWait(t *testing.T) {
	t.Parallel()
	lookFor(t, "busybox")
	s := newSpace(t)
	chart := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(chart, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n")
	manifest := read(t, "examples", "deployment.yaml")
	write("templates/web.yaml", manifest)
	t.Log(s.shell("helm install web " + chart + " --wait --timeout 80s"))
	s.answered(s.leader("web", ""))
	changed := strings.Replace(manifest, "labels: {app: web}\n    spec:", "labels: {app: web, version: \"2\"}\n    spec:", 1)
	if changed == manifest {
		t.Fatal("there is no such label")
	}
	write("templates/web.yaml", changed)
	t.Log(s.shell("helm upgrade web " + chart + " --wait --timeout 80s"))
	s.answered(s.leader("web", ""))
}

// The leader is evicted as `kubectl drain` does it: the budget lets it go, and then nobody else until it has been replaced.
func TestEviction(t *testing.T) {
	t.Parallel()
	lookFor(t, "busybox")
	s := newSpace(t)
	s.apply("deployment.yaml")
	s.kubectl("rollout", "status", "deployment/web")
	s.allowed("web")
	leader := s.leader("web", "")
	if err := s.evict(leader); err != nil {
		t.Fatal(err)
	}
	s.answered(s.leader("web", leader))
	s.allowed("web")
}

func (s *space) evict(pod string) error {
	return cluster.Client().PolicyV1().Evictions(s.name).Evict(s.t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: s.name}})
}

// TestManagerAway is alone with the manager. Without it elections go on, and labels stay as they were: connections reach a standby,
// which refuses to serve, until the manager is back.
func TestManagerAway(t *testing.T) {
	lookFor(t, "busybox")
	s := newSpace(t)
	s.apply("deployment.yaml")
	s.kubectl("rollout", "status", "deployment/web")
	old := s.leader("web", "")
	s.answered(old)
	scale := []string{"-n", "elector-system", "scale", "deployment/elector-webhook", "--replicas"}
	back := func() ([]byte, error) {
		return cluster.Kubectl(context.WithoutCancel(t.Context()), append(scale, "2")...).CombinedOutput()
	}
	t.Cleanup(func() {
		if out, err := back(); err != nil {
			t.Errorf("bringing the manager back: %v\n%s", err, out)
		}
	})
	s.kubectl(append(scale, "0")...)
	s.kubectl("-n", "elector-system", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=elector", "--timeout=60s")
	s.resign(old)
	next := ""
	s.eventually("another leader", func(ctx context.Context) error {
		for _, pod := range s.pods(ctx, "web") {
			if status, text := s.ask(ctx, "http://"+s.address(pod)+":8080/cgi-bin/who"); status == http.StatusOK && pod.Name != old {
				next = pod.Name
				return nil
			} else if pod.Name == old && status == http.StatusOK {
				return fmt.Errorf("%s still serves: %s", old, text)
			}
		}
		return errors.New("nobody serves")
	})
	if status, text := s.ask(t.Context(), s.service()); status != http.StatusServiceUnavailable || text != "standby "+old {
		t.Errorf("%s leads, and the Service answers %d %s", next, status, text)
	}
	if out, err := back(); err != nil {
		t.Fatalf("bringing the manager back: %v\n%s", err, out)
	}
	s.answered(next)
	s.kubectl("-n", "elector-system", "rollout", "status", "deployment/elector-webhook")
}

func (s *space) resign(pod string) {
	s.t.Helper()
	s.kubectl("exec", pod, "-c", "web", "--", "sh", "-c", `busybox wget -qO- --post-data= "$ELECTOR_URL/resign"`)
}

// answer is one that a client of the Service got.
type answer struct {
	asked, got time.Duration
	status     int
	text       string
}

var handovers = flag.Int("handovers", 3, "how many of each kind TestHandover makes and logs")

// TestHandover asks the Service all the time while leaders resign and are deleted, each time by a new connection. What it logs is in
// docs/active-passive.md. The page is served by whoever leads, so each leader's answers are of one piece.
func TestHandover(t *testing.T) {
	t.Parallel()
	lookFor(t, "busybox")
	s := newSpace(t)
	s.apply("deployment.yaml")
	s.kubectl("rollout", "status", "deployment/web")
	leader := s.leader("web", "")
	s.answered(leader)
	for name, change := range map[string]func(string){
		"resigned": s.resign,
		"deleted":  func(pod string) { s.kubectl("delete", "pod", pod, "--wait=false") },
	} {
		for range *handovers {
			answers := s.during(func() string {
				change(leader)
				return s.leader("web", leader)
			})
			next := strings.TrimPrefix(answers[len(answers)-1].text, "leader ")
			t.Logf("%s: %s", name, tally(t, answers, leader, next))
			leader = next
			s.kubectl("rollout", "status", "deployment/web")
		}
	}
}

// during asks the Service every few milliseconds while change, which returns the next leader, is under way, and until that has answered.
func (s *space) during(change func() (next string)) (answers []answer) {
	s.t.Helper()
	url, begun, all := s.service(), time.Now(), make(chan []answer)
	ctx, cancel := context.WithTimeout(s.t.Context(), embedded.Patience)
	defer cancel()
	var next atomic.Pointer[string]
	go func() {
		var answers []answer
		for tick := time.NewTicker(2 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			want, asked := next.Load(), time.Since(begun)
			status, text := s.ask(ctx, url)
			answers = append(answers, answer{asked, time.Since(begun), status, text})
			if want != nil && status == http.StatusOK && text == "leader "+*want {
				break
			}
		}
		all <- answers
	}()
	leader := change()
	next.Store(&leader)
	if answers = <-all; ctx.Err() != nil {
		s.t.Fatalf("%s leads, and the Service's last answer of %d is %v", leader, len(answers), answers[len(answers)-1])
	}
	return answers
}

// tally checks that the old leader served, then nobody, then the next one, and says for how long.
func tally(t *testing.T, answers []answer, old, next string) string {
	t.Helper()
	var lastOld, firstNext time.Duration
	refused, standby := 0, 0
	for _, a := range answers {
		switch {
		case a.status == 0:
			refused++
		case a.status == http.StatusServiceUnavailable:
			standby++
		case a.text == "leader "+old:
			if firstNext != 0 {
				t.Errorf("%s serves after %s", old, next)
			}
			lastOld = a.asked
		case a.text == "leader "+next:
			if firstNext == 0 {
				firstNext = a.got
			}
		default:
			t.Errorf("somebody else than %s and %s answers: %d %s", old, next, a.status, a.text)
		}
	}
	return fmt.Sprintf("nobody served for %s; %d connections failed, %d were answered by a standby", (firstNext - lastOld).Round(time.Millisecond), refused, standby)
}
