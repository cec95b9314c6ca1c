//go:build integration

package examples

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// manifests are the files of examples/, and what is to be seen of each when it has been applied as it stands.
var manifests = map[string]func(*space){
	"deployment.yaml": func(s *space) {
		s.kubectl("rollout", "status", "deployment/web")
		leader := s.leader("web", "")
		s.answered(leader)
		for _, pod := range s.pods(s.t.Context(), "web") {
			status, _ := s.ask(s.t.Context(), "http://"+s.address(pod)+":8080/cgi-bin/who")
			if want := map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[pod.Name == leader]; status != want {
				s.t.Errorf("%s answers %d, want %d, %s leads", pod.Name, status, want, leader)
			}
		}
		s.kubectl("delete", "pod", leader)
		s.answered(s.leader("web", leader))
		s.allowed("web")
	},
	"statefulset.yaml": func(s *space) {
		s.kubectl("rollout", "status", "statefulset/store")
		leader := s.leader("store", "")
		s.says(leader, "primary")
		for _, name := range []string{"store-0", "store-1", "store-2"} {
			if name != leader {
				s.says(name, "copy of "+leader+".store")
			}
		}
		s.endpoints("store", 3)
		s.endpoints("store-primary", 1)
		s.kubectl("rollout", "restart", "statefulset/store")
		s.kubectl("rollout", "status", "statefulset/store")
		s.says(s.leader("store", ""), "primary")
		s.allowed("store")
	},
	"cronjob.yaml": func(s *space) {
		runs := []string{"first", "second"}
		for _, run := range runs {
			s.kubectl("create", "job", "--from=cronjob/report", run)
		}
		for _, run := range runs {
			s.kubectl("wait", "--for=condition=complete", "--timeout=80s", "job/"+run)
		}
		s.apart(runs)
	},
	"leader-for-life.yaml": func(s *space) {
		s.kubectl("rollout", "status", "deployment/worker")
		leader := s.leader("worker", "")
		s.says(leader, "working")
		for _, pod := range s.pods(s.t.Context(), "worker") {
			if log := s.log(pod.Name); pod.Name != leader && log != "standing by\n" {
				s.t.Errorf("%s leads, and %s says %q", leader, pod.Name, log)
			}
		}
		next := s.handOver("worker-lock")
		leader = s.other("worker", next)
		s.says(next, "working")
		s.eventually(leader+" to stand by", func(context.Context) error {
			if log := s.log(leader); log != "standing by\n" {
				return errors.New("it says " + log)
			}
			return nil
		})
		s.kubectl("delete", "pod", next)
		s.says(s.leader("worker", next), "working")
	},
}

func TestManifests(t *testing.T) {
	t.Parallel()
	lookFor(t, "busybox")
	files, err := filepath.Glob(filepath.Join(root(t), "examples", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no manifests in examples/", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check := manifests[name]
			if check == nil {
				t.Fatal("nothing is known of this file")
			}
			s := newSpace(t)
			s.apply(name)
			check(s)
		})
	}
}

// The shell function in the manifests is the README's, which has tests of its own.
func TestFunction(t *testing.T) {
	t.Parallel()
	function := regexp.MustCompile(`(?ms)^ *leads\(\) \{\n.*?^ *\}\n`)
	readme := function.FindString(read(t, "README.md"))
	if readme == "" {
		t.Fatal("the README has no function leads in shell")
	}
	got := function.FindString(read(t, "examples", "deployment.yaml"))
	if undent := regexp.MustCompile(`(?m)^ +`).ReplaceAllString(got, ""); undent != readme {
		t.Errorf("deployment.yaml has\n%s\nand the README\n%s", undent, readme)
	}
}

