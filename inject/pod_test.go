package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/elector-io/elector/elector"
)

func electedPod(annotations ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{Prefix + keyEnabled: "true"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "web", Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}},
	}
	for i := 0; i+1 < len(annotations); i += 2 {
		pod.Annotations[Prefix+annotations[i]] = annotations[i+1]
	}
	return pod
}

func TestOptions(t *testing.T) {
	tests := map[string]struct {
		reason string
		change func(*Options)
		err    string
	}{
		"defaults":          {"an image is enough", func(*Options) {}, ""},
		"no image":          {"there is no default to fall back to", func(o *Options) { o.Image = "" }, `image "" is not an image reference`},
		"image with spaces": {"it would break on the node", func(o *Options) { o.Image = "a b" }, `image "a b" is not an image reference`},
		"pull policy":       {"the API server would refuse every pod", func(o *Options) { o.ImagePullPolicy = "Sometimes" }, `image pull policy "Sometimes" is not one of Always, IfNotPresent, Never`},
		"lock":              {"all workloads would share it", func(o *Options) { o.Settings.Lock = "web" }, "settings must not name a lock: a lock belongs to one workload"},
		"durations":         {"every pod would be refused", func(o *Options) { o.Settings.LeaseDuration = 5 * time.Second }, `default settings: renew-deadline "10s" is not allowed: it must be above 0s and below lease-duration (5s)`},
		"mode": {"a default that is forbidden", func(o *Options) { o.Settings.Mode, o.ForbidLeaderForLife = elector.ModeLeaderForLife, true },
			"the default mode is leader-for-life, which is forbidden"},
		"log level":      {"klog has no negative verbosity", func(o *Options) { o.LogLevel = -1 }, "log level -1 is not between 0 and 10"},
		"cpu":            {"100 was meant to be 100m", func(o *Options) { o.CPURequest = resource.MustParse("100") }, "CPU request 100 is not above 0 and at most 1"},
		"guaranteed cpu": {"below zero", func(o *Options) { o.GuaranteedCPU = resource.MustParse("-1m") }, "guaranteed CPU -1m is not above 0 and at most 1"},
		"memory limit":   {"the sidecar would not start", func(o *Options) { o.MemoryLimit = resource.MustParse("1Mi") }, "memory limit 1Mi is below 16Mi"},
		"memory request": {"the API server would refuse every pod", func(o *Options) { o.MemoryRequest = resource.MustParse("1Gi") }, "memory request 1Gi is not above 0 and at most the limit 64Mi"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := Options{Image: "elector"}
			tc.change(&o)
			got := ""
			if err := o.Validate(); err != nil {
				got = err.Error()
			}
			if got != tc.err {
				t.Errorf("%s:\n got %s\nwant %s", tc.reason, got, tc.err)
			}
		})
	}
}

func TestOptionsAreTheDefaults(t *testing.T) {
	o := options
	o.ImagePullPolicy = corev1.PullAlways
	o.LogLevel = 2
	o.Settings = elector.Settings{Mode: elector.ModeLeaderForLife, LeaseDuration: 30 * time.Second, RenewDeadline: 20 * time.Second, RetryPeriod: 5 * time.Second}
	o.CPURequest, o.MemoryRequest, o.MemoryLimit = resource.MustParse("5m"), resource.MustParse("20Mi"), resource.MustParse("40Mi")
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	out, err := Pod(electedPod(keyRetryPeriod, "1s"), o)
	if err != nil {
		t.Fatal(err)
	}
	c := out.Spec.InitContainers[0]
	want := []string{
		"--lock=web-lock", "--mode=leader-for-life", "--lease-duration=30s", "--renew-deadline=20s", "--retry-period=1s",
		"--status-dir=/var/run/elector", "--http-address=127.0.0.1:4040", "--health-address=:4041",
		"--injected=$(POD_INJECTED) $(POD_ENABLED) $(POD_STATUS)", "--v=2",
	}
	if diff := cmp.Diff(want, c.Args); diff != "" {
		t.Errorf("args (-want +got):\n%s", diff)
	}
	if c.ImagePullPolicy != corev1.PullAlways || c.Image != o.Image {
		t.Errorf("image %s is pulled %s", c.Image, c.ImagePullPolicy)
	}
	resources := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: o.CPURequest, corev1.ResourceMemory: o.MemoryRequest},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: o.MemoryLimit},
	}
	if !equality.Semantic.DeepEqual(resources, c.Resources) {
		t.Errorf("resources are %v, not %v", c.Resources, resources)
	}
}

