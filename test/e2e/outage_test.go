//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/history"
	"github.com/elector-io/elector/test/witness"
)

// couple is a pair of candidates in each mode, whose leaders are on the first node and whose standbys are on the second.
type couple struct {
	lease, life             *scene
	leaseLeader, lifeLeader *corev1.Pod
	first                   *node
}

func newCouple(t *testing.T, name string, first, second *node) couple {
	t.Helper()
	c := couple{lease: newScene(t, name, modeLease), life: newScene(t, name, modeLife), first: first}
	scenes := []*scene{c.lease, c.life}
	for _, s := range scenes {
		s.deploy(lock+"-first", 1, on(c.first), elector.FieldLock, lock)
	}
	for _, s := range scenes {
		s.leader(lock, 1)
		s.deploy(lock+"-second", 1, on(second), elector.FieldLock, lock)
	}
	c.leaseLeader, c.lifeLeader = c.lease.leader(lock, 2), c.life.leader(lock, 2)
	c.lease.awaitApp(c.leaseLeader)
	c.life.awaitApp(c.lifeLeader)
	// That is the second workload's pod, the younger one.
	c.lease.noted(lock, 1)
	c.life.noted(lock, 1)
	return c
}

// waits fails the test if the leader for life, whose node is lost, does not stay the holder for the given time from the moment on.
func (c couple) waits(since time.Duration, d time.Duration) {
	c.life.t.Helper()
	if left := d - (boot() - since); left > 0 {
		c.life.stays("the leader for life", left, func() error { return c.life.heldBy(c.lifeLeader) })
	}
	c.life.ok(c.life.heldBy(c.lifeLeader))
}

// checkOneClaim checks that the leader for life has led all the time, alone.
func (c couple) checkOneClaim() {
	c.life.t.Helper()
	p := c.life.past()
	for _, claims := range [][]history.Claim{p.made, p.seen} {
		if len(claims) != 1 || claims[0].UID != string(c.lifeLeader.UID) || claims[0].Reason != "" {
			c.life.t.Errorf("%s did not lead all the time: %v", c.lifeLeader.Name, claims)
		}
	}
}

