package processlet

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/test/cluster/internal/sandbox"
)

func TestChooseNode(t *testing.T) {
	node := func(name string, change func(*v1.Node)) *v1.Node {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}}}
		if change != nil {
			change(n)
		}
		return n
	}
	only := func(name string) *v1.Affinity {
		return &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{
			{MatchFields: []v1.NodeSelectorRequirement{{Key: "metadata.name", Operator: v1.NodeSelectorOpIn, Values: []string{name}}}}}}}}
	}
	taint := func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}} }
	cordon := func(n *v1.Node) { n.Spec.Unschedulable = true }
	two := []*v1.Node{node("a", nil), node("b", nil)}
	tests := map[string]struct {
		reason string
		spec   v1.PodSpec
		nodes  []*v1.Node
		bound  map[types.UID]string
		want   string
	}{
		"First":      {reason: "the first by name when all are equal", nodes: two, want: "a"},
		"Emptiest":   {reason: "the one with the fewest pods", nodes: two, bound: map[types.UID]string{"1": "a"}, want: "b"},
		"DaemonSet":  {reason: "a DaemonSet's pod names its node", spec: v1.PodSpec{Affinity: only("b")}, nodes: two, want: "b"},
		"Selector":   {reason: "the node selector must match", spec: v1.PodSpec{NodeSelector: map[string]string{v1.LabelHostname: "b"}}, nodes: two, want: "b"},
		"Tainted":    {reason: "a taint keeps pods away", nodes: []*v1.Node{node("a", taint), node("b", nil)}, want: "b"},
		"Tolerating": {reason: "unless tolerated", spec: v1.PodSpec{Tolerations: []v1.Toleration{{Operator: v1.TolerationOpExists}}}, nodes: []*v1.Node{node("a", taint)}, want: "a"},
		"Cordoned":   {reason: "a cordoned node takes no pods", nodes: []*v1.Node{node("a", cordon)}, want: ""},
		"None":       {reason: "nothing fits", spec: v1.PodSpec{Affinity: only("c")}, nodes: two, want: ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := choose(&v1.Pod{Spec: tc.spec}, tc.nodes, tc.bound); got != tc.want {
				t.Errorf("%s: got %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}

func TestBackoffDoublesToItsMaximum(t *testing.T) {
	var got []time.Duration
	for crashes := range 8 {
		got = append(got, backoff(crashes)/time.Second)
	}
	if diff := cmp.Diff([]time.Duration{0, 1, 2, 4, 8, 16, 30, 30}, got); diff != "" {
		t.Errorf("seconds before each restart (-want +got):\n%s", diff)
	}
}

func TestBackoffForgetsAfterAHealthyRun(t *testing.T) {
	begin := time.Now()
	c := &container{spec: &v1.Container{}, crashes: 5, run: &run{startedAt: begin, exit: sandbox.Exit{At: begin.Add(healthyRun)}}}
	if c.backOff(); !c.notBefore.Equal(c.run.exit.At) {
		t.Errorf("restart %s after the end, want at once", c.notBefore.Sub(c.run.exit.At))
	}
}

func TestRestartable(t *testing.T) {
	always, never := v1.ContainerRestartPolicyAlways, v1.ContainerRestartPolicyNever
	rule := []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestart,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{75}}}}
	tests := map[string]struct {
		reason string
		kind   kind
		spec   v1.Container
		policy v1.RestartPolicy
		code   int
		want   bool
	}{
		"SidecarDone":   {reason: "a sidecar runs as long as its pod", kind: sidecar, policy: v1.RestartPolicyNever, want: true},
		"InitDone":      {reason: "an init container has done its work", kind: initContainer, policy: v1.RestartPolicyAlways},
		"InitFailed":    {reason: "an init container tries again", kind: initContainer, policy: v1.RestartPolicyAlways, code: 1, want: true},
		"InitNever":     {reason: "unless the pod says never", kind: initContainer, policy: v1.RestartPolicyNever, code: 1},
		"AppAlways":     {reason: "always is always", kind: app, policy: v1.RestartPolicyAlways, want: true},
		"AppDone":       {reason: "OnFailure and no failure", kind: app, policy: v1.RestartPolicyOnFailure},
		"AppFailed":     {reason: "OnFailure and a failure", kind: app, policy: v1.RestartPolicyOnFailure, code: 1, want: true},
		"OwnPolicy":     {reason: "the container's policy wins", kind: app, spec: v1.Container{RestartPolicy: &always}, policy: v1.RestartPolicyNever, want: true},
		"RuleMatches":   {reason: "a rule for this exit code", kind: app, spec: v1.Container{RestartPolicy: &never, RestartPolicyRules: rule}, policy: v1.RestartPolicyNever, code: 75, want: true},
		"RuleUnmatched": {reason: "no rule for this exit code", kind: app, spec: v1.Container{RestartPolicy: &never, RestartPolicyRules: rule}, policy: v1.RestartPolicyNever, code: 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := &pod{obj: &v1.Pod{Spec: v1.PodSpec{RestartPolicy: tc.policy}}}
			c := &container{spec: &tc.spec, kind: tc.kind, run: &run{exited: true, exit: sandbox.Exit{Code: tc.code}}}
			if got := p.restartable(c); got != tc.want {
				t.Errorf("%s: got %t", tc.reason, got)
			}
		})
	}
}

