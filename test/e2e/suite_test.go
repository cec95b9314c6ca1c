//go:build e2e

package e2e

import (
	"fmt"
	"sync"
	"testing"

	"github.com/elector-io/elector/test/history"
)

// scenario is one that has a namespace of its own, or some.
type scenario struct {
	name string
	test func(*testing.T)
}

// besides runs scenarios at the same time.
func besides(t *testing.T, scenarios []scenario) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.test(t)
		})
	}
}

// atOnce has tests that break a node each do so when all of them are ready for it: those that E2E_RUN leaves out are not waited for, nor
// those that failed before. So many have to run in parallel.
func atOnce(t *testing.T, tests map[string]func(t *testing.T, atOnce func())) {
	var preparing sync.WaitGroup
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			preparing.Add(1)
			prepared := sync.OnceFunc(preparing.Done)
			t.Cleanup(prepared)
			t.Parallel() // from here on all are counted
			test(t, func() {
				prepared()
				preparing.Wait()
			})
		})
	}
}

// TestElector runs all scenarios in an order: first those that leave each other and the manager alone, together; then, while the manager is
// replaced, upgraded and rolled back and its certificates are rotated, those that need it for no more than admission and grants; then those
// that break a worker each, at once; then those that break more, or take the manager away, one by one; at last the check of everything that
// was logged.
func TestElector(t *testing.T) {
	t.Run("together", func(t *testing.T) {
		besides(t, []scenario{
			{"CronJob", testCronJob}, // waits for the next minute
			{"HelmTest", testHelmTest},
			{"Policy", testPolicy},
			{"Annotate", testAnnotate},
			{"KillSidecar", testKillSidecar}, // costs the claim if a manager that is new notes who is next meanwhile
			{"SidecarOutOfMemory", testSidecarOutOfMemory},
			{"AllSick", testAllSick},
			{"CrashLoop", testCrashLoop},
			{"ImagePull", testImagePull},
			{"InitHangs", testInitHangs},
			{"ReadinessLost", testReadinessLost},
			{"Gate", testGate},
		})
	})
	t.Run("meanwhile", func(t *testing.T) {
		besides(t, []scenario{
			{"UpgradeRotateRollBack", testUpgrade}, // takes the longest
			{"DeleteLeader", testDeleteLeader},
			{"Switchover", testSwitchover},
			{"Evict", testEvict},
			{"RollingUpdate", testRollingUpdate},
			{"Job", testJob},
			{"StatefulSet", testStatefulSet},
			{"Restricted", testRestricted},
			{"InitContainers", testInitContainers},
			{"Mesh", testMesh},
			{"DebugCopy", testDebugCopy},
		})
	})
	t.Run("apart", func(t *testing.T) {
		atOnce(t, map[string]func(*testing.T, func()){"CutOff": testCutOff, "NodePaused": testNodePaused})
	})
	t.Run("alone", func(t *testing.T) {
		for _, s := range []scenario{
			{"ManagerAway", testManagerAway},
			{"WebhookRollout", testWebhookRollout},
			{"Forged", testForged},
			{"Drain", testDrain},
			{"APIServerRestart", testAPIServerRestart},
			{"EtcdPaused", testEtcdPaused},
			{"NodeStopped", testNodeStopped},
			{"Uninstall", testUninstall},
		} {
			t.Run(s.name, s.test)
		}
	})
	t.Run("History", testHistory)
	if *update && !t.Failed() {
		writeFigures(t)
	}
}

// testHistory checks all that candidates and applications have logged since the suite began.
func testHistory(t *testing.T) {
	if err := awaitNoNamespaces(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := readPast("")
	if err != nil {
		t.Fatal(err)
	}
	for _, view := range []struct {
		name   string
		claims []history.Claim
	}{{"the sidecars", p.made}, {"the applications", p.seen}, {"the applications that asked by HTTP", p.heard}} {
		r := history.Check(view.claims)
		for _, fault := range r.Faults {
			t.Error(view.name+":", fault)
		}
		figure("History check", "", "in the logs of "+view.name, fmt.Sprintf("%s, %s, %s, %s", count(r.Locks, "lock"), count(r.Claims, "claim"), count(r.Handovers, "handover"), count(len(r.Faults), "fault")))
		if r.Handovers > 0 {
			figure("History check", "", "shortest time between two claims on one lock, in the logs of "+view.name, seconds(r.Gap))
		}
		if r.Claims == 0 {
			t.Error("there is nothing to check in the logs of " + view.name)
		}
	}
	for _, fault := range append(history.CheckSeen(p.seen, p.made), history.CheckSeen(p.heard, p.made)...) {
		t.Error(fault)
	}
	for i := range p.made {
		// All pods of workloads are gone; the manager goes on.
		if c := &p.made[i]; c.Open || c.Identity == "" {
			t.Error("nothing tells when this claim ended:", c)
		}
	}
}
