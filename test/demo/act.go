package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

const (
	namespace = metav1.NamespaceDefault
	replicas  = 3
	manifest  = "test/demo/web.yaml"
)

// act is one mode, shown with one Deployment.
type act struct {
	app          string // the name of Deployment, label and container
	mode         elector.Mode
	kind, prefix string // of the lock, as kubectl takes and prints it
}

// stage is what an act is played on.
type stage struct {
	act
	cluster *embedded.Cluster
	out     io.Writer
	*timeline
}

// play shows one mode from a plain Deployment to the recovery of a killed sidecar.
func play(ctx context.Context, cluster *embedded.Cluster, out io.Writer, a act) (result, error) {
	t, err := record(ctx, cluster.Client(), a)
	if err != nil {
		return result{}, err
	}
	defer t.close()
	s := &stage{act: a, cluster: cluster, out: out, timeline: t}
	r := result{mode: a.mode}
	if err := s.elect(ctx); err != nil {
		return r, err
	}
	if err := s.deleteLeader(ctx, &r); err != nil {
		return r, err
	}
	if err := s.killSidecar(ctx, &r); err != nil {
		return r, err
	}
	v := s.verdict()
	if len(v.Violations) > 0 {
		return r, errors.New(v.Violations[0].String())
	}
	s.say("In %d claims no two led at a time; the shortest time between two leaders was %s.", v.Claims, v.Gap.Round(time.Millisecond))
	return r, nil
}

// elect takes a plain Deployment to an elected one and shows who leads.
func (s *stage) elect(ctx context.Context) error {
	s.say("A plain Deployment of %d replicas:", replicas)
	if err := s.apply(ctx); err != nil {
		return err
	}
	if err := s.rollout(ctx); err != nil {
		return err
	}
	annotations := "elector.io/enabled=true"
	if s.mode != elector.DefaultMode {
		annotations += " elector.io/mode=" + string(s.mode)
	}
	s.say("One annotation elects a leader among its pods:")
	start := time.Now()
	if err := s.kubectl(ctx, "annotate deployment %s %s", s.app, annotations); err != nil {
		return err
	}
	if err := s.rollout(ctx); err != nil {
		return err
	}
	first, err := s.wait(ctx, start, "an app that leads", func(e event) bool { return e.what == appLeads })
	if err != nil {
		return err
	}
	if err := s.onlyLeader(ctx, first.who); err != nil {
		return err
	}
	label := func(e event) bool { return e.who == first.who && e.what == labelled+appLeads }
	if _, err := s.wait(ctx, start, "the leader's label", label); err != nil {
		return err
	}
	s.say("Who leads, by the API, by the leader's files, and by what the apps say:")
	for _, command := range []string{
		"get pods -l app=" + s.app + " -L elector.io/role",
		"get " + s.kind + " " + inject.DefaultLock(s.app, s.mode),
		fmt.Sprintf("exec %s -c %s -- cat /var/run/elector/leader", first.who, s.app),
		fmt.Sprintf("exec %s -c %s -- cat /var/run/elector/status.json", first.who, s.app),
		fmt.Sprintf("logs -l app=%s -c %s --prefix --tail 1", s.app, s.app),
	} {
		if err := s.kubectl(ctx, "%s", command); err != nil {
			return err
		}
	}
	return nil
}

// deleteLeader deletes the leader's pod and waits for the next.
func (s *stage) deleteLeader(ctx context.Context, r *result) error {
	old := s.leader()
	s.say("The leader is deleted:")
	start := time.Now()
	if err := s.kubectl(ctx, "delete pod %s --wait=false", old); err != nil {
		return err
	}
	free, err := s.wait(ctx, start, "release of the lock", func(e event) bool { return e.who == lockName && e.what == lockFree })
	if err != nil {
		return err
	}
	held, err := s.wait(ctx, free.at, "the next acquisition", func(e event) bool { return e.who == lockName && e.what != lockFree })
	if err != nil {
		return err
	}
	next := strings.TrimPrefix(held.what, lockHeld)
	if next == old {
		return fmt.Errorf("%s got the lock back although it is being deleted", old)
	}
	leads, err := s.wait(ctx, start, "leadership of "+next, func(e event) bool { return e.who == next && e.what == appLeads })
	if err != nil {
		return err
	}
	stops, err := s.wait(ctx, start, "end of the old leader's app", func(e event) bool { return e.who == old && e.what == appStops })
	if err != nil {
		return err
	}
	r.deleted, r.stopped, r.free = leads.at.Sub(start), leads.at.Sub(stops.at), leads.at.Sub(free.at)
	s.print(s.out, start, leads.at)
	if err := s.rollout(ctx); err != nil {
		return err
	}
	return s.onlyLeader(ctx, next)
}