func TestPhase(t *testing.T) {
	running := func(k kind) *container { return &container{kind: k, run: &run{}} }
	ended := func(k kind, code int) *container {
		return &container{kind: k, run: &run{exited: true, exit: sandbox.Exit{Code: code}}}
	}
	fresh := func(k kind) *container { return &container{kind: k} }
	stopping, done, evicted := &stop{}, &stop{done: true}, &stop{done: true, reason: "Evicted"}
	tests := map[string]struct {
		reason      string
		containers  []*container
		initialized bool
		stop        *stop
		want        v1.PodPhase
	}{
		"Fresh":          {reason: "nothing runs yet", containers: []*container{fresh(app)}, want: v1.PodPending},
		"Initializing":   {reason: "only a sidecar runs", containers: []*container{running(sidecar), fresh(app)}, want: v1.PodPending},
		"Running":        {reason: "the app runs", containers: []*container{running(sidecar), running(app)}, initialized: true, want: v1.PodRunning},
		"SidecarStays":   {reason: "the work is done but a sidecar still runs", containers: []*container{running(sidecar), ended(app, 0)}, initialized: true, stop: stopping, want: v1.PodRunning},
		"Succeeded":      {reason: "all done, the sidecar's exit code does not count", containers: []*container{ended(sidecar, 143), ended(app, 0)}, initialized: true, stop: done, want: v1.PodSucceeded},
		"Failed":         {reason: "an app failed", containers: []*container{ended(app, 0), ended(app, 1)}, initialized: true, stop: done, want: v1.PodFailed},
		"InitFailed":     {reason: "an init container failed for good", containers: []*container{ended(initContainer, 1), fresh(app)}, stop: done, want: v1.PodFailed},
		"Evicted":        {reason: "an eviction is a failure, whatever the exit codes", containers: []*container{ended(app, 0)}, initialized: true, stop: evicted, want: v1.PodFailed},
		"NotYetReported": {reason: "a process that is not known to have ended keeps the pod from a final phase", containers: []*container{running(app)}, initialized: true, stop: done, want: v1.PodRunning},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := &pod{containers: tc.containers, initialized: tc.initialized, stop: tc.stop}
			if got := p.phase(); got != tc.want {
				t.Errorf("%s: got %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
}

// TestStatusPatch: a condition that lost its reason must say so, or the API keeps the old one.
func TestStatusPatch(t *testing.T) {
	patch, err := statusPatch("uid-1", v1.PodStatus{Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Metadata map[string]any
		Status   struct{ Conditions []map[string]any }
	}
	if err := json.Unmarshal(patch, &got); err != nil {
		t.Fatal(err)
	}
	condition := got.Status.Conditions[0]
	if reason, ok := condition["reason"]; !ok || reason != nil {
		t.Errorf("reason %v, present %t, want null", reason, ok)
	}
	if got.Metadata["uid"] != "uid-1" {
		t.Errorf("uid %v, want the pod's: the patch must not hit another pod of the same name", got.Metadata["uid"])
	}
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		d := newDeadline(t.Context(), begin.Add(30*time.Second))
		d.bringForward(begin.Add(time.Minute)) // later changes nothing
		d.bringForward(begin.Add(5 * time.Second))
		<-d.ctx.Done()
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("ended after %s, want 5s", took)
		}
		// A sidecar gets the minimum even though the pod's time is over.
		ctx, cancel := d.atLeast(context.WithoutCancel(t.Context()), minimumGrace)
		defer cancel()
		<-ctx.Done()
		if took := time.Since(begin); took != 7*time.Second {
			t.Errorf("the sidecar's time ended after %s, want 7s", took)
		}
	})
}

// TestProberCounts: failures right after the start are not counted, later ones are, in a row.
func TestProberCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := &run{ctx: ctx, pod: &pod{}, spec: &v1.Container{}}
		// A port name that the container does not have fails without a network.
		probe := &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{}}, PeriodSeconds: 2, FailureThreshold: 2}
		probe.TCPSocket.Port.Type, probe.TCPSocket.Port.StrVal = 1, "none"
		p := r.newProber(probe)
		attempts := 0
		begin := time.Now()
		for !p.failed() {
			if err := p.attempt(); err == nil {
				t.Fatal("the probe of a port that is not there passed")
			}
			attempts++
			if !p.wait(p.next()) {
				t.Fatal("the run has not ended")
			}
		}
		if took := time.Since(begin); took < 4*time.Second || took > 8*time.Second {
			t.Errorf("failed after %s, want two periods after the eager one", took)
		}
		if attempts < 10 {
			t.Errorf("%d attempts, want many in the first period", attempts)
		}
	})
}