func TestLimitBelowTheDefaultRequest(t *testing.T) {
	o := options
	o.MemoryRequest = resource.MustParse("32Mi")
	out, err := Pod(electedPod(keyMemoryLimit, "16Mi"), o)
	if err != nil {
		t.Fatalf("the pod cannot know what the cluster requests: %v", err)
	}
	r := out.Spec.InitContainers[0].Resources
	if request, limit := r.Requests.Memory(), r.Limits.Memory(); request.String() != "16Mi" || limit.String() != "16Mi" {
		t.Errorf("the request is %s and the limit %s", request, limit)
	}
}

func TestForbidLeaderForLife(t *testing.T) {
	o := options
	o.ForbidLeaderForLife = true
	_, err := Pod(electedPod(keyMode, "leader-for-life"), o)
	want := `elector.io/mode "leader-for-life" is not allowed: this cluster allows lease only`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := Pod(electedPod(keyMode, "lease"), o); err != nil {
		t.Errorf("lease is refused, too: %v", err)
	}
}

func TestGuaranteed(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		for name, v := range map[corev1.ResourceName]string{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory} {
			if v != "" {
				l[name] = resource.MustParse(v)
			}
		}
		return l
	}
	container := func(requests, limits corev1.ResourceList) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
	}
	full := container(list("1", "1Gi"), list("1", "1Gi"))
	tests := map[string]struct {
		spec corev1.PodSpec
		want bool
	}{
		"all equal":             {corev1.PodSpec{Containers: []corev1.Container{full, full}, InitContainers: []corev1.Container{full}}, true},
		"other notation":        {corev1.PodSpec{Containers: []corev1.Container{container(list("1000m", "1024Mi"), list("1", "1Gi"))}}, true},
		"requests filled in":    {corev1.PodSpec{Containers: []corev1.Container{container(nil, list("1", "1Gi"))}}, true},
		"extended resources":    {corev1.PodSpec{Containers: []corev1.Container{container(list("1", "1Gi"), corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi"), "gpu.example/gpu": resource.MustParse("1")})}}, true},
		"nothing":               {corev1.PodSpec{Containers: []corev1.Container{{}}}, false},
		"no memory limit":       {corev1.PodSpec{Containers: []corev1.Container{container(nil, list("1", ""))}}, false},
		"lower request":         {corev1.PodSpec{Containers: []corev1.Container{container(list("500m", "1Gi"), list("1", "1Gi"))}}, false},
		"zero request":          {corev1.PodSpec{Containers: []corev1.Container{container(list("0", "1Gi"), list("1", "1Gi"))}}, false},
		"zero limit":            {corev1.PodSpec{Containers: []corev1.Container{container(list("0", "1Gi"), list("0", "1Gi"))}}, false},
		"beyond comparison":     {corev1.PodSpec{Containers: []corev1.Container{container(list("1e1000000000", "1Gi"), list("1", "1Gi"))}}, false},
		"one container not":     {corev1.PodSpec{Containers: []corev1.Container{full, {}}}, false},
		"one init not":          {corev1.PodSpec{Containers: []corev1.Container{full}, InitContainers: []corev1.Container{{}}}, false},
		"class from pod level":  {corev1.PodSpec{Containers: []corev1.Container{full}, Resources: &corev1.ResourceRequirements{Limits: list("1", "1Gi")}}, false},
		"pod level, but not it": {corev1.PodSpec{Containers: []corev1.Container{full}, Resources: &corev1.ResourceRequirements{Requests: list("2", "")}}, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := guaranteed(&tc.spec); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// Where the sidecar stands among the init containers decides who waits for whom.
func TestPlace(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	pod := func(told string, names ...string) *corev1.Pod {
		p := electedPod()
		if told != "" {
			p.Annotations[Prefix+keyContainers] = told
		}
		for _, name := range names {
			c := corev1.Container{Name: name, Image: "app:v1"}
			if strings.HasSuffix(name, "-proxy") {
				c.RestartPolicy = &always
			}
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		}
		return p
	}
	tests := map[string]struct {
		reason string
		pod    *corev1.Pod
		want   []string
	}{
		"none":         {"it is alone", pod(""), []string{"elector"}},
		"some":         {"a pod that hangs in them is no candidate", pod("", "migrate", "wait-for-db"), []string{"migrate", "wait-for-db", "elector"}},
		"native proxy": {"it stops after the lock is released", pod("", "istio-init", "istio-proxy", "migrate"), []string{"istio-init", "istio-proxy", "migrate", "elector"}},
		"told":         {"it looks whether its pod leads", pod("app,migrate", "fetch", "migrate", "warm"), []string{"fetch", "elector", "migrate", "warm"}},
		"two told":     {"both look", pod("warm,migrate", "fetch", "migrate", "warm"), []string{"fetch", "elector", "migrate", "warm"}},
		"native told":  {"it looks for as long as it runs", pod("logs-proxy", "fetch", "logs-proxy", "warm"), []string{"fetch", "elector", "logs-proxy", "warm"}},
		"app told":     {"no init container looks", pod("app", "fetch", "migrate"), []string{"fetch", "migrate", "elector"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := Pod(tc.pod, options)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range out.Spec.InitContainers {
				got = append(got, out.Spec.InitContainers[i].Name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// Mutators that are asked after us add init containers, at the end as Vault's does: when we are asked again, the sidecar goes to
// its place among all of them, and stays there.
func TestPlaceAfterOthers(t *testing.T) {
	tests := map[string]struct {
		reason string
		told   string
		came   []string // with the sidecar as it came back
		want   []string
	}{
		"at the end":      {"a pod that hangs in it is no candidate", "", []string{"migrate", "elector", "vault-agent-init"}, []string{"migrate", "vault-agent-init", "elector"}},
		"before":          {"it is the last already", "", []string{"istio-init", "migrate", "elector"}, []string{"istio-init", "migrate", "elector"}},
		"around":          {"it goes behind all", "", []string{"a", "elector", "migrate", "b", "c"}, []string{"a", "migrate", "b", "c", "elector"}},
		"told":            {"migrate looks whether its pod leads", "migrate", []string{"elector", "migrate", "vault-agent-init"}, []string{"elector", "migrate", "vault-agent-init"}},
		"told came later": {"no other waits for the sidecar without need", "migrate", []string{"elector", "vault-agent-init", "migrate"}, []string{"vault-agent-init", "elector", "migrate"}},
		"told put before": {"it looks, so the sidecar is there before", "migrate", []string{"migrate", "elector"}, []string{"elector", "migrate"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			asking := electedPod()
			if tc.told != "" {
				asking.Annotations[Prefix+keyContainers] = tc.told
			}
			asking.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: "app:v1"}}
			pod, err := Pod(asking, options)
			if err != nil {
				t.Fatal(err)
			}
			all := map[string]corev1.Container{}
			for _, c := range pod.Spec.InitContainers {
				all[c.Name] = c
			}
			pod.Spec.InitContainers = nil
			for _, name := range tc.came {
				c, ok := all[name]
				if !ok {
					c = corev1.Container{Name: name, Image: "other:v1"}
				}
				pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
			}
			out, err := Pod(pod, options)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range out.Spec.InitContainers {
				got = append(got, c.Name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			again(t, out)
		})
	}
}

// Meshes point everything that a kubelet asks over the network to their proxy, which may start after the sidecar.
func TestNothingForAMeshToRewrite(t *testing.T) {
	for _, mode := range []string{"lease", "leader-for-life"} {
		out, err := Pod(electedPod(keyMode, mode), options)
		if err != nil {
			t.Fatal(err)
		}
		c := out.Spec.InitContainers[0]
		if c.ReadinessProbe != nil || c.LivenessProbe != nil || c.Lifecycle != nil {
			t.Errorf("%s: the sidecar at rest is asked: %v, %v, %v", mode, c.ReadinessProbe, c.LivenessProbe, c.Lifecycle)
		}
		if p := c.StartupProbe; p == nil || p.Exec == nil || p.HTTPGet != nil || p.TCPSocket != nil || p.GRPC != nil {
			t.Errorf("%s: the app starts when %v", mode, p)
		}
	}
}

func TestStatusOf(t *testing.T) {
	out, err := Pod(electedPod(keyMode, "leader-for-life", keyLock, "shop"), options)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := StatusOf(out)
	if want := (Status{Version: "v1", Lock: "shop", Mode: elector.ModeLeaderForLife, LockBy: LockByAnnotation}); !ok || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, ok, want)
	}
	if s, ok := CandidateOf(out); !ok || s != got {
		t.Errorf("it is no candidate: %+v, %v", s, ok)
	}
	copied := out.DeepCopy()
	delete(copied.Labels, LabelInjected)
	if s, ok := CandidateOf(copied); ok {
		t.Errorf("a copy without the label is taken for a candidate: %+v", s)
	}
	for name, change := range map[string]func(*corev1.Pod){
		"no annotation":  func(p *corev1.Pod) { delete(p.Annotations, AnnotationStatus) },
		"not JSON":       func(p *corev1.Pod) { p.Annotations[AnnotationStatus] = "injected" },
		"no lock":        func(p *corev1.Pod) { p.Annotations[AnnotationStatus] = `{"mode":"lease"}` },
		"lock not valid": func(p *corev1.Pod) { p.Annotations[AnnotationStatus] = `{"lock":"../x","mode":"lease"}` },
		"unknown mode":   func(p *corev1.Pod) { p.Annotations[AnnotationStatus] = `{"lock":"shop","mode":"x"}` },
		"other lock":     func(p *corev1.Pod) { p.Annotations[AnnotationStatus] = `{"lock":"other","mode":"lease"}` },
		"no sidecar":     func(p *corev1.Pod) { p.Spec.InitContainers = nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := out.DeepCopy()
			change(p)
			if s, ok := StatusOf(p); ok {
				t.Errorf("a pod like this is taken for injected: %+v", s)
			}
			if s, ok := CandidateOf(p); ok {
				t.Errorf("a pod like this is taken for a candidate: %+v", s)
			}
		})
	}
}

func TestWarningsOfControlledPods(t *testing.T) {
	pod := electedPod("lokc", "web")
	pod.Spec.ServiceAccountName = ""
	if got := Warnings(pod, options); len(got) != 2 {
		t.Errorf("a pod that a person created warns of its key and its account, got %q", got)
	}
	always := true
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-1", Controller: &always}}
	got := Warnings(pod, options)
	if len(got) != 1 || !strings.Contains(got[0], `"elector.io/lokc"`) {
		t.Errorf("a pod that a controller created warns of its key alone, got %q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"web", "web", 0}, {"web", "wbe", 2}, {"web", "web-0", 2}, {"", "web", 3}, {"web", "", 3}, {"cat", "cut", 1}} {
		if got := Distance(test.a, test.b); got != test.want {
			t.Errorf("%s, %s: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestUnknownKeys(t *testing.T) {
	tests := map[string]string{
		"leaseduration":  "lease-duration",
		"Mode":           "mode",
		"lock-name":      "lock",
		"container":      "containers",
		"healthport":     "health-port",
		"memory_limit":   "memory-limit",
		"enable":         "enabled",
		"statusdir":      "status-dir",
		"cpurequest":     "cpu-request",
		"retry-periods":  "retry-period",
		"renew-dead":     "renew-deadline",
		"log":            "log-level",
		"duration":       "lease-duration",
		"loglevel":       "log-level",
		"imagePull":      "image",
		"memory-request": "memory-request",
	}
	for name, want := range tests {
		if got := nearest(name); got != Prefix+want {
			t.Errorf("the nearest to %s is %s, not %s", name, got, want)
		}
	}
	for _, name := range []string{"foo", "adopt", "injected", "cpu-limits-and-more", "x", ""} {
		if got := nearest(name); got != "" {
			t.Errorf("%q is taken for %s", name, got)
		}
	}
	many := map[string]string{}
	for i := range 10000 {
		many[Prefix+strings.Repeat("ä", 1+i%300)+strings.Repeat("x", i/300)] = ""
	}
	got := unknownKeys(many, "")
	if len(got) != maxListed {
		t.Errorf("%d warnings for 10000 keys", len(got))
	}
	for _, w := range got {
		if len(w) > 512 || !utf8.ValidString(w) {
			t.Errorf("a warning of %d bytes: %q", len(w), w)
		}
	}
	for _, a := range annotations {
		if got := unknownKeys(map[string]string{a.Key: ""}, ""); got != nil {
			t.Errorf("a known key warns: %q", got)
		}
	}
	for name := range notForUsers {
		got := unknownKeys(map[string]string{Prefix + name: ""}, "")
		if len(got) != 1 || strings.Contains(got[0], "nearest") {
			t.Errorf("of %s it warns %q", name, got)
		}
	}
}

func TestTooManyContainers(t *testing.T) {
	pod := electedPod()
	pod.Spec.InitContainers = slices.Repeat(pod.Spec.Containers, maxContainers/2)
	pod.Spec.Containers = slices.Repeat(pod.Spec.Containers, maxContainers/2)
	if _, err := Pod(pod, options); err != nil {
		t.Errorf("%d containers are refused: %v", maxContainers, err)
	}
	pod.Spec.Containers = append(pod.Spec.Containers, pod.Spec.Containers[0])
	_, err := Pod(pod, options)
	if want := `elector.io/enabled "true" is not allowed: the pod has 1001 containers, use at most 1000`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLongValues(t *testing.T) {
	list := strings.Repeat("app,", maxValue/4-1) + "app"
	out, err := Pod(electedPod(keyContainers, list), options)
	if err != nil {
		t.Fatalf("%d bytes are refused: %v", len(list), err)
	}
	if n := len(out.Annotations[AnnotationStatus]); n > 2*maxValue {
		t.Errorf("the sidecar gets an argument of %d bytes", n)
	}
	for key, value := range map[string]string{
		keyContainers:    list + ",app",
		keyLogLevel:      strings.Repeat("0", maxValue+2) + "1",
		keyLeaseDuration: strings.Repeat("0", maxValue) + "15s",
	} {
		_, err = Pod(electedPod(key, value), options)
		if want := "a value has at most 4096 bytes, this one has 4099"; err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", key, err, want)
		}
	}
}

func TestEphemeralContainersAreLeftAlone(t *testing.T) {
	pod := electedPod()
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
	out, err := Pod(pod, options)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pod.Spec.EphemeralContainers, out.Spec.EphemeralContainers); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
	pod.Spec.EphemeralContainers[0].Name = ContainerName
	if _, err := Pod(pod, options); err == nil {
		t.Error("an ephemeral container of the sidecar's name is not refused")
	}
}

// TestWorkloadAndBack annotates every kind, changes the annotations, takes them
// back, and wants the very object it began with.
func TestWorkloadAndBack(t *testing.T) {
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}},
	}
	meta := metav1.ObjectMeta{Name: "web", Namespace: "shop"}
	kinds := map[string]runtime.Object{
		"Deployment":  &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Template: template}},
		"StatefulSet": &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Template: template}},
		"DaemonSet":   &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Template: template}},
		"ReplicaSet":  &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Template: template}},
		"CronJob":     &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}}}},
	}
	for kind, original := range kinds {
		for name, annotations := range map[string]map[string]string{
			"template without annotations":        nil,
			"template with another's":             {"team": "shop"},
			"template with some of elector's":     {"team": "shop", Prefix + keyLock: "mine", Prefix + keyPort: "5050"},
			"template with the same of elector's": {Prefix + keyMode: "lease"},
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				stored := original.DeepCopyObject()
				w, err := open(stored)
				if err != nil {
					t.Fatal(err)
				}
				w.template.Annotations = maps.Clone(annotations)
				before := stored.DeepCopyObject()
				send := func(change func(w workload)) workload {
					t.Helper()
					sent := stored.DeepCopyObject()
					w, err := open(sent)
					if err != nil {
						t.Fatal(err)
					}
					change(w)
					got, _, err := Workload(sent, stored, options)
					if err != nil {
						t.Fatal(err)
					}
					stored = got
					w, err = open(stored)
					if err != nil {
						t.Fatal(err)
					}
					return w
				}
				w = send(func(w workload) {
					w.meta.Annotations = map[string]string{Prefix + keyEnabled: "true", Prefix + keyMode: "lease"}
				})
				if got := w.template.Annotations[Prefix+keyEnabled]; got != "true" {
					t.Fatalf("enabled was not carried: %q", got)
				}
				w = send(func(w workload) {
					w.meta.Annotations[Prefix+keyLock] = "theirs"
					w.meta.Annotations[Prefix+keyLogLevel] = "3"
				})
				lock := "theirs"
				if users, ok := annotations[Prefix+keyLock]; ok {
					lock = users
				}
				if got := w.template.Annotations; got[Prefix+keyLock] != lock || got[Prefix+keyLogLevel] != "3" {
					t.Fatalf("the template has %v", got)
				}
				send(func(w workload) { w.template.Spec.Containers[0].Image = "app:v2" })
				send(func(w workload) { w.template.Spec.Containers[0].Image = "app:v1" })
				send(func(w workload) {
					maps.DeleteFunc(w.meta.Annotations, func(key, _ string) bool { return key != AnnotationCarried })
				})
				if !equality.Semantic.DeepEqual(before, stored) {
					t.Errorf("there and back is not the same (-before +after):\n%s", cmp.Diff(before, stored))
				}
			})
		}
	}
}

