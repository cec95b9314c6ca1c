package survey

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/inject"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// lease is held by web-0 since a minute, and was just renewed.
func lease(change ...func(*coordinationv1.Lease)) *coordinationv1.Lease {
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: map[string]string{kube.ManagedByLabel: kube.ManagedBy}, Annotations: map[string]string{}},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("web-0_u0"), LeaseDurationSeconds: new(int32(15)), LeaseTransitions: new(int32(3)),
			AcquireTime: &metav1.MicroTime{Time: now.Add(-time.Minute)}, RenewTime: &metav1.MicroTime{Time: now.Add(-time.Second)},
		},
	}
	for _, f := range change {
		f(l)
	}
	return l
}

func pod(name string, state fitness.State) Candidate {
	c := Candidate{Name: name, State: state, Node: "node-" + name, identity: name + "_u" + name[len(name)-1:]}
	if state != fitness.Fit {
		c.Why = "container app is in CrashLoopBackOff"
	}
	return c
}

func TestNote(t *testing.T) {
	t.Parallel()
	both := []Candidate{pod("web-0", fitness.Fit), pod("web-1", fitness.Fit)}
	faulty := both[1]
	_, err := inject.FailoverOf(map[string]string{"elector.io/handover-when": "nevr"})
	faulty.fault = err.Error()
	tests := map[string]struct {
		reason     string
		lease      *coordinationv1.Lease
		candidates []Candidate
		blind      bool
		pod        presence
		want       string
	}{
		"all well":  {"there is nothing to say", lease(), both, false, unknown, ""},
		"alone":     {"some workloads have one replica", lease(), both[:1], false, unknown, ""},
		"free":      {"", lease(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }), both, false, unknown, "nobody leads"},
		"abandoned": {"", lease(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }), nil, false, unknown, "nobody contends"},
		"blind": {
			"who may not read pods does not know that nobody contends", lease(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }), nil, true, unknown,
			"nobody leads",
		},
		"blind and held":   {"nor who the leader is", lease(), nil, true, unknown, ""},
		"leader not fit":   {"", lease(), []Candidate{pod("web-0", fitness.Broken), both[1]}, false, unknown, "the leader is not fit: container app is in CrashLoopBackOff"},
		"standbys not fit": {"nobody could take over", lease(), []Candidate{both[0], pod("web-1", fitness.Broken)}, false, unknown, "no standby is fit"},
		"leader gone":      {"its pod was deleted by force", lease(), both[1:], false, gone, "the leader's pod is gone"},
		"leader of its own": {
			"a program with the library, say", lease(), both[1:], false, there, "the leader is a pod that elector did not inject",
		},
		"manager":   {"it elects itself without a sidecar", lease(), nil, false, there, ""},
		"recreated": {"web-0 with another UID is another candidate", lease(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("web-0_u9") }), both, false, gone, "the leader's pod is gone"},
		"no pod":    {"", lease(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("laptop") }), nil, false, unknown, "the leader is no pod that elector elected"},
		"expired": {
			"by more than clocks may be apart", lease(func(l *coordinationv1.Lease) { l.Spec.RenewTime.Time = now.Add(-21 * time.Second) }), both, false, unknown,
			"the leader has not renewed for 21s",
		},
		"nearly expired": {"clocks are not exact", lease(func(l *coordinationv1.Lease) { l.Spec.RenewTime.Time = now.Add(-19 * time.Second) }), both, false, unknown, ""},
		"asked": {
			"it has not been obeyed yet", lease(func(l *coordinationv1.Lease) {
				l.Annotations[elector.HandoverAnnotation] = `{"token":7,"to":"web-1","why":"kubectl: alice"}`
			}), both, false, unknown, "a handover is asked for to web-1, of the claim with fencing token 7 (kubectl: alice)",
		},
		"renewed in years to come": {
			"a forged time, and arithmetic has an end", lease(func(l *coordinationv1.Lease) {
				l.Spec.RenewTime.Time, l.Spec.LeaseDurationSeconds = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), new(int32(math.MaxInt32))
			}), both, false, unknown, "",
		},
		"annotated wrongly": {
			"since it was made, so nobody refused it", lease(), []Candidate{both[0], faulty}, false, unknown,
			`web-1 has the default, because elector.io/handover-when "nevr" is not allowed: use broken, unready or never`,
		},
		"asked of another claim": {
			"the leader ignores it", lease(func(l *coordinationv1.Lease) {
				l.Annotations[kube.ClaimAnnotation] = `{"holder":"web-0_u0","term":3,"token":7}`
				l.Annotations[elector.HandoverAnnotation] = `{"token":1}`
			}), both, false, unknown, "a handover is asked for, of the claim with fencing token 1 and not 7, so without effect",
		},
		"asked with garbage": {
			"the leader ignores it", lease(func(l *coordinationv1.Lease) { l.Annotations[elector.HandoverAnnotation] = "now" }), both, false, unknown,
			`a handover is asked for without effect: elector.io/handover "now" is not allowed: it must be like {"token":461,"to":"web-2","why":"maintenance"}`,
		},
		"somebody else's": {
			"the pods wait for it", lease(func(l *coordinationv1.Lease) { l.Labels = nil; l.Spec.HolderIdentity = new("operator") }), both, false, unknown,
			"the object is not elector's, and so not granted: name another lock, or if you know whose it is, give it to elector with the annotation elector.io/adopt",
		},
		"handed over": {
			"its owner let elector have it", lease(func(l *coordinationv1.Lease) { l.Labels = nil; l.Annotations["elector.io/adopt"] = "true" }), both, false, unknown, "",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := ofLease(test.lease)
			l.pod = test.pod
			l.join(test.candidates, !test.blind, now)
			if l.Note != test.want {
				t.Errorf("%q, want %q: %s", l.Note, test.want, test.reason)
			}
		})
	}
}

