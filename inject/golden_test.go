package inject

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/elector"
)

var update = flag.Bool("update", false, "write the goldens anew; their diff is the review")

var options = Options{Image: "ghcr.io/elector-io/elector:v1", ImagePullPolicy: corev1.PullIfNotPresent, Version: "v1"}

// golden is a txtar file. Its comment gives the reason for the case; input.yaml
// and old.yaml are given, and options.yaml what the cluster has of its own; the
// others are what comes out: output.yaml or denied.txt, and warnings.txt where
// there are any.
type golden struct {
	path    string
	archive *txtar.Archive
	given   map[string]string
}

func goldens(t *testing.T, dir string) map[string]golden {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens in %s: %v", dir, err)
	}
	all := map[string]golden{}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		g := golden{path: path, archive: archive, given: map[string]string{}}
		for _, f := range archive.Files {
			g.given[f.Name] = string(f.Data)
		}
		if len(bytes.TrimSpace(archive.Comment)) == 0 {
			t.Errorf("%s gives no reason", path)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".txtar")] = g
	}
	return all
}

// options are the ones of every case with the golden's own.
func (g golden) options(t *testing.T) Options {
	t.Helper()
	o := options
	if err := yaml.UnmarshalStrict([]byte(g.given["options.yaml"]), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// check compares what came out with the golden, or writes it there.
func (g golden) check(t *testing.T, object runtime.Object, warnings []string, err error) {
	t.Helper()
	out := map[string]string{"output.yaml": "", "denied.txt": "", "warnings.txt": ""}
	if err != nil {
		if _, ok := errors.AsType[*elector.FieldError](err); !ok {
			t.Errorf("the error is not a refusal: %v", err)
		}
		if strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("the refusal is not one sentence: %q", err)
		}
		out["denied.txt"] = err.Error() + "\n"
	} else {
		out["output.yaml"] = marshal(t, object)
	}
	for _, w := range warnings {
		if len(w) > 256 {
			t.Errorf("the API server would cut this warning of %d bytes: %s", len(w), w)
		}
		out["warnings.txt"] += w + "\n"
	}
	if *update {
		archive := &txtar.Archive{Comment: g.archive.Comment}
		for _, name := range []string{"options.yaml", "old.yaml", "input.yaml"} {
			if given, ok := g.given[name]; ok {
				archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(given)})
			}
		}
		for _, name := range []string{"output.yaml", "denied.txt", "warnings.txt"} {
			if out[name] != "" {
				archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(out[name])})
			}
		}
		if err := os.WriteFile(g.path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for name, got := range out {
		if diff := cmp.Diff(g.given[name], got); diff != "" {
			t.Errorf("%s%s is different (-want +got):\n%s", g.archive.Comment, name, diff)
		}
	}
}

func marshal(t testing.TB, object runtime.Object) string {
	t.Helper()
	out, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	// The status is the API server's business; every kind writes out an empty one.
	before, after, _ := strings.Cut(string(out), "\nstatus:")
	if i := strings.Index(after, "\n"); i >= 0 && strings.TrimSpace(after[i:]) != "" && after[i+1] != ' ' {
		t.Fatalf("the status is not last:\n%s", out)
	}
	return strings.TrimSuffix(before, "\n") + "\n"
}

func read(t *testing.T, manifest string) runtime.Object {
	t.Helper()
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(manifest), &kind); err != nil {
		t.Fatal(err)
	}
	object, ok := map[string]runtime.Object{
		"Pod": &corev1.Pod{}, "Deployment": &appsv1.Deployment{}, "StatefulSet": &appsv1.StatefulSet{}, "DaemonSet": &appsv1.DaemonSet{},
		"ReplicaSet": &appsv1.ReplicaSet{}, "Job": &batchv1.Job{}, "CronJob": &batchv1.CronJob{},
	}[kind.Kind]
	if !ok {
		t.Fatalf("the kind %q is not known here", kind.Kind)
	}
	if err := yaml.UnmarshalStrict([]byte(manifest), object); err != nil {
		t.Fatal(err)
	}
	return object
}

