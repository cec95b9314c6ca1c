//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/inject"
)

// object is JSON as it is, so that fields count which our API types do not know.
type object = map[string]any

var (
	podsResource        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	deploymentsResource = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

// templates are pods of many shapes, by name. None of them is to run: no node fits.
func templates(t *testing.T) map[string]object {
	t.Helper()
	files, err := filepath.Glob("testdata/templates/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d templates, %v", len(files), err)
	}
	all := map[string]object{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var pod object
		if err := yaml.UnmarshalStrict(content, &pod); err != nil {
			t.Fatal(file, err)
		}
		at(pod, "spec", "nodeSelector")["example.com/place"] = "nowhere"
		all[strings.TrimSuffix(filepath.Base(file), ".yaml")] = pod
	}
	return all
}

// at returns the object at the path, which is made if it is not there.
func at(o object, path ...string) object {
	for _, key := range path {
		inner, ok := o[key].(object)
		if !ok {
			inner = object{}
			o[key] = inner
		}
		o = inner
	}
	return o
}

func clone(o object) object { return (&unstructured.Unstructured{Object: o}).DeepCopy().Object }

// elements are those of a list that is there, or none.
func elements(o object, key string) []object {
	list, _ := o[key].([]any)
	var elements []object
	for _, e := range list {
		if e, ok := e.(object); ok {
			elements = append(elements, e)
		}
	}
	return elements
}

// prepare makes what the templates refer to and the API server wants to see.
func (s *space) prepare(templates map[string]object) {
	s.t.Helper()
	ctx := s.t.Context()
	accounts := map[string]bool{}
	for _, pod := range templates {
		for _, key := range []string{"serviceAccountName", "serviceAccount"} {
			if name, ok := at(pod, "spec")[key].(string); ok {
				accounts[name] = true
			}
		}
	}
	for name := range accounts {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := cluster.Client().CoreV1().ServiceAccounts(s.name).Create(ctx, account, metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
	}
	class := &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: "sandbox"}, Handler: "sandbox",
		Overhead:   &nodev1.Overhead{PodFixed: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("120Mi"), corev1.ResourceCPU: resource.MustParse("250m")}},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"sandbox": "true"}},
	}
	_, err := cluster.Client().NodeV1().RuntimeClasses().Create(ctx, class, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		s.t.Fatal(err)
	}
	priority := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "training"}, Value: -10, PreemptionPolicy: new(corev1.PreemptNever)}
	_, err = cluster.Client().SchedulingV1().PriorityClasses().Create(ctx, priority, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		s.t.Fatal(err)
	}
}