// killSidecar kills the leader's sidecar and shows that the same pod leads on, and nobody else did meanwhile.
func (s *stage) killSidecar(ctx context.Context, r *result) error {
	leader := s.leader()
	// In lease mode the fencing token is written down with the first renewal; what is killed before gets a larger one.
	before, err := s.await(ctx, leader, func(c elector.Status) bool { return c.Renewed == nil || c.Renewed.After(c.Since) })
	if err != nil {
		return err
	}
	s.say("The leader's sidecar is killed:")
	const path = "{.status.initContainerStatuses[0].containerID}"
	id, err := s.output(ctx, "get", "pod", leader, "-o", "jsonpath="+path)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "$ kubectl get pod %s -o jsonpath=%s\n%s\n", leader, path, id)
	pid, err := strconv.Atoi(strings.TrimPrefix(string(id), "process://"))
	if err != nil {
		return fmt.Errorf("the sidecar's container is %q, no process: %w", id, err)
	}
	fmt.Fprintf(s.out, "$ kill -KILL %d\n", pid)
	start := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing the sidecar: %w", err)
	}
	if _, err := s.wait(ctx, start, "restart of the sidecar", func(e event) bool { return e.who == leader && e.what == restarted }); err != nil {
		return err
	}
	after, err := s.await(ctx, leader, func(c elector.Status) bool { return c.Since.After(start) })
	if err != nil {
		return err
	}
	if after.FencingToken != before.FencingToken {
		return fmt.Errorf("the fencing token was %d and is %d: the claim was not resumed", before.FencingToken, after.FencingToken)
	}
	r.killed = after.Since.Sub(start)
	s.add(event{after.Since, leader, fmt.Sprintf("status.json: leader, fencing token %d as before", after.FencingToken)})
	s.print(s.out, start, time.Now())
	for _, e := range s.since(start) {
		if e.what == appLeads && e.who != leader {
			return fmt.Errorf("%s led while the sidecar of %s restarted", e.who, leader)
		}
	}
	return s.onlyLeader(ctx, leader)
}

// onlyLeader waits until one app says that it leads and the others say that they do not, and the lock agrees.
func (s *stage) onlyLeader(ctx context.Context, name string) error {
	pods, err := s.cluster.Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.Set{inject.LabelInjected: "true", "app": s.app}.String()})
	if err != nil {
		return fmt.Errorf("listing the pods: %w", err)
	}
	standbys := 0
	for _, pod := range pods.Items {
		want := appStandsBy
		if pod.Name == name {
			want = appLeads
		}
		if pod.DeletionTimestamp != nil {
			continue
		}
		if want == appStandsBy {
			standbys++
		}
		said := func(event) bool { return s.appSays(pod.Name) == want }
		if _, err := s.wait(ctx, time.Time{}, pod.Name+" saying "+want, said); err != nil {
			return err
		}
	}
	if standbys != replicas-1 {
		return fmt.Errorf("%d standbys beside %s, there should be %d", standbys, name, replicas-1)
	}
	if s.lock() != lockHeld+name {
		return fmt.Errorf("the lock is %s, but the app of %s says that it leads", s.lock(), name)
	}
	return nil
}

// leader is the pod that the lock names.
func (s *stage) leader() string { return strings.TrimPrefix(s.lock(), lockHeld) }

func (s *stage) status(ctx context.Context, pod string) (elector.Status, error) {
	data, err := s.output(ctx, "exec", pod, "-c", s.app, "--", "cat", "/var/run/elector/status.json")
	if err != nil {
		return elector.Status{}, err
	}
	var status elector.Status
	if err := json.Unmarshal(data, &status); err != nil {
		return elector.Status{}, fmt.Errorf("reading status.json: %w", err)
	}
	return status, nil
}

// await reads the pod's status.json until it tells of a claim that is accepted.
func (s *stage) await(ctx context.Context, pod string, accept func(claim elector.Status) bool) (elector.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		status, err := s.status(ctx, pod)
		if err != nil {
			return status, err
		}
		if status.Role == elector.RoleLeader && accept(status) {
			return status, nil
		}
	}
}

func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, "\n# "+format+"\n", args...)
}

// apply applies the manifest, under the act's name.
func (s *stage) apply(ctx context.Context) error {
	root, err := embedded.Root()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(root, manifest))
	if err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	file, command := manifest, "kubectl apply -f "+manifest
	if s.app != "web" {
		file, command = "-", fmt.Sprintf("sed s/web/%s/ %s | kubectl apply -f -", s.app, manifest)
	}
	cmd := s.cluster.Kubectl(ctx, "apply", "-f", file)
	cmd.Dir = root
	cmd.Stdin = bytes.NewReader(bytes.ReplaceAll(data, []byte("web"), []byte(s.app)))
	return s.show(command, cmd.CombinedOutput)
}

// kubectl prints a command as a person would type it, runs it and prints what it says. The words of the command have no spaces in them.
func (s *stage) kubectl(ctx context.Context, format string, args ...any) error {
	command := fmt.Sprintf(format, args...)
	return s.show("kubectl "+command, s.cluster.Kubectl(ctx, strings.Fields(command)...).CombinedOutput)
}

// rollout waits for a rollout. Of what kubectl says meanwhile the last line is shown.
func (s *stage) rollout(ctx context.Context) error {
	return s.show("kubectl rollout status deployment "+s.app, func() ([]byte, error) {
		said, err := s.cluster.Kubectl(ctx, "rollout", "status", "deployment", s.app, "--timeout", patience.String()).CombinedOutput()
		lines := bytes.SplitAfter(said, []byte("\n"))
		lines = slices.DeleteFunc(lines, func(l []byte) bool { return bytes.HasPrefix(l, []byte("Waiting for ")) })
		return bytes.Join(lines, nil), err
	})
}

func (s *stage) show(command string, run func() ([]byte, error)) error {
	fmt.Fprintf(s.out, "$ %s\n", command)
	said, err := run()
	fmt.Fprintf(s.out, "%s", said)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// output runs a command without showing it.
func (s *stage) output(ctx context.Context, args ...string) ([]byte, error) {
	var complaints bytes.Buffer
	cmd := s.cluster.Kubectl(ctx, args...)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), errors.Join(err, errors.New(complaints.String())))
	}
	return out, nil
}
