package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Warnings returns one sentence for each thing about the pod that is legal but
// unwise, in a fixed order. The API server shows them to whoever sent the
// request. For a pod that a controller made, that is the controller's log, so
// only what is surely a mistake is said there; Workload says the rest to the
// person.
func Warnings(pod *corev1.Pod, opts Options) []string {
	warnings := unknownKeys(pod.Annotations, AnnotationStatus)
	if wanted, err := asks(pod.Annotations); err != nil || !wanted || metav1.GetControllerOfNoCopy(pod) != nil {
		return warnings
	}
	status, _ := StatusOf(pod)
	return append(warnings, unwise(pod, status.Lock, opts)...)
}

// unwise reports on a pod, or a template, that asks. lock is the one that the pod
// has, if it has one.
func unwise(pod *corev1.Pod, lock string, opts Options) []string {
	p, err := newPlan(&pod.ObjectMeta, lock, opts.withDefaults())
	if err != nil {
		return nil // It is refused, with this error.
	}
	var warnings []string
	if serviceAccount(&pod.Spec) == "default" {
		warnings = append(warnings, fmt.Sprintf(
			"elector.io: every pod of the namespace that uses the ServiceAccount \"default\" will be able to write the lock %q, give this workload a ServiceAccount of its own",
			shorten(p.settings.Lock)))
	}
	if pod.Spec.HostNetwork {
		warnings = append(warnings, fmt.Sprintf(
			"elector.io: with hostNetwork the ports %d and %d are taken on the node, so it runs one such pod, and all its processes can reach them", p.port, p.healthPort))
	}
	return warnings
}

// unknownKeys reports annotations under our prefix that have no effect, apart from
// those that elector sets itself on such an object.
func unknownKeys(given map[string]string, ours string) []string {
	var warnings []string
	for key := range given {
		name, ok := strings.CutPrefix(key, Prefix)
		if !ok || isKnown(key) || key == ours {
			continue
		}
		warnings = append(warnings, fmt.Sprintf("elector.io: the annotation %q %s", shorten(key), unread(name)))
	}
	slices.Sort(warnings)
	return warnings[:min(len(warnings), maxListed)]
}

// unread says why the annotation has no effect, and what was probably meant.
func unread(name string) string {
	if why, ok := notForUsers[name]; ok {
		return "has no effect, " + why
	}
	const unknown = "is unknown and has no effect, "
	if near := nearest(name); near != "" {
		return fmt.Sprintf(unknown+"the nearest known one is %q", near)
	}
	return unknown + "docs/reference.md lists the known ones"
}

// mistaken is a prefix that is taken for elector's.
const mistaken = "elector/"

// overlooked reports what looks like an annotation of elector's and is none, and
// annotations that nothing makes count.
func (w workload) overlooked() []string {
	var warnings []string
	all := w.everywhere()
	for _, a := range annotations {
		name := strings.TrimPrefix(a.Key, Prefix)
		if _, ok := all[mistaken+name]; ok {
			warnings = append(warnings, fmt.Sprintf("elector.io: the annotation %q has no effect, write it as %q", mistaken+name, a.Key))
		}
		_, annotated := all[a.Key]
		_, labelled := union(w.template.Labels, w.meta.Labels)[a.Key]
		if labelled && !annotated {
			warnings = append(warnings, fmt.Sprintf("elector.io: the label %q has no effect, write it as an annotation", a.Key))
		}
	}
	if _, ok := all[Prefix+keyEnabled]; !ok && len(own(all)) > 0 {
		warnings = append(warnings, fmt.Sprintf("elector.io: without the annotation %q the others have no effect", Prefix+keyEnabled))
	}
	return warnings
}

// contradictions reports the workload's annotations that its template overrules.
func (w workload) contradictions() []string {
	var warnings []string
	for _, a := range annotations {
		workload, ok := w.meta.Annotations[a.Key]
		template, ok2 := w.template.Annotations[a.Key]
		if ok && ok2 && workload != template {
			warnings = append(warnings, fmt.Sprintf("elector.io: the annotation %q of the workload has no effect, because its pod template has another", a.Key))
		}
	}
	return warnings
}

// nearest returns the known annotation that name was probably meant to be: one
// that it is a part of or the other way round, or the one that takes the fewest
// edits, if these are few. It is empty if there is none.
func nearest(name string) string {
	// A valid annotation has at most 63 characters here; longer ones come before
	// the API server's validation and need not cost more.
	name = strings.ToLower(name[:min(len(name), 63)])
	far := func(a Annotation) int { // in halves of an edit
		known := strings.TrimPrefix(a.Key, Prefix)
		if len(name) >= minPart && (strings.Contains(known, name) || strings.Contains(name, known)) {
			return min(3, 2*Distance(name, known))
		}
		return 2 * Distance(name, known)
	}
	best := slices.MinFunc(annotations, func(a, b Annotation) int { return far(a) - far(b) })
	if far(best) > 2*max(2, len(name)/3) {
		return ""
	}
	return best.Key
}

// minPart is the least length of a name that says something as a part of another.
const minPart = 3

// Distance is how many bytes have to be added, removed or replaced to make one
// name of another, which is Levenshtein's distance. It takes time by the product
// of their lengths.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Overlooked returns a sentence for each annotation or label of a stored workload
// that looks like one of elector's and has no effect, in a fixed order. They are
// among the warnings that Workload gives to whoever writes it, who may not have
// read them. A ReplicaSet that a controller owns has what its owner has, and so
// none, and so do kinds that Workload does not know.
func Overlooked(obj runtime.Object) []string {
	w, err := open(obj)
	if err != nil || w.isLeftAlone() {
		return nil
	}
	given := w.everywhere()
	delete(given, AnnotationStatus) // elector's own, in a template of Template's
	return slices.Concat(unknownKeys(given, AnnotationCarried), w.overlooked(), w.contradictions())
}