func dynamicClient(t *testing.T) dynamic.Interface {
	t.Helper()
	config := cluster.RESTConfig()
	config.WarningHandler = &warnings{} // they say much about these templates
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// without takes out of a pod, or its template, what elector puts in. plain is the same without elector.
func without(injected, plain object) object {
	pod := clone(injected)
	meta, spec := at(pod, "metadata"), at(pod, "spec")
	drop(meta, "labels", inject.LabelInjected, inject.LabelRole)
	drop(meta, "annotations", inject.AnnotationStatus, inject.Prefix+"enabled", inject.Prefix+"lock")
	removeNamed(spec, "initContainers", inject.ContainerName)
	removeNamed(spec, "volumes", inject.VolumeStatus, inject.VolumeToken)
	given := elements(at(plain, "spec"), "containers")
	for i, c := range elements(spec, "containers") {
		removeNamed(c, "volumeMounts", inject.VolumeStatus)
		var own []string // variables that the plain one has, too
		if i < len(given) {
			for _, v := range elements(given[i], "env") {
				own = append(own, v["name"].(string))
			}
		}
		for _, name := range []string{"ELECTOR_STATUS_DIR", "ELECTOR_URL", "POD_NAME"} {
			if !slices.Contains(own, name) {
				removeNamed(c, "env", name)
			}
		}
	}
	return pod
}

func drop(o object, field string, keys ...string) {
	inner, ok := o[field].(object)
	if !ok {
		return
	}
	for _, key := range keys {
		delete(inner, key)
	}
	if len(inner) == 0 {
		delete(o, field)
	}
}

func removeNamed(o object, list string, names ...string) {
	all, ok := o[list].([]any)
	if !ok {
		return
	}
	all = slices.DeleteFunc(slices.Clone(all), func(e any) bool { return slices.Contains(names, e.(object)["name"].(string)) })
	if o[list] = all; len(all) == 0 {
		delete(o, list)
	}
}

// generated is the end of the name that the API server gives to the volume with the pod's own token.
var generated = regexp.MustCompile(`"kube-api-access-[a-z0-9]{5}"`)

// ofAny is the stored pod without what each object has for itself.
func ofAny(t *testing.T, pod object) object {
	t.Helper()
	pod = clone(pod)
	meta := at(pod, "metadata")
	hash, _ := at(pod, "metadata", "labels")["pod-template-hash"].(string)
	for _, field := range []string{"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "managedFields", "generateName", "ownerReferences"} {
		delete(meta, field)
	}
	drop(meta, "labels", "pod-template-hash")
	delete(pod, "status")
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	raw = generated.ReplaceAll(raw, []byte(`"kube-api-access"`))
	if hash != "" {
		raw = []byte(strings.ReplaceAll(string(raw), hash, "hash"))
	}
	pod = nil
	if err := json.Unmarshal(raw, &pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// Pods of many shapes are stored as they would be without elector, but for what it puts in; and what is in is not put in again.
func TestTemplates(t *testing.T) {
	t.Parallel()
	all := templates(t)
	s := newSpace(t)
	plainSpace := &space{t: t, name: s.name + "-plain"}
	if _, err := cluster.Client().CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: plainSpace.name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Client().CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), plainSpace.name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the namespace's ServiceAccount", func(ctx context.Context) error {
		_, err := cluster.Client().CoreV1().ServiceAccounts(plainSpace.name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	s.prepare(all)
	plainSpace.prepare(all)
	client := dynamicClient(t)
	for name, template := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, elected := clone(template), clone(template)
			at(elected, "metadata", "annotations")[inject.Prefix+"enabled"] = "true"
			pods := client.Resource(podsResource)
			create := func(namespace string, pod object, options metav1.CreateOptions) object {
				t.Helper()
				options.FieldValidation = metav1.FieldValidationStrict
				created, err := pods.Namespace(namespace).Create(t.Context(), &unstructured.Unstructured{Object: pod}, options)
				if err != nil {
					t.Fatal(err)
				}
				return created.Object
			}
			plain = create(plainSpace.name, plain, metav1.CreateOptions{})
			elected = create(s.name, elected, metav1.CreateOptions{})
			checkInjection(t, plain, elected)

			again := clone(elected)
			for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "managedFields"} {
				delete(at(again, "metadata"), field)
			}
			at(again, "metadata")["name"] = name + "-again"
			again = create(s.name, again, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if diff := cmp.Diff(ofAny(t, elected), ofAny(t, again)); diff != "" {
				t.Errorf("a second injection changes (-first +second):\n%s", diff)
			}
			if policy, ok := at(template, "spec")["restartPolicy"]; ok && policy != "Always" {
				return
			}
			plainDeployment := deploy(t, client, plainSpace.name, name, template, nil)
			electedDeployment := deploy(t, client, s.name, name, template, map[string]any{inject.Prefix + "enabled": "true"})
			drop(at(electedDeployment, "spec", "template", "metadata"), "annotations", inject.Prefix+"enabled")
			if diff := cmp.Diff(plainDeployment["spec"], electedDeployment["spec"]); diff != "" {
				t.Errorf("the Deployment differs in more than the annotation that was carried (-without +with):\n%s", diff)
			}
			checkInjection(t, podOf(t, client, plainSpace.name, name), podOf(t, client, s.name, name))
		})
	}
}

// checkInjection compares two stored pods, one of them with the sidecar.
func checkInjection(t *testing.T, plain, elected object) {
	t.Helper()
	if diff := cmp.Diff(ofAny(t, plain), ofAny(t, without(elected, plain))); diff != "" {
		t.Errorf("more than the injected parts differs (-without +with):\n%s", diff)
	}
	all := elements(at(elected, "spec"), "initContainers")
	if n := len(all); n == 0 || all[n-1]["name"] != inject.ContainerName || len(elements(all[n-1], "volumeMounts")) != 2 {
		t.Errorf("the last init container is not the sidecar: %v", all)
	}
	for _, c := range elements(at(elected, "spec"), "containers") {
		if !slices.ContainsFunc(elements(c, "volumeMounts"), func(m object) bool { return m["name"] == inject.VolumeStatus && m["readOnly"] == true }) {
			t.Errorf("container %v has no status directory", c["name"])
		}
	}
	checkClass(t, plain, elected)
}

// checkClass wants the same QoS class. The least may become the next one, because the sidecar has requests.
func checkClass(t *testing.T, plain, elected object) {
	t.Helper()
	without, with := at(plain, "status")["qosClass"], at(elected, "status")["qosClass"]
	if with != without && (without != string(corev1.PodQOSBestEffort) || with != string(corev1.PodQOSBurstable)) {
		t.Errorf("the QoS class is %v, without the sidecar it is %v", with, without)
	}
}

// deploy makes a Deployment of one pod and returns it as it was stored.
func deploy(t *testing.T, client dynamic.Interface, namespace, name string, pod object, annotations map[string]any) object {
	t.Helper()
	pod = clone(pod)
	meta := at(pod, "metadata")
	delete(meta, "name")
	delete(meta, "finalizers") // they would keep the namespace
	at(meta, "labels")["template"] = name
	d := object{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": name, "annotations": annotations},
		"spec": object{"selector": object{"matchLabels": object{"template": name}}, "template": object{"metadata": meta, "spec": pod["spec"]}},
	}
	created, err := client.Resource(deploymentsResource).Namespace(namespace).Create(t.Context(), &unstructured.Unstructured{Object: d}, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatal(err)
	}
	return created.Object
}