func (s *space) pods(ctx context.Context, app string) []corev1.Pod {
	s.t.Helper()
	list, err := cluster.Client().CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		s.t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// address is where the pod can be reached from here: the cluster's range is 127.X.0.0/16, and the API is told 10.X.0.0/16.
func (s *space) address(pod corev1.Pod) string {
	return "127." + strings.TrimPrefix(pod.Status.PodIP, "10.")
}

// handOver asks for handovers until one takes place, and returns who leads then. One that is asked of a leader whose right to watch its lock
// came late may fail.
func (s *space) handOver(lock string) (leader string) {
	s.t.Helper()
	s.eventually("a handover of "+lock, func(ctx context.Context) error {
		for _, command := range []string{"switchover", "leader"} {
			cmd := exec.CommandContext(ctx, cluster.Program("kubectl-elector"), "--kubeconfig", cluster.Kubeconfig(), "-n", s.name, command, lock)
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			leader = strings.TrimSpace(string(out))
		}
		return nil
	})
	return leader
}

// other is the one of two pods that is not named.
func (s *space) other(app, not string) string {
	s.t.Helper()
	pods := slices.DeleteFunc(s.pods(s.t.Context(), app), func(p corev1.Pod) bool { return p.Name == not })
	if len(pods) != 1 {
		s.t.Fatalf("there are %d other pods", len(pods))
	}
	return pods[0].Name
}

func (s *space) log(pod string) string {
	s.t.Helper()
	log, err := cluster.Client().CoreV1().Pods(s.name).GetLogs(pod, &corev1.PodLogOptions{Container: strings.SplitN(pod, "-", 2)[0]}).DoRaw(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(log)
}

// ask is a client without kept connections. Its status is 0 if nobody answers.
func (s *space) ask(ctx context.Context, url string) (status int, text string) {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, strings.TrimSpace(string(body))
}

// service is the URL at which the Service web answers.
func (s *space) service() string {
	s.t.Helper()
	service, err := cluster.Client().CoreV1().Services(s.name).Get(s.t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return "http://" + service.Spec.ClusterIP + ":8080/cgi-bin/who"
}

// answered waits until the Service web answers with the leader.
func (s *space) answered(leader string) {
	s.t.Helper()
	url := s.service()
	s.eventually("the Service to answer with "+leader, func(ctx context.Context) error {
		if status, text := s.ask(ctx, url); status != http.StatusOK || text != "leader "+leader {
			return fmt.Errorf("it answers %d %s", status, text)
		}
		return nil
	})
}

// endpoints waits until a Service has so many that are ready.
func (s *space) endpoints(service string, want int) {
	s.t.Helper()
	s.eventually("endpoints of "+service, func(ctx context.Context) error {
		list, err := cluster.Client().DiscoveryV1().EndpointSlices(s.name).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
		if err != nil {
			return err
		}
		n := 0
		for _, slice := range list.Items {
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready != nil && *endpoint.Conditions.Ready {
					n++
				}
			}
		}
		if n != want {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
}

// allowed waits until a PodDisruptionBudget allows the one disruption that it does when all are healthy, standbys too.
func (s *space) allowed(budget string) {
	s.t.Helper()
	s.eventually("the budget "+budget, func(ctx context.Context) error {
		b, err := cluster.Client().PolicyV1().PodDisruptionBudgets(s.name).Get(ctx, budget, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if b.Status.DisruptionsAllowed != 1 {
			return fmt.Errorf("it allows %d disruptions of %d healthy pods", b.Status.DisruptionsAllowed, b.Status.CurrentHealthy)
		}
		return nil
	})
}

// apart checks by the logs of Jobs that all worked, and none while another did.
func (s *space) apart(jobs []string) {
	s.t.Helper()
	type run struct{ begin, end time.Time }
	var runs []run
	for _, job := range jobs {
		lines := strings.Split(strings.TrimSpace(s.kubectl("logs", "job/"+job, "-c", "report")), "\n")
		var r run
		for i, at := range []*time.Time{&r.begin, &r.end} {
			var err error
			stamp, said, _ := strings.Cut(append(lines, "", "")[i], " ")
			if *at, err = time.Parse(time.RFC3339, stamp); err != nil || said != []string{"working", "done"}[i] {
				s.t.Fatalf("the run %s says %q", job, lines)
			}
		}
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(a, b run) int { return a.begin.Compare(b.begin) })
	for i := range runs[1:] {
		if runs[i+1].begin.Before(runs[i].end) {
			s.t.Errorf("two runs work at a time: %v", runs)
		}
	}
}
