//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	"github.com/elector-io/elector/test/history"
)

// TestElector runs all scenarios in an order: first those that leave each other alone, together; then those that change the
// manager or break nodes, one by one; at last the check of everything that was logged.
func TestElector(t *testing.T) {
	type scenario struct {
		name string
		test func(*testing.T)
	}
	t.Run("together", func(t *testing.T) {
		for _, s := range []scenario{
			{"CronJob", testCronJob}, // waits for the next minute
			{"HelmTest", testHelmTest},
			{"Policy", testPolicy},
			{"Annotate", testAnnotate},
			{"KillSidecar", testKillSidecar},
			{"SidecarOutOfMemory", testSidecarOutOfMemory},
			{"Evict", testEvict},
			{"RollingUpdate", testRollingUpdate},
			{"Job", testJob},
			{"StatefulSet", testStatefulSet},
			{"Restricted", testRestricted},
			{"InitContainers", testInitContainers},
			{"Mesh", testMesh},
			{"DebugCopy", testDebugCopy},
			{"CrashLoop", testCrashLoop},
			{"ReadinessLost", testReadinessLost},
			{"ImagePull", testImagePull},
			{"InitHangs", testInitHangs},
			{"AllSick", testAllSick},
		} {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				s.test(t)
			})
		}
	})
	t.Run("alone", func(t *testing.T) {
		for _, s := range []scenario{
			{"DeleteLeader", testDeleteLeader},
			{"Switchover", testSwitchover},
			{"ManagerAway", testManagerAway},
			{"WebhookRollout", testWebhookRollout},
			{"Forged", testForged},
			{"Drain", testDrain},
			{"CutOff", testCutOff},
			{"NodePaused", testNodePaused},
			{"APIServerRestart", testAPIServerRestart},
			{"EtcdPaused", testEtcdPaused},
			{"NodeStopped", testNodeStopped},
			{"UpgradeRotateRollBack", testUpgrade}, // leaves a CA that ends soon
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
