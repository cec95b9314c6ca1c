package inject

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/elector-io/elector/elector"
)

// inexact are the goldens of which Undo makes something else than they were, with the reason, which its comment gives.
var inexact = map[string]string{
	"app-has-some":      "the app sets variables itself",
	"copied-annotation": "the status was no sidecar's",
	"role-in-template":  "the label had no effect",
}

// TestUndoPods takes the sidecar out of every pod that gets one.
func TestUndoPods(t *testing.T) {
	undone := 0
	for name, g := range goldens(t, "pod") {
		t.Run(name, func(t *testing.T) {
			pod := read(t, g.given["input.yaml"]).(*corev1.Pod)
			once, err := Pod(pod, g.options(t))
			if err != nil {
				return // refused
			}
			given := once.DeepCopy()
			back, err := Undo(once)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(given, once); diff != "" {
				t.Errorf("the argument was changed:\n%s", diff)
			}
			_, before := StatusOf(pod)
			_, exempt := inexact[name]
			same := equality.Semantic.DeepEqual(pod, back)
			switch {
			case before && same:
				t.Error("it had a sidecar before, and still has")
			case !before && !exempt && !same:
				t.Errorf("something else than before (-before +after):\n%s", cmp.Diff(marshal(t, pod), marshal(t, back)))
			case exempt && same:
				t.Error("it is what it was, so it is no exemption")
			}
			again, err := Pod(back.(*corev1.Pod), g.options(t))
			if err != nil {
				t.Fatal("what came out is refused:", err)
			}
			if !before && !exempt && !equality.Semantic.DeepEqual(once, again) {
				t.Errorf("another sidecar than before (-first +second):\n%s", cmp.Diff(marshal(t, once), marshal(t, again)))
			}
			undone++
		})
	}
	if undone < 20 {
		t.Errorf("only %d pods were injected", undone)
	}
}

// TestTemplates holds what Template puts into a template against what the webhooks make of the workload's pods, takes it out again, and
// sends it to the webhooks as a user would who applies it where they are.
func TestTemplates(t *testing.T) {
	injected := 0
	for name, g := range goldens(t, "workload") {
		t.Run(name, func(t *testing.T) {
			object := read(t, g.given["input.yaml"])
			given := object.DeepCopyObject()
			carried, warnings, refusal := Workload(object, nil, options)
			out, more, err := Template(object, options)
			if diff := cmp.Diff(given, object); diff != "" {
				t.Errorf("the argument was changed:\n%s", diff)
			}
			if diff := cmp.Diff(message(refusal), message(err)); diff != "" {
				t.Fatalf("another refusal than the webhook's (-webhook +template):\n%s", diff)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(warnings, more); diff != "" {
				t.Errorf("other warnings than the webhook's (-webhook +template):\n%s", diff)
			}
			w, err := open(carried)
			if err != nil {
				t.Fatal(err)
			}
			if wanted, err := asks(w.template.Annotations); err != nil || !wanted || w.isLeftAlone() {
				if diff := cmp.Diff(object, out); diff != "" {
					t.Errorf("it does not ask, and was changed:\n%s", diff)
				}
				return
			}
			injected++
			checkPods(t, w, out)
			back, err := Undo(out)
			if err != nil {
				t.Fatal(err)
			}
			before := object
			if wasNoted(t, object) {
				before = carried // the note of it is right, or gone
			}
			if !equality.Semantic.DeepEqual(before, back) {
				t.Errorf("something else than before (-before +after):\n%s", cmp.Diff(marshal(t, before), marshal(t, back)))
			}
			unchanged(t, "injected again", out, func() (runtime.Object, error) {
				again, _, err := Template(out, Options{Image: "other:v2", Version: "v2"})
				return again, err
			})
			unchanged(t, "sent to a webhook with another mode", out, func() (runtime.Object, error) {
				sent, _, err := Workload(out, nil, Options{Image: "other:v2", Settings: elector.Settings{Mode: elector.ModeLeaderForLife}})
				return sent, err
			})
			unchanged(t, "sent to the webhook", out, func() (runtime.Object, error) {
				sent, again, err := Workload(out, nil, Options{Image: "other:v2", Version: "v2"})
				for _, w := range again {
					if !slices.Contains(warnings, w) {
						t.Errorf("sent to the webhook, it is warned of: %s", w)
					}
				}
				return sent, err
			})
		})
	}
	if injected < 10 {
		t.Errorf("only %d workloads were injected", injected)
	}
}

// wasNoted tells of a workload that it comes from a cluster with a webhook.
func wasNoted(t *testing.T, object runtime.Object) bool {
	w, err := open(object)
	if err != nil {
		t.Fatal(err)
	}
	_, noted := w.meta.Annotations[AnnotationCarried]
	return noted
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func unchanged(t *testing.T, what string, object runtime.Object, call func() (runtime.Object, error)) {
	t.Helper()
	out, err := call()
	if err != nil {
		t.Errorf("%s, it is refused: %v", what, err)
	} else if diff := cmp.Diff(marshal(t, object), marshal(t, out)); diff != "" {
		t.Errorf("%s, it is changed:\n%s", what, diff)
	}
}

// checkPods makes a pod of the template that the webhook carried annotations to, as the workload's controller does, and one of the
// injected template. Sent to the webhook, they are the same.
func checkPods(t *testing.T, w workload, injected runtime.Object) {
	t.Helper()
	offline, err := open(injected)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Pod(made(w), options)
	if err != nil {
		t.Fatal("the webhook refuses the pod:", err)
	}
	given := made(offline)
	got, err := Pod(given, Options{Image: "other:v2", Version: "v2"})
	if err != nil {
		t.Fatal("the webhook refuses the injected template's pod:", err)
	}
	if !equality.Semantic.DeepEqual(given, got) {
		t.Errorf("the webhook changes the injected template's pod:\n%s", cmp.Diff(marshal(t, given), marshal(t, got)))
	}
	var note injection
	if err := json.Unmarshal([]byte(got.Annotations[AnnotationStatus]), &note); err != nil {
		t.Fatal(err)
	}
	note.Carried = nil
	status, err := json.Marshal(note)
	if err != nil {
		t.Fatal(err)
	}
	got.Annotations[AnnotationStatus] = string(status)
	if diff := cmp.Diff(marshal(t, want), marshal(t, got)); diff != "" {
		t.Errorf("another pod than the webhook's (-webhook +template):\n%s", diff)
	}
}

// made is a pod as the workload's controllers make it.
func made(w workload) *corev1.Pod {
	pod := w.pod()
	pod.Labels = maps.Clone(pod.Labels)
	name, owner := w.meta.Name, metav1.OwnerReference{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: w.kind, Controller: new(true)}
	switch w.kind {
	case "Deployment":
		name += "-5d4f9c7b6d"
		owner.Kind = "ReplicaSet"
		if pod.Labels == nil {
			pod.Labels = map[string]string{}
		}
		pod.Labels["pod-template-hash"] = "5d4f9c7b6d"
	case "CronJob":
		name += "-29384756"
		owner.APIVersion, owner.Kind = batchv1.SchemeGroupVersion.String(), "Job"
	case "Job":
		owner.APIVersion = batchv1.SchemeGroupVersion.String()
	case "ReplicationController":
		owner.APIVersion = corev1.SchemeGroupVersion.String()
	}
	owner.Name = name
	pod.Name, pod.GenerateName = name+"-x7k2p", name+"-"
	pod.OwnerReferences = []metav1.OwnerReference{owner}
	return pod
}

// TestTemplateOfReplicationController: no webhook sees these workloads, only their pods.
func TestTemplateOfReplicationController(t *testing.T) {
	template := &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"elector.io/enabled": "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}},
	}
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ReplicationControllerSpec{Template: template}}
	out, _, err := Template(rc, options)
	if err != nil {
		t.Fatal(err)
	}
	w, err := open(rc)
	if err != nil {
		t.Fatal(err)
	}
	checkPods(t, w, out)
	rc.Spec.Template = nil
	if _, _, err := Template(rc, options); err == nil {
		t.Error("no pod template is a pod template")
	}
}