func TestWorkloadOfAnotherKind(t *testing.T) {
	_, _, err := Workload(&corev1.Pod{}, nil, options)
	var refusal *elector.FieldError
	if err == nil || errors.As(err, &refusal) {
		t.Errorf("a Pod is no workload, got %v", err)
	}
}

func BenchmarkPod(b *testing.B) {
	pod := electedPod(keyMode, "leader-for-life", keyLeaseDuration, "20s")
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "metrics", Image: "exporter:v2"})
	pod.Spec.Volumes = []corev1.Volume{{Name: "data"}, {Name: "settings"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Pod(pod, options); err != nil {
			b.Fatal(err)
		}
	}
}

// shapes are pods of different kinds for the fuzzed annotations.
func shapes() []*corev1.Pod {
	plain := electedPod()
	host := electedPod()
	host.Spec.HostNetwork = true
	host.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 8080}}
	all := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	pinned := electedPod()
	pinned.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: all}
	level := electedPod()
	level.Spec.Resources = &corev1.ResourceRequirements{Limits: all}
	full := electedPod()
	full.Spec.InitContainers = []corev1.Container{{Name: "migrate"}}
	full.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	full.Spec.Volumes = []corev1.Volume{{Name: "data"}}
	gated := gatedPod(handlers["http by name"])
	imaged := electedPod(keyGate, "true", keyCommand, `{"app":["/entry.sh","$(A)","a"]}`)
	imaged.Spec.Containers[0].Args = []string{"a"}
	imaged.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: handlers["grpc service"]}
	return []*corev1.Pod{plain, host, pinned, level, full, gated, imaged}
}

