package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Template returns the workload with its annotations carried, as Workload does, and
// with the sidecar in its pod template: what a cluster without the webhook has to
// be given. A workload whose template does not ask is returned as it is. The argument
// is not touched. opts must be valid.
//
// The template has what Pod would add to each of its pods. Two things of a pod
// are known only when there is one: its name, which the sidecar learns by the
// downward API, and what other mutators do to it. So a webhook leaves these pods
// as they are, and the workload, too: what was carried is noted in the template,
// not in AnnotationCarried, because what is in a manifest is the user's own.
//
// The lock's name is in the template. Of a workload that is renamed afterwards, as
// by a name prefix of kustomize, a webhook refuses the template; without one
// it shares its lock with the first.
func Template(obj runtime.Object, opts Options) (runtime.Object, []string, error) {
	opts = opts.withDefaults()
	out, warnings, err := Workload(obj, nil, opts)
	if err != nil {
		return nil, nil, err
	}
	given, err := open(obj)
	if err != nil {
		return nil, nil, err
	}
	w, err := open(out)
	if err != nil {
		return nil, nil, err
	}
	if wanted, err := asks(w.template.Annotations); err != nil || !wanted || w.isLeftAlone() {
		return obj.DeepCopyObject(), warnings, err
	}
	before := w.pod()
	if w.kind == "CronJob" {
		before.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: batchv1.SchemeGroupVersion.String(), Kind: job.Kind, Name: w.meta.Name + "-00000000", Controller: new(true),
		}}
	}
	pod, err := Pod(before, opts)
	if err != nil {
		return nil, nil, err
	}
	// What a webhook carried once stays noted where it did.
	if _, noted := given.meta.Annotations[AnnotationCarried]; !noted {
		delete(w.meta.Annotations, AnnotationCarried)
		if _, injected := StatusOf(before); !injected {
			if err := noteCarried(pod, given.template.Annotations); err != nil {
				return nil, nil, err
			}
		}
	}
	w.template.Labels, w.template.Annotations, w.template.Spec = pod.Labels, pod.Annotations, pod.Spec
	return out, warnings, nil
}

// LockOf returns which lock the pods of an injected pod or workload contend for, and
// the name of the ServiceAccount that has to have a right to it. It is not ok if there
// is no sidecar that says so.
func LockOf(obj runtime.Object) (lock Status, account string, ok bool) {
	pod, isPod := obj.(*corev1.Pod)
	if !isPod {
		w, err := open(obj)
		if err != nil {
			return Status{}, "", false
		}
		pod = w.pod()
	}
	lock, ok = StatusOf(pod)
	return lock, serviceAccount(&pod.Spec), ok
}

// noteCarried notes in the status which annotations a template did not have.
func noteCarried(pod *corev1.Pod, had map[string]string) error {
	var note injection
	if err := json.Unmarshal([]byte(pod.Annotations[AnnotationStatus]), &note); err != nil {
		return fmt.Errorf("reading the status: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(own(pod.Annotations))) {
		if _, ok := had[key]; !ok {
			note.Carried = append(note.Carried, strings.TrimPrefix(key, Prefix))
		}
	}
	status, err := json.Marshal(note)
	if err != nil {
		return fmt.Errorf("noting what was carried: %w", err)
	}
	pod.Annotations[AnnotationStatus] = string(status)
	return nil
}

// Undo returns the pod, or the workload, without what Pod or Template added. The
// argument is not touched. What has no sidecar that says it is elector's is returned
// as it is.
//
// The result asks for a sidecar as before. It is what was there before, but for
// four things that an injected pod does not show: a label elector.io/role, which
// had no effect; a mount of the status volume, and the variables ELECTOR_STATUS_DIR
// and ELECTOR_URL with the same values, that a container had of its own; whether
// an empty list or map was written out; and a status that was no sidecar's.
func Undo(obj runtime.Object) (runtime.Object, error) {
	out := obj.DeepCopyObject()
	if pod, ok := out.(*corev1.Pod); ok {
		undo(&pod.ObjectMeta, &pod.Spec)
		return out, nil
	}
	w, err := open(out)
	if err != nil {
		return nil, err
	}
	undo(&w.template.ObjectMeta, &w.template.Spec)
	return out, nil
}

func undo(meta *metav1.ObjectMeta, spec *corev1.PodSpec) {
	pod := &corev1.Pod{ObjectMeta: *meta, Spec: *spec}
	if _, injected := StatusOf(pod); !injected {
		return
	}
	var note injection
	// StatusOf has read it.
	_ = json.Unmarshal([]byte(meta.Annotations[AnnotationStatus]), &note)
	p := toldBy(meta.Annotations)
	for _, name := range note.Carried {
		if isKnown(Prefix + name) {
			delete(meta.Annotations, Prefix+name)
		}
	}
	delete(meta.Annotations, AnnotationStatus)
	delete(meta.Labels, LabelInjected)
	delete(meta.Labels, LabelRole)
	if len(meta.Annotations) == 0 {
		meta.Annotations = nil
	}
	if len(meta.Labels) == 0 {
		meta.Labels = nil
	}
	sidecar := &spec.InitContainers[slices.IndexFunc(spec.InitContainers, isNamedElector)]
	was, gated := specOf(sidecar)
	if gated {
		port, _ := parsePort(keyHealthPort, portOf("health-address")(sidecar)) // 0 is nobody's
		ungate(spec, was, port, note.Asked)
	}
	spec.InitContainers = without(spec.InitContainers, isNamedElector)
	spec.Volumes = without(spec.Volumes, func(v corev1.Volume) bool {
		return v.Name == VolumeStatus || v.Name == VolumeToken || gated && v.Name == VolumeGate
	})
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			p.untell(&list[i])
		}
	}
}

// toldBy is as much of a plan as an app is told of it. The pod was admitted
// with these annotations; one that cannot be read was changed since, and its default
// is looked for.
func toldBy(given map[string]string) plan {
	p := plan{statusDir: statusDir, port: defaultPort}
	if v, ok := given[Prefix+keyStatusDir]; ok {
		_ = readStatusDir(&p, v)
	}
	if v, ok := given[Prefix+keyPort]; ok {
		if port, err := parsePort(keyPort, v); err == nil {
			p.port = port
		}
	}
	return p
}

// untell takes back what tell gave. A POD_NAME that was there before stands
// before the variables of tell's, not behind them.
func (p plan) untell(c *corev1.Container) {
	c.VolumeMounts = without(c.VolumeMounts, p.isStatusMount)
	ours, told := p.variables(), false
	podName := fromField("POD_NAME", "metadata.name")
	c.Env = without(c.Env, func(have corev1.EnvVar) bool {
		if slices.Contains(ours, have) {
			told = true
			return true
		}
		return told && have.Name == podName.Name && have.ValueFrom != nil && have.ValueFrom.FieldRef != nil && *have.ValueFrom.FieldRef == *podName.ValueFrom.FieldRef
	})
}

// without returns a list less some of its elements, and nil for an empty one.
func without[E any](list []E, remove func(E) bool) []E {
	var left []E
	for _, e := range list {
		if !remove(e) {
			left = append(left, e)
		}
	}
	return left
}
