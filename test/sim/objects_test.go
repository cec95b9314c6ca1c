package sim

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/elector-io/elector/elector"
)

// A lock for life that is being deleted and waits for a finalizer, which any controller or hand may add, is no lock: who resigned does
// not claim by it again.
func TestClaimOnALockThatIsBeingDeleted(t *testing.T) {
	onStage(t, elector.ModeLeaderForLife, func(t *testing.T, s *stage) {
		leader, _ := s.leaderAndStandby()
		s.mu.Lock()
		o := s.api.objects["configmaps/"+lockName].clone()
		o.metadata()["finalizers"] = []any{"example.com/backup"}
		if _, err := s.api.update("configmaps", lockName, o); err != nil {
			t.Fatal(err)
		}
		s.mu.Unlock()
		time.Sleep(time.Second)
		if err := leader.process.e.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		s.mu.Lock()
		o = s.api.objects["configmaps/"+lockName].clone()
		s.mu.Unlock()
		if leader.leads() {
			t.Errorf("%s claims by a lock with deletionTimestamp %v", leader.name, o.metadata()["deletionTimestamp"])
		}
		leader.cutOff()
		o.metadata()["finalizers"] = nil // its work is done: the lock goes. Nobody edits the holder.
		s.mu.Lock()
		if _, err := s.api.update("configmaps", lockName, o); err != nil {
			t.Fatal(err)
		}
		s.mu.Unlock()
		time.Sleep(2 * time.Minute)
	})
}

// Nor is it deleted again and again.
func TestDeleteStorm(t *testing.T) {
	onStage(t, elector.ModeLeaderForLife, func(t *testing.T, s *stage) {
		s.mu.Lock()
		if _, err := s.api.create("configmaps", object{"metadata": map[string]any{
			"name": lockName, "namespace": namespace, "labels": map[string]any{"app.kubernetes.io/managed-by": "elector"}, "finalizers": []any{"example.com/backup"},
		}}); err != nil {
			t.Fatal(err)
		}
		s.mu.Unlock()
		counts := map[string]int{}
		s.onRequest = func(_ *pod, r *http.Request) { s.mu.Lock(); counts[r.Method]++; s.mu.Unlock() }
		s.candidate("web-0")
		time.Sleep(10 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := counts["DELETE"] + counts["POST"]; n > 700 {
			t.Errorf("one candidate sent in 10 minutes: %v", counts)
		}
	})
}

// Annotations that leave no room for the note do not stop the election.
func TestHugeAnnotation(t *testing.T) {
	for _, mode := range []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife} {
		t.Run(string(mode), func(t *testing.T) {
			onStage(t, mode, func(t *testing.T, s *stage) {
				resource := map[elector.Mode]string{elector.ModeLease: "leases", elector.ModeLeaderForLife: "configmaps"}[mode]
				leader, standby := s.leaderAndStandby()
				s.edit(resource, func(o object) {
					o.metadata()["annotations"] = map[string]any{"example.com/notes": strings.Repeat("x", 256<<10-30)} // the API takes it
				})
				time.Sleep(2 * time.Minute)
				t.Log(leader.leads(), standby.leads(), s.api.objects[resource+"/"+lockName].metadata()["annotations"].(map[string]any)["elector.io/claim"])
				if !leader.leads() && !standby.leads() {
					t.Error("nobody leads two minutes after somebody put 256 KiB of annotations on the lock")
				}
			})
		})
	}
}

// Between two polls there is a gap: what was not seen in it counts against the lock, as it does for who watches.
func TestPollHidesGaps(t *testing.T) {
	for name, f := range map[string]faults{"polling": {noWatch: true}, "watching (control)": {}} {
		t.Run(name, func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				leader := s.candidate("web-0")
				s.wantLeader(leader, "after start")
				s.initial = f
				x := s.candidate("web-1")
				s.initial = faults{}
				b := s.candidate("web-2")
				time.Sleep(5 * time.Second)
				b.cutOff()
				lost := f
				lost.slowOut = time.Hour
				x.disturbed(lost)   // its writes get lost
				s.terminate(leader) // released in order
				time.Sleep(2100 * time.Millisecond)
				// x has seen that the lock is free, and its write hangs. b takes it.
				b.connect()
				for range 40 {
					time.Sleep(50 * time.Millisecond)
					if b.leads() {
						break
					}
				}
				if !b.leads() {
					t.Error("staging: b does not lead")
					return
				}
				b.cutOff()
				s.edit("leases", func(o object) { o["spec"].(map[string]any)["holderIdentity"] = "" })
				time.Sleep(3 * time.Second)
				x.disturbed(f)
				for range 100 {
					time.Sleep(50 * time.Millisecond)
					if x.leads() && b.leads() && time.Now().Before(*b.status().ValidUntil) {
						t.Errorf("%s and %s lead, until %v", b.name, x.name, b.status().ValidUntil)
						return
					}
				}
			})
		})
	}
}