// checkAny asserts what holds for any pod whatsoever.
func checkAny(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	given := pod.DeepCopy()
	for _, w := range Warnings(pod, options) {
		if strings.Contains(w, "\n") {
			t.Errorf("a warning of more than one line: %q", w)
		}
	}
	out, err := Pod(pod, options)
	if !equality.Semantic.DeepEqual(given, pod) {
		t.Error("the input was changed")
	}
	if err != nil {
		var refusal *elector.FieldError
		if !errors.As(err, &refusal) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 4096 {
			t.Errorf("not a refusal of one sentence: %q", err)
		}
		return
	}
	twice, err := Pod(out, options)
	if err != nil {
		t.Fatalf("the second injection is refused: %v", err)
	}
	if !equality.Semantic.DeepEqual(out, twice) {
		t.Errorf("the second injection changed something:\n%s", cmp.Diff(out, twice))
	}
	if wanted, _ := asks(pod.Annotations); !wanted {
		if !equality.Semantic.DeepEqual(given, out) {
			t.Error("a pod that does not ask was changed")
		}
		return
	}
	if !slices.ContainsFunc(out.Spec.InitContainers, isNamedElector) {
		t.Error("there is no sidecar")
	}
	if guaranteed(&given.Spec) && !guaranteed(&out.Spec) {
		t.Error("the pod lost its QoS class Guaranteed")
	}
	checkUndone(t, given, out)
}