// TestUndoForged lets the status name annotations that are not elector's to remove, and what is no status.
func TestUndoForged(t *testing.T) {
	pod := read(t, goldens(t, "pod")["deployment"].given["input.yaml"]).(*corev1.Pod)
	pod.Annotations["other.io/key"], pod.Annotations["elector.io/unknown"] = "kept", "kept"
	once, err := Pod(pod, options)
	if err != nil {
		t.Fatal(err)
	}
	once.Annotations[AnnotationStatus] = strings.TrimSuffix(once.Annotations[AnnotationStatus], "}") +
		`,"carried":["unknown","../other.io/key","other.io/key","status-dir","","` + strings.Repeat("x", 1<<16) + `"]}`
	back, err := Undo(once)
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(pod, back) {
		t.Errorf("(-before +after):\n%s", cmp.Diff(marshal(t, pod), marshal(t, back)))
	}
	for name, status := range map[string]string{"garbage": "{", "another lock": `{"lock":"other","mode":"lease"}`, "nothing": ""} {
		once.Annotations[AnnotationStatus] = status
		back, err := Undo(once)
		if err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(once, back) {
			t.Errorf("%s: a pod was changed that does not say it has elector's sidecar", name)
		}
	}
}

// TestUndoKeepsOwnPodName: operator-sdk's apps have the variable for themselves.
func TestUndoKeepsOwnPodName(t *testing.T) {
	pod := read(t, goldens(t, "pod")["deployment"].given["input.yaml"]).(*corev1.Pod)
	pod.Spec.Containers[0].Env = append(slices.Clone(pod.Spec.Containers[0].Env), fromField("POD_NAME", "metadata.name"))
	once, err := Pod(pod, options)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Undo(once)
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(pod, back) {
		t.Errorf("(-before +after):\n%s", cmp.Diff(marshal(t, pod), marshal(t, back)))
	}
}