// What a lock says is shown as far as it can be, and never as it is.
func TestForgedLock(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", 200<<10)
	l := ofLease(lease(func(l *coordinationv1.Lease) {
		l.Spec.HolderIdentity = new("\x1b[2J\n" + huge + "_u0")
		l.Spec.RenewTime, l.Spec.AcquireTime, l.Spec.LeaseDurationSeconds, l.Spec.LeaseTransitions = nil, nil, nil, nil
		l.Annotations = map[string]string{elector.HandoverAnnotation: "\x1b[2J" + huge, kube.ClaimAnnotation: huge, elector.NextAnnotation: "\x1b[2J,web-1,\n"}
	}))
	l.join(nil, true, now)
	for name, text := range map[string]string{"holder": l.Holder, "leader": l.Leader, "handover": l.Handover, "note": l.Note, "next": strings.Join(l.Next, ",")} {
		if len(text) > 1<<10 || strings.ContainsAny(text, "\x1b\n") {
			t.Errorf("%s: %d bytes, %.80q", name, len(text), text)
		}
	}
	if diff := cmp.Diff([]string{"web-1"}, l.Next); diff != "" {
		t.Errorf("next (-want +got):\n%s", diff)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	type said struct {
		token   uint64
		elected bool
	}
	for note, want := range map[string]said{
		`{"holder":"web-0_u0","term":3,"token":461}`:                 {461, true},
		`{"holder":"web-0_u0","term":3}`:                             {0, true}, // until it first renews
		`{"holder":"web-1_u1","term":3,"token":461}`:                 {},        // another's claim
		`{"holder":"web-0_u0","term":2,"token":461}`:                 {},        // another took the lock since, and gave it back
		`{"holder":"web-0_u0","term":3,"token":461,"released":true}`: {},        // it is over
		`{"holder":"web-0_u0","term":3,"token":-1}`:                  {},
		`garbage`: {},
		``:        {},
	} {
		l := ofLease(lease(func(l *coordinationv1.Lease) { l.Annotations[kube.ClaimAnnotation] = note }))
		if got := (said{l.Token, l.Elected}); got != want {
			t.Errorf("%s: %+v, want %+v", note, got, want)
		}
	}
	free := ofLease(lease(func(l *coordinationv1.Lease) {
		l.Spec.HolderIdentity, l.Annotations[kube.ClaimAnnotation] = new(""), `{"holder":"","term":3,"token":461}`
	}))
	if free.Token != 0 || free.Elected {
		t.Errorf("%+v", free)
	}
}

func TestCandidateOf(t *testing.T) {
	t.Parallel()
	injected := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "web-0", UID: "u0", Labels: map[string]string{"elector.io/injected": "true"},
				Annotations: map[string]string{"elector.io/status": `{"version":"v1","lock":"web","mode":"lease"}`},
			},
			Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "elector", Args: []string{"--lock=web"}}}},
		}
		change(p)
		return p
	}
	tests := map[string]struct {
		reason string
		pod    *corev1.Pod
		want   Key
	}{
		"injected": {"", injected(func(*corev1.Pod) {}), Key{"shop", elector.ModeLease, "web"}},
		"for life": {"", injected(func(p *corev1.Pod) {
			p.Annotations["elector.io/status"] = `{"lock":"web","mode":"leader-for-life"}`
		}), Key{"shop", elector.ModeLeaderForLife, "web"}},
		"annotated since": {"with what nobody could refuse", injected(func(p *corev1.Pod) { p.Annotations["elector.io/unready-for"] = "soon" }), Key{"shop", elector.ModeLease, "web"}},
		"copy":            {"it stands aside", injected(func(p *corev1.Pod) { p.Labels = nil }), Key{}},
		"ended":           {"it contends no more", injected(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), Key{}},
		"no sidecar":      {"a label alone elects nobody", injected(func(p *corev1.Pod) { p.Spec.InitContainers = nil }), Key{}},
		"garbage":         {"", injected(func(p *corev1.Pod) { p.Annotations["elector.io/status"] = "\x1b[2J" }), Key{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, c, ok := candidateOf(test.pod)
			if key != test.want || ok != (test.want != Key{}) {
				t.Errorf("%v %v, want %v: %s", key, ok, test.want, test.reason)
			}
			if want := test.pod.Annotations["elector.io/unready-for"]; !strings.Contains(c.fault, want) || (c.fault == "") != (want == "") {
				t.Errorf("fault %q", c.fault)
			}
			if ok && c.identity != "web-0_u0" {
				t.Errorf("identity %q", c.identity)
			}
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	lease, life := elector.ModeLease, elector.ModeLeaderForLife
	tests := map[string]struct {
		want Reference
		err  string
	}{
		"web":                           {want: Reference{"web", []elector.Mode{lease, life}}},
		"lease/web":                     {want: Reference{"web", []elector.Mode{lease}}},
		"lease.coordination.k8s.io/web": {want: Reference{"web", []elector.Mode{lease}}},
		"cm/web":                        {want: Reference{"web", []elector.Mode{life}}},
		"ConfigMap/web":                 {want: Reference{"web", []elector.Mode{life}}},
		"pod/web":                       {err: `"pod/web" is no lock: it is NAME, lease/NAME or configmap/NAME`},
		"lease/":                        {err: `"" is no name of a lock: use at most 253 lower-case letters, digits, '-' and '.'`},
		"lease/a/b":                     {err: `"a/b" is no name of a lock: use at most 253 lower-case letters, digits, '-' and '.'`},
	}
	for text, test := range tests {
		got, err := Parse(text)
		if test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%s: %v, want %s", text, err, test.err)
			}
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", text, err, diff)
		}
	}
}

// A recreated web-0 is another candidate than the holder of that name.
func TestLeaderIsTheUID(t *testing.T) {
	t.Parallel()
	candidates := []Candidate{pod("web-0", fitness.Fit), pod("web-1", fitness.Broken)}
	same, other := ofLease(lease()), ofLease(lease(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("web-0_u9") }))
	same.join(candidates, true, now)
	other.join(candidates, true, now)
	if c := same.LeadingCandidate(); c == nil || c.Name != "web-0" || *same.Standbys != 1 || *same.FitStandbys != 0 {
		t.Errorf("%+v", same)
	}
	if other.LeadingCandidate() != nil || other.Node != "" || *other.Standbys != 2 || *other.FitStandbys != 1 {
		t.Errorf("%+v", other)
	}
}
