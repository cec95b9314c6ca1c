package admit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/cmd/internal/object"
	"github.com/elector-io/elector/inject"
)

// patchPod returns the JSON patch that gives the pod its sidecar, or nil if nothing
// is to change. raw is what the pod was read from, and plain what object.Decode says of
// it.
//
// Nearly always something is added, and inject says what. That takes a fraction of the
// time of comparing the whole pod before and after.
func patchPod(raw []byte, plain bool, pod *corev1.Pod, opts inject.Options) ([]byte, error) {
	a, err := inject.Add(pod, opts)
	if err != nil {
		return nil, err
	}
	if plain && !a.Moves && !a.Closes {
		return encode(additions(pod, &a))
	}
	out, err := inject.Pod(pod, opts)
	if err != nil {
		return nil, err
	}
	patch, err := object.Patch(raw, pod, out)
	if err != nil {
		return nil, err
	}
	return encode(patch)
}

// encode returns the operations as JSON, nil if there are none.
func encode[O any](patch []O) ([]byte, error) {
	if len(patch) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("writing the patch: %w", err)
	}
	return text, nil
}

// addition is one operation of a JSON patch. One that adds a field which is there
// replaces it.
type addition struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// additions returns what makes of the pod, as it was sent, what it is with the addition.
// The pod is plain: a list or a map that is nil here is not there, or null, and is
// added as a whole; anything else is there, with all that the types do not know of it.
// Only a container that is null is taken for an empty one, to which nothing can be added:
// the patch does not apply. API servers send what they have read, in which there is none.
func additions(pod *corev1.Pod, a *inject.Addition) []addition {
	var patch patch
	addFields(&patch, "/metadata/annotations", pod.Annotations, a.Annotations)
	addFields(&patch, "/metadata/labels", pod.Labels, a.Labels)
	addElements(&patch, "/spec/volumes", pod.Spec.Volumes, a.Volumes)
	patch.tell("/spec/containers/", pod.Spec.Containers, a.Containers)
	// Before the sidecar is among them, by which their indices change.
	patch.tell("/spec/initContainers/", pod.Spec.InitContainers, a.InitContainers)
	switch {
	case a.Sidecar == nil:
	case pod.Spec.InitContainers == nil:
		patch.add("/spec/initContainers", []*corev1.Container{a.Sidecar})
	default:
		patch.add("/spec/initContainers/"+strconv.Itoa(a.Place), a.Sidecar)
	}
	return patch
}

type patch []addition

func (p *patch) add(path string, value any) { *p = append(*p, addition{"add", path, value}) }

func (p *patch) tell(path string, have []corev1.Container, told []inject.Told) {
	for i := range told {
		at := path + strconv.Itoa(i)
		addElements(p, at+"/env", have[i].Env, told[i].Env)
		addElements(p, at+"/volumeMounts", have[i].VolumeMounts, told[i].VolumeMounts)
	}
}

func addFields(p *patch, path string, have, more map[string]string) {
	if have == nil && len(more) > 0 {
		p.add(path, more)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(more)) {
		p.add(path+"/"+pointerEscapes.Replace(key), more[key])
	}
}

func addElements[E any](p *patch, path string, have, more []E) {
	if have == nil && len(more) > 0 {
		p.add(path, more)
		return
	}
	for i := range more {
		p.add(path+"/-", &more[i])
	}
}

// pointerEscapes are RFC 6901's for one element of a path.
var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")
