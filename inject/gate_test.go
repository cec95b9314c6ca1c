package inject

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/gate"
)

// gatedPod has a container with the probes and one beside it.
func gatedPod(h corev1.ProbeHandler, annotations ...string) *corev1.Pod {
	pod := electedPod(append([]string{keyGate, "app"}, annotations...)...)
	c := probed(h)
	c.Image, c.Command, c.Args = "app:v1", []string{"app", "--", "$(A)"}, []string{"$$(B)"}
	pod.Spec.Containers = []corev1.Container{*c, {Name: "more", Image: "more:v1", LivenessProbe: &corev1.Probe{ProbeHandler: h}}}
	return pod
}

// TestGateIsTakenBack injects pods with every probe, and takes it back.
func TestGateIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			given := gatedPod(h)
			once := injected(t, given, options)
			if cmp.Equal(given.Spec.Containers[0].Command, once.Spec.Containers[0].Command) {
				t.Error("it has its command still")
			}
			if diff := cmp.Diff(given.Spec.Containers[1].LivenessProbe, once.Spec.Containers[1].LivenessProbe); diff != "" {
				t.Errorf("what is not behind the gate has other probes: %s", diff)
			}
			again(t, once)
			back, err := Undo(once)
			if err != nil {
				t.Fatal(err)
			}
			if !equality.Semantic.DeepEqual(given, back) {
				t.Errorf("(-before +after):\n%s", cmp.Diff(marshal(t, given), marshal(t, back)))
			}
		})
	}
}