// checkUndone asserts that what a gate changed becomes what it was. Two containers of
// one name, which no API server takes, are not to be told apart.
func checkUndone(t *testing.T, given, out *corev1.Pod) {
	t.Helper()
	names := map[string]bool{}
	for _, c := range given.Spec.Containers {
		names[c.Name] = true
	}
	if _, before := StatusOf(given); before || len(names) < len(given.Spec.Containers) {
		return
	}
	back, err := Undo(out)
	if err != nil {
		t.Fatal(err)
	}
	for i, was := range given.Spec.Containers {
		is := back.(*corev1.Pod).Spec.Containers[i]
		is.Env, is.VolumeMounts = was.Env, was.VolumeMounts // TestUndoPods has these
		if !equality.Semantic.DeepEqual(was, is) {
			t.Errorf("there and back it is something else (-before +after):\n%s", cmp.Diff(was, is))
		}
	}
}

func FuzzPod(f *testing.F) {
	for i, a := range annotations {
		key := strings.TrimPrefix(a.Key, Prefix)
		for _, value := range []string{"", "true", "lease", "web", "15s", "4040", "10m", "64Mi", "app", "/var/run/x", "1e99", "$(POD_NAME)", "\x00\n\xff", strings.Repeat("9", 300)} {
			f.Add(uint8(i), key, value, "foo", "bar")
		}
	}
	f.Add(uint8(1), keyPort, "5050", keyHealthPort, "5050")
	f.Add(uint8(2), keyMemoryRequest, "32Mi", keyMemoryLimit, "32Mi")
	f.Fuzz(func(t *testing.T, shape uint8, key1, value1, key2, value2 string) {
		pods := shapes()
		pod := pods[int(shape)%len(pods)]
		pod.Annotations[Prefix+key1] = value1
		pod.Annotations[Prefix+key2] = value2
		checkAny(t, pod)
		out, err := Pod(pod, options)
		if wanted, _ := asks(pod.Annotations); err != nil || !wanted {
			return
		}
		for _, c := range append(out.Spec.InitContainers, out.Spec.Containers...) {
			for _, s := range c.Args {
				if c.Name != ContainerName {
					break // as they were
				}
				if s != injectedArg && strings.Contains(s, "$(") {
					t.Errorf("the kubelet would expand %q", s)
				}
			}
			for _, e := range c.Env {
				if strings.Contains(e.Value, "$(") {
					t.Errorf("the kubelet would expand %q", e.Value)
				}
			}
		}
	})
}

