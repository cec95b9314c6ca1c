package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Warnings returns one sentence for each thing about the pod that is legal but
// unwise, in a fixed order. The API server shows them to whoever sent the
// request. For a pod that a controller made, that is the controller's log, so
// only what is surely a mistake is said there; Workload says the rest to the
// person.
func Warnings(pod *corev1.Pod, opts Options) []string {
	warnings := unknownKeys(pod.Annotations)
	if wanted, err := asks(pod.Annotations); err != nil || !wanted || metav1.GetControllerOfNoCopy(pod) != nil {
		return warnings
	}
	return append(warnings, unwise(&pod.ObjectMeta, &pod.Spec, opts)...)
}

// unwise reports on a pod, or a template, that asks.
func unwise(meta *metav1.ObjectMeta, spec *corev1.PodSpec, opts Options) []string {
	p, err := newPlan(meta.Annotations, lockName(meta), opts.withDefaults())
	if err != nil {
		return nil // It is refused, with this error.
	}
	var warnings []string
	if serviceAccount(spec) == "default" {
		warnings = append(warnings, fmt.Sprintf(
			"elector.io: every pod of the namespace that uses the ServiceAccount \"default\" will be able to write the lock %q, give this workload a ServiceAccount of its own",
			shorten(p.settings.Lock)))
	}
	if spec.HostNetwork {
		warnings = append(warnings, fmt.Sprintf(
			"elector.io: with hostNetwork the ports %d and %d are taken on the node, so it runs one such pod, and all its processes can reach them", p.port, p.healthPort))
	}
	return warnings
}

// unknownKeys reports annotations under our prefix that nobody reads.
func unknownKeys(annotations map[string]string) []string {
	var warnings []string
	for key := range annotations {
		name, ok := strings.CutPrefix(key, Prefix)
		if !ok || slices.Contains(keys, name) || key == AnnotationStatus || key == AnnotationCarried {
			continue
		}
		warnings = append(warnings, fmt.Sprintf("elector.io: the annotation %q is unknown and has no effect, the nearest known one is %q", shorten(key), Prefix+nearestKey(name)))
	}
	slices.Sort(warnings)
	return warnings[:min(len(warnings), maxListed)]
}

// nearestKey returns the known key that takes the fewest edits.
func nearestKey(name string) string {
	// A valid annotation has at most 63 characters here; longer ones come before
	// the API server's validation and need not cost more.
	name = strings.ToLower(name[:min(len(name), 63)])
	return slices.MinFunc(keys, func(a, b string) int { return distance(name, a) - distance(name, b) })
}

// distance is Levenshtein's, over bytes.
func distance(a, b string) int {
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