// podOf waits for the Deployment's pod.
func podOf(t *testing.T, client dynamic.Interface, namespace, name string) (pod object) {
	t.Helper()
	eventually(t, "a pod of Deployment "+name, func(ctx context.Context) error {
		list, err := client.Resource(podsResource).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: "template=" + name})
		if err != nil {
			return err
		}
		if len(list.Items) != 1 {
			return fmt.Errorf("there are %d pods", len(list.Items))
		}
		pod = list.Items[0].Object
		return nil
	})
	return pod
}

// What the sidecar cannot be put into is refused with the reason, through the real API server.
func TestRefusedShapes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	tests := map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"Windows": {
			func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} },
			"the pod runs on Windows and the sidecar needs Linux, remove the annotation",
		},
		"static": {
			func(p *corev1.Pod) { p.Annotations["kubernetes.io/config.source"] = "file" },
			"the pod is static and only its kubelet's manifest can change it, run it as a workload or remove the annotation",
		},
		"too many containers": {
			func(p *corev1.Pod) { p.Spec.Containers = slices.Repeat(p.Spec.Containers, 1001) },
			"the pod has 1001 containers, use at most 1000",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := s.pod(map[string]string{inject.Prefix + "enabled": "true"})
			test.change(pod)
			_, err := cluster.Client().CoreV1().Pods(s.name).Create(t.Context(), pod, metav1.CreateOptions{})
			checkDenial(t, "a pod", err, `admission webhook "pods.elector.io" denied the request: elector.io/enabled "true" is not allowed: `+test.want)
		})
	}
}

// A field that the manager's API types do not know, anywhere in a pod of any shape, comes back from the running manager as it went.
func TestUnknownFields(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false)
	for name, pod := range templates(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at(pod, "metadata", "annotations")[inject.Prefix+"enabled"] = "true"
			n := extend(pod, "")
			raw, err := json.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			response, err := d.ask(t.Context(), raw)
			if err != nil || !response.Allowed || len(response.Patch) == 0 {
				t.Fatalf("not injected: %v, %v", response, err)
			}
			patch, err := jsonpatch.DecodePatch(response.Patch)
			if err != nil {
				t.Fatal(err)
			}
			patched, err := patch.Apply(raw)
			if err != nil {
				t.Fatal(err)
			}
			var before, after object
			if err := json.Unmarshal(raw, &before); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(patched, &after); err != nil {
				t.Fatal(err)
			}
			after = without(after, before)
			at(after, "metadata", "annotations")[inject.Prefix+"enabled"] = "true"
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("of %d unknown fields (-sent +patched):\n%s", n, diff)
			}
		})
	}
}

// free are the fields whose keys are data, not the API's.
var free = []string{"labels", "annotations", "nodeSelector", "matchLabels", "limits", "requests", "volumeAttributes"}

// extend puts a field of a Kubernetes to come into every object, and returns how many there are.
func extend(value any, field string) (n int) {
	switch v := value.(type) {
	case object:
		if slices.Contains(free, field) {
			return 0
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			n += extend(v[key], key)
		}
		v["fieldToCome"] = object{"list": []any{object{"a": nil}, "b"}, "number": 12345678901}
		return n + 1
	case []any:
		for _, element := range v {
			n += extend(element, "")
		}
	}
	return n
}

// The API server drops, or refuses, fields that it does not know before it asks the webhook: elector changes nothing about that.
func TestFieldValidation(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	pods := dynamicClient(t).Resource(podsResource).Namespace(s.name)
	for _, validation := range []string{metav1.FieldValidationIgnore, metav1.FieldValidationWarn, metav1.FieldValidationStrict} {
		t.Run(validation, func(t *testing.T) {
			t.Parallel()
			answers := map[string]string{}
			for _, annotations := range []object{{}, {inject.Prefix + "enabled": "true"}} {
				pod := object{
					"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "web", "annotations": annotations},
					"spec": object{"fieldToCome": "x", "containers": []any{object{"name": "app", "image": "app", "fieldToCome": object{"a": int64(1)}}}},
				}
				created, err := pods.Create(t.Context(), &unstructured.Unstructured{Object: pod}, metav1.CreateOptions{FieldValidation: validation, DryRun: []string{metav1.DryRunAll}})
				answer := fmt.Sprint(err)
				if err == nil {
					_, kept := at(created.Object, "spec")["fieldToCome"]
					answer = fmt.Sprintf("stored, with the field: %t", kept)
				}
				answers[answer] = "" // the same for both
			}
			if len(answers) != 1 {
				t.Errorf("with and without elector: %v", answers)
			}
			strict := validation == metav1.FieldValidationStrict
			for answer := range answers {
				if strict != strings.Contains(answer, `unknown field "spec.fieldToCome"`) || !strict && answer != "stored, with the field: false" {
					t.Errorf("the API server says %s", answer)
				}
			}
		})
	}
}