func TestPodGoldens(t *testing.T) {
	if err := options.Validate(); err != nil {
		t.Fatal(err)
	}
	all := goldens(t, "pod")
	for name, g := range goldens(t, "mesh") { // their inputs are written by test/mesh
		all["mesh/"+name] = g
	}
	for name, g := range all {
		t.Run(name, func(t *testing.T) {
			pod := read(t, g.given["input.yaml"]).(*corev1.Pod)
			given := pod.DeepCopy()
			options := g.options(t)
			out, err := Pod(pod, options)
			warnings := Warnings(pod, options)
			if diff := cmp.Diff(given, pod); diff != "" {
				t.Errorf("the input was changed (-before +after):\n%s", diff)
			}
			g.check(t, out, warnings, err)
			if err != nil {
				return
			}
			if asked, _ := asks(pod.Annotations); !asked {
				if diff := cmp.Diff(given, out); diff != "" {
					t.Errorf("a pod that does not ask was changed:\n%s", diff)
				}
				return
			}
			addsOnly(t, given, out)
			again(t, out)
			if guaranteed(&given.Spec) != guaranteed(&out.Spec) {
				t.Errorf("the QoS class Guaranteed was %v and is %v", guaranteed(&given.Spec), guaranteed(&out.Spec))
			}
			betweenMutators(t, out)
		})
	}
}

// again asserts that injecting twice is injecting once.
func again(t *testing.T, once *corev1.Pod) {
	t.Helper()
	twice, err := Pod(once, options)
	if err != nil {
		t.Fatalf("the second injection is refused: %v", err)
	}
	if diff := cmp.Diff(marshal(t, once), marshal(t, twice)); diff != "" {
		t.Errorf("the second injection changed something (-once +twice):\n%s", diff)
	}
	if !equality.Semantic.DeepEqual(once, twice) {
		t.Error("the second injection changed something that is not in the YAML")
	}
}