func injected(t *testing.T, pod *corev1.Pod, opts Options) *corev1.Pod {
	t.Helper()
	out, err := Pod(pod, opts)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGateAmongMutators lets others change an injected pod before the webhook is asked again.
func TestGateAmongMutators(t *testing.T) {
	t.Parallel()
	once := injected(t, gatedPod(handlers["exec"]), options)
	theirs := &corev1.HTTPGetAction{Port: intstr.FromInt32(15020), Path: "/app-health/app/livez"}
	tests := map[string]struct {
		reason string
		mutate func(*corev1.Pod)
		want   func(*corev1.Pod) // of what was mutated; nil is nothing
	}{
		"program before": {"the gate is in what it runs", func(p *corev1.Pod) {
			c := &p.Spec.Containers[0]
			c.Command, c.Args = []string{"/vault/vault-env"}, slices.Concat(c.Command, c.Args)
		}, nil},
		"another command": {"it would run without the gate", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"other"} },
			func(p *corev1.Pod) {
				p.Spec.Containers[0].Command = []string{wrapper, "run", "--stop-grace=2s", "--least-claim=7.334s", "--", "other"}
			}},
		"more args": {"they are the app's", func(p *corev1.Pod) { p.Spec.Containers[0].Args = append(p.Spec.Containers[0].Args, "more") }, nil},
		"probes": {"the mesh asks what it was told, which is the sidecar", func(p *corev1.Pod) {
			p.Spec.Containers[0].LivenessProbe.ProbeHandler = corev1.ProbeHandler{HTTPGet: theirs}
		}, nil},
		"mounts": {"the wrapper has to be there", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = p.Spec.Containers[0].VolumeMounts[:1] },
			func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = once.Spec.Containers[0].VolumeMounts }},
		"volumes": {"it is the sidecar's still", func(p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[:2] },
			func(p *corev1.Pod) { p.Spec.Volumes = once.Spec.Volumes }},
		"environment": {"the sidecar would not know what to ask", func(p *corev1.Pod) { p.Spec.InitContainers[0].Env = nil }, func(p *corev1.Pod) { p.Name = "refused" }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mutated := once.DeepCopy()
			test.mutate(mutated)
			want := mutated.DeepCopy()
			if test.want != nil {
				test.want(want)
			}
			// Another cluster's durations are not the sidecar's.
			got, err := Pod(mutated, Options{Image: "other:v2", Settings: elector.Settings{Mode: elector.ModeLeaderForLife, LeaseDuration: time.Minute, RenewDeadline: 50 * time.Second}})
			if want.Name == "refused" {
				if err == nil || !strings.HasPrefix(err.Error(), Prefix+keyGate+" ") {
					t.Errorf("%s, but: %v", test.reason, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(marshal(t, want), marshal(t, got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
			if _, err := Undo(got); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGateWithNewContainers: what comes after the sidecar got its list has no gate, though it is told who leads.
func TestGateWithNewContainers(t *testing.T) {
	t.Parallel()
	given := gatedPod(handlers["http"])
	given.Annotations[Prefix+keyGate] = "true"
	given.Spec.Containers[1].Command = []string{"more"}
	once := injected(t, given, options)
	once.Spec.Containers = append(once.Spec.Containers, corev1.Container{Name: "proxy", Image: "proxy:v1"})
	got := injected(t, once, options)
	c := got.Spec.Containers[2]
	if c.Command != nil || len(c.VolumeMounts) != 1 || len(c.Env) == 0 {
		t.Errorf("the new container is %+v", c)
	}
}

// TestGateWithoutItsContainers: a sidecar that does not know what is behind the gate would let it run everywhere.
func TestGateWithoutItsContainers(t *testing.T) {
	t.Parallel()
	given := gatedPod(handlers["http"])
	given.Annotations[Prefix+keyGate] = "true"
	given.Spec.Containers[1].Command = []string{"more"}
	once := injected(t, given, options)
	sidecar := &once.Spec.InitContainers[0]
	sidecar.Env = slices.DeleteFunc(sidecar.Env, func(v corev1.EnvVar) bool { return v.Name == gate.SpecEnv })
	if _, err := Pod(once, options); err == nil || !strings.HasPrefix(err.Error(), `elector.io/gate "true" is not allowed: the pod already has a sidecar, which knows of no such gate`) {
		t.Errorf("the gate is gone, and: %v", err)
	}
}

// TestRoomForGrace holds which durations a grace makes of those that were chosen, and that what a refusal offers is accepted.
func TestRoomForGrace(t *testing.T) {
	t.Parallel()
	slow := options
	slow.Settings = elector.Settings{LeaseDuration: time.Minute, RenewDeadline: 40 * time.Second, RetryPeriod: 5 * time.Second}
	tests := map[string]struct {
		reason string
		opts   Options
		given  []string
		want   string // lease-duration/renew-deadline/retry-period, or the annotation that is refused
	}{
		"nothing chosen":     {"the defaults have room", options, nil, "15s/10s/2s"},
		"the default":        {"as if it was not chosen", options, []string{keyStopGrace, "2s"}, "15s/10s/2s"},
		"5s":                 {"all follow", options, []string{keyStopGrace, "5s"}, "23s/15s/2s"},
		"30s":                {"all follow", options, []string{keyStopGrace, "30s"}, "1m18s/52s/2s"},
		"less":               {"nothing gets shorter than the cluster's", options, []string{keyStopGrace, "500ms"}, "15s/10s/2s"},
		"slow cluster":       {"there is room", slow, []string{keyStopGrace, "10s"}, "1m0s/40s/5s"},
		"slower yet":         {"in the cluster's proportion", slow, []string{keyStopGrace, "30s"}, "1m32s/1m1s/5s"},
		"retry":              {"it counts twice", options, []string{keyRetryPeriod, "3s"}, "20s/13s/3s"},
		"short retry":        {"it leaves room", options, []string{keyRetryPeriod, "1s", keyStopGrace, "5s"}, "18s/12s/1s"},
		"lease alone":        {"the others follow from it", options, []string{keyLeaseDuration, "30s"}, "30s/20s/4s"},
		"lease, long grace":  {"the retry-period gives way", options, []string{keyLeaseDuration, "78s", keyStopGrace, "30s"}, "1m18s/52s/2s"},
		"short lease":        {"", options, []string{keyLeaseDuration, "12s"}, keyLeaseDuration},
		"short deadline":     {"", options, []string{keyRenewDeadline, "8s"}, keyRenewDeadline},
		"both short":         {"the deadline is what is short", options, []string{keyLeaseDuration, "30s", keyRenewDeadline, "8s", keyRetryPeriod, "2s"}, keyRenewDeadline},
		"long retry":         {"", options, []string{keyLeaseDuration, "30s", keyRetryPeriod, "6s"}, keyLeaseDuration},
		"all chosen, exact":  {"", options, []string{keyStopGrace, "30s", keyLeaseDuration, "60s", keyRenewDeadline, "51750ms", keyRetryPeriod, "2s"}, "1m0s/51.75s/2s"},
		"all chosen, no fit": {"", options, []string{keyStopGrace, "30s", keyLeaseDuration, "60s", keyRenewDeadline, "51749ms", keyRetryPeriod, "2s"}, keyRenewDeadline},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := gatedPod(handlers["nothing"], test.given...)
			out, err := Pod(pod, test.opts)
			if !strings.Contains(test.want, "/") {
				if err == nil || !strings.HasPrefix(err.Error(), Prefix+test.want+" ") {
					t.Fatalf("%s: %v", test.reason, err)
				}
				offered := strings.Fields(err.Error()[strings.Index(err.Error(), " are ")+len(" are "):])
				for i, key := range []string{keyLeaseDuration, keyRenewDeadline} {
					pod.Annotations[Prefix+key] = strings.Trim(offered[i], ",")
				}
				pod.Annotations[Prefix+keyRetryPeriod] = strings.Trim(offered[3], ",")
				if _, again := Pod(pod, test.opts); again != nil {
					t.Errorf("what is offered in %q is refused: %v", err, again)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", test.reason, err)
			}
			sidecar := &out.Spec.InitContainers[0]
			if got := flagOf(keyLeaseDuration)(sidecar) + "/" + flagOf(keyRenewDeadline)(sidecar) + "/" + flagOf(keyRetryPeriod)(sidecar); got != test.want {
				t.Errorf("%s: %s, want %s", test.reason, got, test.want)
			}
		})
	}
}

// TestGateGrace holds what the sidecar is told of the kubelet's patience.
func TestGateGrace(t *testing.T) {
	t.Parallel()
	for want, seconds := range map[string]*int64{"30s": nil, "1s": new(int64(0)), "1m0s": new(int64(60)), "596523h14m7s": new(int64(1 << 62))} {
		pod := gatedPod(handlers["nothing"])
		pod.Spec.TerminationGracePeriodSeconds = seconds
		if got := flagOf("gate-grace")(&injected(t, pod, options).Spec.InitContainers[0]); got != want {
			t.Errorf("the sidecar keeps the lock for %s, want %s", got, want)
		}
	}
}

// TestGateInCopy makes a workload of an injected pod's template, without what says that it is one.
func TestGateInCopy(t *testing.T) {
	t.Parallel()
	once := injected(t, gatedPod(handlers["http"]), options)
	delete(once.Annotations, AnnotationStatus)
	once.Spec.InitContainers, once.Spec.Volumes = nil, nil
	if _, err := Pod(once, options); err == nil || !strings.HasSuffix(err.Error(), "runs /elector/gate already, give it its own command") {
		t.Errorf("a gate in a gate: %v", err)
	}
}

// TestRolloutWithoutDefaults: offline, nothing has filled in the API's defaults.
func TestRolloutWithoutDefaults(t *testing.T) {
	t.Parallel()
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{AnnotationEnabled: "true", Prefix + keyGate: "true", Prefix + keyMode: "leader-for-life"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}}}
	percent := func(s string) *intstr.IntOrString { return new(intstr.FromString(s)) }
	tests := map[string]struct {
		replicas           *int32
		unavailable, surge *intstr.IntOrString
		refused            bool
	}{
		"nothing":           {nil, nil, nil, true},
		"none":              {new(int32(0)), nil, nil, false},
		"one, fenceposts":   {new(int32(1)), nil, new(intstr.FromInt32(0)), false},
		"one of one":        {nil, new(intstr.FromInt32(1)), nil, false},
		"99%":               {new(int32(3)), percent("99%"), nil, true},
		"100%":              {new(int32(3)), percent("100%"), nil, false},
		"more than all":     {new(int32(3)), new(intstr.FromInt32(5)), nil, false},
		"two of three":      {new(int32(3)), new(intstr.FromInt32(2)), nil, true},
		"garbage":           {new(int32(3)), percent("all"), percent("x"), true},
		"two, both rounded": {new(int32(2)), percent("25%"), percent("0%"), true},
	}
	for name, test := range tests {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: test.replicas, Template: template}}
		if test.unavailable != nil || test.surge != nil {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: test.unavailable, MaxSurge: test.surge}
		}
		_, _, err := Workload(d, nil, options)
		if (err != nil) != test.refused {
			t.Errorf("%s: %v", name, err)
		}
		d.Spec.Template.Annotations = map[string]string{AnnotationEnabled: "true", Prefix + keyGate: "true"}
		d.Spec.Template.Spec.Containers[0].Command = []string{"app"}
		if _, _, err := Workload(d, nil, options); err != nil {
			t.Errorf("%s, whose standbys are Ready: %v", name, err)
		}
	}
}

// TestForgedGate takes the gate out of pods whose sidecar says something else than was done.
func TestForgedGate(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"containers":{"more":{"liveness":{"http":{"port":-1}}}}}`, `{"containers":{"app":{},"more":{},"":{},"none":{"startup":null}}}`,
		`{"containers":{"app":{"liveness":{"grpc":{"port":1}},"preStop":{"http":{"port":1,"headers":[null]}}}}}`,
	} {
		once := injected(t, gatedPod(handlers["http"]), options)
		env := once.Spec.InitContainers[0].Env
		env[slices.IndexFunc(env, func(v corev1.EnvVar) bool { return v.Name == gate.SpecEnv })].Value = text
		once.Spec.Containers[0].Command = []string{wrapper, "run", "--"}
		once.Spec.InitContainers[0].Args = slices.DeleteFunc(once.Spec.InitContainers[0].Args, func(a string) bool { return strings.HasPrefix(a, "--health") })
		if _, err := Undo(once); err != nil {
			t.Error(err)
		}
		if out, err := Pod(once, options); err == nil {
			again(t, out)
		}
	}
}
