package inject

import (
	"encoding/json"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
)

// others are two values of every annotation but enabled: neither is the default.
var others = map[string][2]string{
	keyMode:          {"leader-for-life", "lease"},
	keyLock:          {"a", "b"},
	keyLeaseDuration: {"30s", "45s"},
	keyRenewDeadline: {"8s", "9s"},
	keyRetryPeriod:   {"1s", "3s"},
	keyContainers:    {"app", "more"},
	keyStatusDir:     {"/a", "/b"},
	keyPort:          {"5050", "5051"},
	keyHealthPort:    {"6060", "6061"},
	keyHandoverWhen:  {"unready", "never"},
	keyUnreadyFor:    {"10s", "20s"},
	keyImage:         {"a:v1", "b:v1"},
	keyLogLevel:      {"2", "3"},
	keyCPURequest:    {"20m", "30m"},
	keyMemoryRequest: {"20Mi", "30Mi"},
	keyMemoryLimit:   {"70Mi", "80Mi"},
	keyGate:          {"app", "more"},
	keyCommand:       {`{"app":["a"]}`, `{"app":["b"]}`},
	keyStopGrace:     {"1s", "1500ms"},
}

// askingFor is a pod that asks for the value, with what that needs.
func askingFor(name, value string) *corev1.Pod {
	pod := electedPod(name, value)
	if name == keyCommand || name == keyStopGrace {
		pod.Annotations[Prefix+keyGate] = "app"
	}
	if name == keyGate || name == keyStopGrace {
		pod.Spec.Containers[0].Command = []string{"app"}
	}
	return pod
}

// TestCopies holds that an annotation which is changed on a copy of an injected
// pod is refused, and that what another mutator does to the sidecar is not taken
// for a changed annotation.
func TestCopies(t *testing.T) {
	for _, a := range Annotations()[1:] { // the first is enabled
		name := strings.TrimPrefix(a.Key, Prefix)
		values, ok := others[name]
		if !ok {
			t.Errorf("no values of %s to try", a.Key)
			continue
		}
		for older, without := range map[string]func(*testing.T, *corev1.Pod){
			"":              func(*testing.T, *corev1.Pod) {},
			"of an old pod": withoutAsked,
		} {
			t.Run(name+" "+older, func(t *testing.T) {
				asking := askingFor(name, values[0])
				asking.Spec.Containers = append(asking.Spec.Containers, corev1.Container{Name: "more", Image: "more:v1", Command: []string{"more"}})
				injected, err := Pod(asking, options)
				if err != nil {
					t.Fatal(err)
				}
				without(t, injected)
				if _, err := Pod(injected, options); err != nil {
					t.Errorf("a copy as it is was refused: %v", err)
				}
				if a.managers {
					injected.Annotations[a.Key] = values[1]
					if _, err := Pod(injected, options); err != nil {
						t.Errorf("the manager would obey it, but: %v", err)
					}
					return
				}
				refused(t, injected, a.Key, values[1])

				plain, err := Pod(electedPod(), options)
				if err != nil {
					t.Fatal(err)
				}
				without(t, plain)
				plain.Spec.Containers = append(plain.Spec.Containers, corev1.Container{Name: "more", Image: "more:v1", Command: []string{"more"}})
				if name != keyMode || values[1] != "lease" { // lease is what it has
					refused(t, plain, a.Key, values[1])
				}
			})
		}
	}
}

// TestRemovedOnCopies holds that an annotation which is removed on a copy of an injected pod is refused, because the sidecar has it
// still, and that a copy without what the refusal names gets another sidecar.
func TestRemovedOnCopies(t *testing.T) {
	for _, a := range Annotations()[1:] { // the first is enabled
		if a.managers {
			continue
		}
		name := strings.TrimPrefix(a.Key, Prefix)
		values := others[name]
		injected, err := Pod(askingFor(name, values[0]), options)
		if err != nil {
			t.Fatal(err)
		}
		delete(injected.Annotations, Prefix+name)
		_, err = Pod(injected, options)
		if err == nil || !strings.HasPrefix(err.Error(), Prefix+name+" ") || !strings.HasSuffix(err.Error(), injectedParts) {
			t.Errorf("%s is removed, and the refusal is: %v", name, err)
		}

		delete(injected.Annotations, AnnotationStatus)
		if a.gates { // the command, too, has to be what it was
			delete(injected.Annotations, Prefix+keyGate)
			delete(injected.Annotations, Prefix+keyStopGrace)
		}
		injected.Spec.InitContainers = nil
		injected.Spec.Volumes = nil
		for i := range injected.Spec.Containers {
			injected.Spec.Containers[i].VolumeMounts = nil
			injected.Spec.Containers[i].Env = nil
		}
		if _, err := Pod(injected, options); err != nil {
			t.Errorf("%s is removed, with %s: %v", name, injectedParts, err)
		}
	}
}