// betweenMutators lets another injector, such as a mesh's, add its containers
// before and after ours, re-order volumes and drop what it does not know; then
// the API server calls us again.
func betweenMutators(t *testing.T, once *corev1.Pod) {
	t.Helper()
	mutated := once.DeepCopy()
	always := corev1.ContainerRestartPolicyAlways
	mutated.Spec.InitContainers = append([]corev1.Container{{Name: "mesh-init", Image: "mesh"}}, mutated.Spec.InitContainers...)
	mutated.Spec.InitContainers = append(mutated.Spec.InitContainers, corev1.Container{Name: "mesh-early", Image: "mesh", RestartPolicy: &always})
	mutated.Spec.Containers = append([]corev1.Container{{Name: "mesh-proxy", Image: "mesh"}}, mutated.Spec.Containers...)
	mutated.Spec.Containers = append(mutated.Spec.Containers, corev1.Container{Name: "mesh-agent", Image: "mesh"})
	mutated.Spec.Volumes = append([]corev1.Volume{{Name: "mesh"}}, mutated.Spec.Volumes...)
	for i := range mutated.Spec.InitContainers {
		if mutated.Spec.InitContainers[i].Name == ContainerName {
			mutated.Spec.InitContainers[i].Image = "mirror.example/elector:v1"
			mutated.Spec.InitContainers[i].RestartPolicy = nil
		}
	}
	want := mutated.DeepCopy()
	sidecar := slices.IndexFunc(want.Spec.InitContainers, isNamedElector)
	want.Spec.InitContainers[sidecar].RestartPolicy = new(always)
	if last := len(want.Spec.InitContainers) - 1; sidecar == last-1 { // no other init container is told, so it was the last
		want.Spec.InitContainers[sidecar], want.Spec.InitContainers[last] = want.Spec.InitContainers[last], want.Spec.InitContainers[sidecar]
	}
	if asked := once.Annotations[Prefix+keyGate]; strings.Contains(asked, ",") { // init containers stand behind the sidecar, whatever comes
		return
	}
	if _, chosen := once.Annotations[Prefix+keyContainers]; !chosen {
		p, err := newPlan(&once.ObjectMeta, "any", options.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{0, len(want.Spec.Containers) - 1} {
			c := &want.Spec.Containers[i]
			c.VolumeMounts = []corev1.VolumeMount{{Name: VolumeStatus, MountPath: p.statusDir, ReadOnly: true}}
			c.Env = append(p.variables(), fromField("POD_NAME", "metadata.name"))
		}
	}
	got, err := Pod(mutated, options)
	if err != nil {
		t.Fatalf("the call after another mutator is refused: %v", err)
	}
	if diff := cmp.Diff(marshal(t, want), marshal(t, got)); diff != "" {
		t.Errorf("the call after another mutator did something else than expected (-want +got):\n%s", diff)
	}
	again(t, got)
}

// addsOnly asserts that everything of the pod is in what became of it, a sidecar that
// was there maybe in another place.
func addsOnly(t *testing.T, before, after *corev1.Pod) {
	t.Helper()
	if from := slices.IndexFunc(before.Spec.InitContainers, isNamedElector); from >= 0 {
		before = before.DeepCopy()
		list, sidecar := before.Spec.InitContainers, before.Spec.InitContainers[from]
		to := slices.IndexFunc(keepKnown(after.DeepCopy().Spec.InitContainers, list), isNamedElector)
		before.Spec.InitContainers = slices.Insert(slices.Delete(list, from, from+1), to, sidecar)
	}
	left := after.DeepCopy()
	if _, injected := StatusOf(before); !injected {
		openGate(t, left) // what the gate changes is compared with what it makes of it again
	}
	if _, had := before.Annotations[AnnotationStatus]; !had {
		delete(left.Annotations, AnnotationStatus)
	} else {
		left.Annotations[AnnotationStatus] = before.Annotations[AnnotationStatus]
	}
	for _, label := range []string{LabelInjected, LabelRole} {
		delete(left.Labels, label)
		if had, ok := before.Labels[label]; ok {
			left.Labels[label] = had
		}
	}
	left.Spec.InitContainers = keepKnown(left.Spec.InitContainers, before.Spec.InitContainers)
	left.Spec.Containers = keepKnown(left.Spec.Containers, before.Spec.Containers)
	var volumes []corev1.Volume
	for _, v := range left.Spec.Volumes {
		for _, b := range before.Spec.Volumes {
			if b.Name == v.Name {
				volumes = append(volumes, v)
			}
		}
	}
	left.Spec.Volumes = volumes
	if !equality.Semantic.DeepEqual(before, left) {
		t.Errorf("something that was there was changed (-before +after):\n%s", cmp.Diff(marshal(t, before), marshal(t, left)))
	}
}

// openGate takes the gate out of an injected pod.
func openGate(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	sidecar := &pod.Spec.InitContainers[slices.IndexFunc(pod.Spec.InitContainers, isNamedElector)]
	if spec, gated := specOf(sidecar); gated {
		port, err := parsePort(keyHealthPort, portOf("health-address")(sidecar))
		if err != nil {
			t.Fatal(err)
		}
		ungate(&pod.Spec, spec, port, askedBefore(pod))
	}
}

// keepKnown drops the containers, variables and mounts that were not there.
func keepKnown(after, before []corev1.Container) []corev1.Container {
	var left []corev1.Container
	for _, c := range after {
		for _, b := range before {
			if b.Name == c.Name {
				c.Env = c.Env[:len(b.Env)]
				c.VolumeMounts = c.VolumeMounts[:len(b.VolumeMounts)]
				if c.Name == ContainerName {
					c.RestartPolicy = b.RestartPolicy
				}
				left = append(left, c)
			}
		}
	}
	return left
}

func TestWorkloadGoldens(t *testing.T) {
	for name, g := range goldens(t, "workload") {
		t.Run(name, func(t *testing.T) {
			object := read(t, g.given["input.yaml"])
			given := object.DeepCopyObject()
			var old, givenOld runtime.Object
			if manifest, ok := g.given["old.yaml"]; ok {
				old = read(t, manifest)
				givenOld = old.DeepCopyObject()
			}
			out, warnings, err := Workload(object, old, options)
			if diff := cmp.Diff(given, object); diff != "" {
				t.Errorf("the input was changed (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(givenOld, old); diff != "" {
				t.Errorf("the old object was changed (-before +after):\n%s", diff)
			}
			g.check(t, out, warnings, err)
			if err != nil {
				return
			}
			// The same object is sent again, or created elsewhere.
			stored := []runtime.Object{out}
			if old == nil {
				stored = append(stored, nil)
			}
			for _, old := range stored {
				twice, _, err := Workload(out, old, options)
				if err != nil {
					t.Fatalf("what came out is refused: %v", err)
				}
				if diff := cmp.Diff(marshal(t, out), marshal(t, twice)); diff != "" {
					t.Errorf("what came out is changed again (-once +twice):\n%s", diff)
				}
			}
		})
	}
}