// The leaders' node is drained.
func testDrain(t *testing.T) {
	c := newCouple(t, "kubectl drain of the leader's node", world.workers[0], world.workers[1])
	begun := boot()
	drained := make(chan error, 1)
	go func() {
		_, err := kubectl(t.Context(), "drain", c.first.name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", "2m")
		drained <- err
	}()
	defer func() {
		_, err := kubectl(t.Context(), "uncordon", c.first.name)
		c.lease.ok(err)
	}()
	for _, s := range []*scene{c.lease, c.life} {
		old := map[*scene]*corev1.Pod{c.lease: c.leaseLeader, c.life: c.lifeLeader}[s]
		before, after, _ := s.succession(lock, old)
		stops := s.stopped(old, "app")
		if stops > before.End {
			t.Errorf("the claim ended %s before the app had stopped", stops-before.End)
		}
		s.figure("claim ends until the next begins", seconds(after.Begin-before.End))
	}
	c.lease.ok(<-drained)
	figure(c.lease.name, "", "until the node is drained", seconds(boot()-begun))
}

// The leaders' node can't reach the API server: the lease's leader file is gone before its successor's appears, while the node is
// still cut off, and nothing is upset when it comes back.
func testCutOff(t *testing.T, atOnce func()) {
	c := newCouple(t, "Leader's node cut off from the API server", world.workers[0], world.control)
	control, err := world.client.CoreV1().Nodes().Get(t.Context(), world.control.name, metav1.GetOptions{})
	c.lease.ok(err)
	api := ""
	for _, address := range control.Status.Addresses {
		if address.Type == corev1.NodeInternalIP && api == "" {
			api = address.Address
		}
	}
	rule := func(action string) string {
		var lines []string
		// Both directions: a watch could still tell of a successor.
		for chain, which := range map[string]string{"OUTPUT": "-d %s --dport 6443", "INPUT": "-s %s --sport 6443"} {
			which = fmt.Sprintf("-p tcp "+which+" -j DROP", api)
			lines = append(lines, "iptables -w "+action+" "+chain+" "+which, "iptables -w "+action+" FORWARD "+which)
		}
		return strings.Join(lines, " && ")
	}
	healed := false
	heal := func() {
		if !healed {
			healed = true
			_, err := c.first.sh(rule("-D"))
			c.lease.ok(err)
		}
	}
	defer heal()
	atOnce()
	_, err = c.first.sh(rule("-I"))
	c.lease.ok(err)
	cut := boot()
	c.lease.step("%s is cut off", c.first.name)
	c.lease.poll("the leader file to go", func() error {
		if file := c.lease.leaderFiles()[c.leaseLeader.UID]; file != "" {
			return errors.New("it is there")
		}
		return nil
	})
	before, after, seen := c.lease.succession(lock, c.leaseLeader)
	if before.Reason != "expired" || before.End > cut+renewDeadline {
		t.Errorf("cut off at %s, renew-deadline %s, but: %s", cut, renewDeadline, &before)
	}
	was, err := last(c.lease.past().seen, lock, c.leaseLeader.UID, false)
	c.lease.ok(err)
	if was.End >= seen.Begin {
		t.Errorf("two apps lead:\n%s\n%s", &was, &seen)
	}
	c.waits(cut, 2*leaseDuration)
	if files := c.life.leaderFiles(); len(files) != 1 || files[c.lifeLeader.UID] == "" {
		t.Errorf("the leader for life is %s, the leader files are %v", c.lifeLeader.Name, files)
	}
	c.lease.figure("cut until the leader's claim ends (renew-deadline 4 s)", seconds(before.End-cut))
	c.lease.figure("cut until the next leader's claim begins (lease-duration 6 s)", seconds(after.Begin-cut))
	c.lease.figure("the leader file is gone before the next one appears, by", seconds(after.Begin-before.End))
	c.life.figure("cut off for", seconds(boot()-cut)+", leads all the time")

	heal()
	c.lease.step("%s is reachable again", c.first.name)
	successor := c.lease.leader(lock, 2)
	c.lease.stays("the successor", leaseDuration, func() error { return c.lease.heldBy(successor) })
	if n := len(c.lease.past().made); n != 2 {
		t.Errorf("there were %d claims, not the leader's and its successor's", n)
	}
	c.checkOneClaim()
	c.lease.figure("after healing", "the successor's claim goes on")
}

// The leaders' node stands still, with all that is in it, and goes on.
func testNodePaused(t *testing.T, atOnce func()) {
	c := newCouple(t, "Leader's node paused (docker pause)", world.workers[1], world.control)
	c.lease.past()
	c.life.past() // what is known while the node can't be asked
	atOnce()
	c.first.close()
	c.lease.ok(c.first.docker(t.Context(), "pause"))
	paused := boot()
	c.lease.step("%s is paused", c.first.name)
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			c.lease.ok(c.first.docker(t.Context(), "unpause"))
			c.lease.ok(c.first.open(t.Context()))
		}
	}
	defer resume()
	c.lease.successor(lock, c.leaseLeader)
	c.waits(paused, 2*leaseDuration)
	went := boot()
	resume()
	c.lease.step("%s goes on", c.first.name)
	before, after, seen := c.lease.succession(lock, c.leaseLeader)
	was, err := last(c.lease.past().seen, lock, c.leaseLeader.UID, false)
	c.lease.ok(err)
	if was.End >= seen.Begin || before.End > paused+renewDeadline {
		t.Errorf("the app led until %s, and again or another from %s on", was.End, seen.Begin)
	}
	c.lease.figure("paused until the next leader's claim begins (lease-duration 6 s)", seconds(after.Begin-paused))
	c.lease.poll("the old leader's file to go", func() error {
		if files := c.lease.leaderFiles(); len(files) != 1 || files[c.leaseLeader.UID] != "" {
			return fmt.Errorf("the leader files are %v", files)
		}
		return nil
	})
	if line, err := c.lease.past().event(c.leaseLeader.UID, witness.EventFollows); err == nil {
		c.lease.figure("going on until the old leader's app knows that it does not lead", seconds(line.Clock-went))
	}
	c.lease.leader(lock, 2)
	c.life.leader(lock, 2)
	c.checkOneClaim()
	c.life.figure("paused for", seconds(went-paused)+", leads on in the same claim")
}