// TestTemplateOfPod holds that a workload cannot be made from an injected pod, whose lock it would share.
func TestTemplateOfPod(t *testing.T) {
	injected, err := Pod(electedPod(), options)
	if err != nil {
		t.Fatal(err)
	}
	made := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "another", Namespace: "prod"}}
	made.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: *injected.ObjectMeta.DeepCopy(), Spec: injected.Spec}
	if _, _, err := Workload(made, nil, options); err == nil || !strings.HasSuffix(err.Error(), injectedParts) {
		t.Errorf("it shares the lock of another: %v", err)
	}
	if _, _, err := Workload(made, made, options); err != nil {
		t.Errorf("one that is there already cannot be scaled: %v", err)
	}
	made.Spec.Template.Annotations[Prefix+keyEnabled] = "false"
	if _, _, err := Workload(made, nil, options); err != nil {
		t.Errorf("its pods are no candidates, but: %v", err)
	}
}

// withoutAsked makes the pod one that an older manager injected.
func withoutAsked(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	status, _ := StatusOf(pod)
	status.LockBy = ""
	note, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	pod.Annotations[AnnotationStatus] = string(note)
}

func refused(t *testing.T, pod *corev1.Pod, key, value string) {
	t.Helper()
	changed := pod.DeepCopy()
	changed.Annotations[key] = value
	switch _, err := Pod(changed, options); {
	case err == nil:
		t.Errorf("%s %q is neither obeyed nor refused", key, value)
	case !strings.HasPrefix(err.Error(), key+" "):
		t.Errorf("%s %q: %v", key, value, err)
	}
}

// TestCopyWithoutLabel holds that a copy which lost its labels is not made a candidate again, whatever else it kept. Our own
// output, which comes again when another mutator has changed it, has the label.
func TestCopyWithoutLabel(t *testing.T) {
	injected, err := Pod(electedPod(), options)
	if err != nil {
		t.Fatal(err)
	}
	for reason, test := range map[string]struct {
		labels map[string]string
		want   string
	}{
		"our own output":         {injected.Labels, "true"},
		"kept all":               {map[string]string{LabelInjected: "true", LabelRole: string(elector.RoleLeader)}, "true"},
		"kept annotations alone": {nil, ""},
		"lost elector's":         {map[string]string{"app": "web"}, ""},
		"taken out":              {map[string]string{LabelInjected: "false"}, "false"},
		"claims to lead":         {map[string]string{LabelRole: string(elector.RoleLeader)}, ""},
	} {
		copied := injected.DeepCopy()
		copied.Labels = test.labels
		out, err := Pod(copied, options)
		if err != nil {
			t.Fatal(err)
		}
		if got := out.Labels[LabelInjected]; got != test.want || out.Labels[LabelRole] != string(elector.RoleStandby) {
			t.Errorf("%s: %s is %q, want %q, and %s is %q", reason, LabelInjected, got, test.want, LabelRole, out.Labels[LabelRole])
		}
	}
}

func TestMutatedSidecar(t *testing.T) {
	injected, err := Pod(electedPod(keyImage, "a:v1", keyCPURequest, "20m", keyMemoryLimit, "70Mi"), options)
	if err != nil {
		t.Fatal(err)
	}
	c := &injected.Spec.InitContainers[0]
	c.Image = "mirror.example/a:v1"
	c.Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1")
	c.Resources.Limits[corev1.ResourceMemory] = resource.MustParse("1Gi")
	if _, err := Pod(injected, options); err != nil {
		t.Errorf("what mutators do to the sidecar is taken for a changed annotation: %v", err)
	}
}