var hugeExponent = regexp.MustCompile(`[0-9.][eE][+-]?[0-9]{3}`)

func FuzzPodJSON(f *testing.F) {
	for _, pod := range shapes() {
		raw, err := json.Marshal(pod)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		out, err := Pod(pod, options)
		if err != nil {
			f.Fatal(err)
		}
		if raw, err = json.Marshal(out); err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(bytes.ReplaceAll(raw, []byte(`"name":"app"`), []byte(`"name":"elector"`)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Reading a quantity such as 1e-1000000000 takes minutes, in the API
		// server as well as here.
		if hugeExponent.Match(raw) {
			return
		}
		var pod corev1.Pod
		if json.Unmarshal(raw, &pod) != nil {
			return
		}
		checkAny(t, &pod)
		var w appsv1.Deployment
		w.Annotations = pod.Annotations
		w.Spec.Template.Spec = pod.Spec
		w.Spec.Template.Annotations = map[string]string{Prefix + keyLogLevel: "2"}
		once, _, err := Workload(&w, nil, options)
		if err != nil {
			return
		}
		twice, _, err := Workload(once, once, options)
		if err != nil || !equality.Semantic.DeepEqual(once, twice) {
			t.Errorf("carrying twice is not carrying once: %v", err)
		}
	})
}