// The leaders' node loses its power and gets it back.
func testNodeStopped(t *testing.T) {
	c := newCouple(t, "Leader's node stopped (docker stop)", world.workers[0], world.workers[1])
	pods, err := world.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + c.first.name})
	c.lease.ok(err)
	var victims []string
	for i := range pods.Items {
		victims = append(victims, string(pods.Items[i].UID))
	}
	c.lease.past()
	c.life.past()
	c.first.close()
	stopped := boot()
	c.lease.ok(c.first.docker(t.Context(), "stop", "--time", "0"))
	died(boot(), victims...)
	c.lease.step("%s is off", c.first.name)
	started := false
	start := func() {
		if !started {
			started = true
			c.lease.ok(c.first.docker(t.Context(), "start"))
			c.lease.ok(c.first.open(t.Context()))
		}
	}
	defer start()
	c.lease.successor(lock, c.leaseLeader)
	_, after, _ := c.lease.succession(lock, c.leaseLeader)
	c.lease.figure("stopped until the next leader's claim begins (lease-duration 6 s)", seconds(after.Begin-stopped))
	c.waits(stopped, 2*leaseDuration)
	c.life.figure("nobody else leads while the Pod object is there", seconds(boot()-stopped))
	deleted := boot()
	c.life.ok(world.client.CoreV1().Pods(c.life.ns).Delete(t.Context(), c.lifeLeader.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	c.life.step("%s is deleted by force", c.lifeLeader.Name)
	_, after, _ = c.life.succession(lock, c.lifeLeader)
	c.life.figure("Pod object deleted until the next leader's claim begins", seconds(after.Begin-deleted))

	back := boot()
	start()
	c.lease.step("%s is on", c.first.name)
	c.lease.await("the old leader's sidecar to be restarted", func() error {
		pod := c.lease.pods[c.leaseLeader.UID]
		if pod == nil || pod.Status.InitContainerStatuses[0].RestartCount == 0 || !isReady(pod) {
			return fmt.Errorf("%s is not", c.leaseLeader.Name)
		}
		return nil
	})
	c.life.leader(lock, 2)
	c.lease.figure("started until the node's candidates are ready again, as standbys", seconds(boot()-back))
	if leader := c.lease.leader(lock, 2); leader.Spec.NodeName == c.first.name {
		t.Errorf("%s took the lock back", leader.Name)
	}
}

// inBoth is a workload in each mode whose leader knows.
func inBoth(t *testing.T, name string) []*scene {
	t.Helper()
	return newElectorate(t, name).scenes
}

// regained waits for all to have a leader whose app has seen a renewal after the outage, and checks all that has happened.
func regained(t *testing.T, scenes []*scene, since, until time.Duration) {
	t.Helper()
	for _, s := range scenes {
		s.poll("a leader's app to know", func() error {
			p := s.past()
			made, err := last(p.made, lock, "", true)
			if err != nil {
				return err
			}
			now, err := last(p.seen, lock, types.UID(made.UID), false)
			if err == nil && (made.Reason != "" || now.Token != made.Token || now.End < until+renewDeadline) {
				err = fmt.Errorf("the last claims are %s and %s", &made, &now)
			}
			return err
		})
		s.leader(lock, 2)
		p := s.past()
		for _, claims := range [][]history.Claim{p.made, p.seen, p.heard} {
			for _, fault := range history.Check(claims).Faults {
				t.Error(fault)
			}
		}
		switch first := p.made[0]; {
		case len(p.made) == 1:
			s.figure("the leader", "leads all the time")
		case s.mode == modeLife:
			t.Errorf("the leader for life stopped: %v", p.made)
		default:
			s.figure("the leader steps down, and there is one again", fmt.Sprintf("%s and %s after the beginning", seconds(first.End-since), seconds(p.made[len(p.made)-1].Begin-since)))
		}
	}
}

// The API server is killed and comes back.
func testAPIServerRestart(t *testing.T) {
	scenes := inBoth(t, "API server restart")
	s := scenes[0]
	begun := boot()
	_, err := world.control.sh("pkill -KILL -x kube-apiserver")
	s.ok(err)
	s.step("the API server is killed")
	s.poll("the API server", func() error {
		_, err := kubectl(t.Context(), "get", "--raw", "/readyz", "--request-timeout", "2s")
		return err
	})
	back := boot()
	figure(s.name, "", "API server away for", seconds(back-begun))
	regained(t, scenes, begun, back)
}

// etcdPause is how long etcd stands still.
const etcdPause = 20 * time.Second

// etcd stands still: nobody can renew.
func testEtcdPaused(t *testing.T) {
	scenes := inBoth(t, "etcd paused for 20 s")
	s := scenes[0]
	_, err := world.control.sh("pkill -STOP -x etcd")
	s.ok(err)
	begun := boot()
	s.step("etcd is paused")
	goesOn := false
	goOn := func() {
		if !goesOn {
			goesOn = true
			_, err := world.control.sh("pkill -CONT -x etcd")
			s.ok(err)
		}
	}
	defer goOn()
	s.stays("etcd's pause", etcdPause, func() error { return nil })
	for _, s := range scenes {
		files := s.leaderFiles()
		if s.mode == modeLease && len(files) > 0 || s.mode == modeLife && len(files) != 1 {
			t.Errorf("%s: the leader files after %s are %v", s.mode, etcdPause, files)
		}
	}
	goOn()
	back := boot()
	figure(s.name, "", "etcd stood still for", seconds(back-begun))
	s.step("etcd goes on")
	regained(t, scenes, begun, back)
}
