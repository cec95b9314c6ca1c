package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
)

// place is where a pod may have a field that an injector does not know, because the API server is newer.
type place struct {
	name  string
	steps []any // to the object: names of fields, and indices
}

// places are where such fields have been added to pods before.
var places = []place{
	{"metadata", []any{"metadata"}},
	{"spec", []any{"spec"}},
	{"security context", []any{"spec", "securityContext"}},
	{"volume", []any{"spec", "volumes", 0}},
	{"toleration", []any{"spec", "tolerations", 0}},
	{"container", []any{"spec", "containers", 0}},
	{"variable", []any{"spec", "containers", 0, "env", 0}},
	{"mount", []any{"spec", "containers", 0, "volumeMounts", 0}},
	{"probe", []any{"spec", "containers", 0, "livenessProbe"}},
	{"resources", []any{"spec", "containers", 1, "resources"}},
}

// field is what a place's object gets.
func (p place) field() string { return "newIn " + p.name }

// withUnknown gives a pod one field in each place that nobody knows.
func withUnknown(pod []byte) ([]byte, error) {
	var root any
	if err := json.Unmarshal(pod, &root); err != nil {
		return nil, fmt.Errorf("reading a pod: %w", err)
	}
	for _, p := range places {
		object, err := walk(root, p.steps)
		if err != nil {
			return nil, fmt.Errorf("looking for the %s of a pod: %w", p.name, err)
		}
		object[p.field()] = map[string]any{"kept": "as it came"}
	}
	return json.Marshal(root)
}

var errNoPlace = errors.New("there is none")

func walk(from any, steps []any) (map[string]any, error) {
	for _, step := range steps {
		switch at := from.(type) {
		case map[string]any:
			name, _ := step.(string)
			from = at[name]
		case []any:
			i, ok := step.(int)
			if !ok || i >= len(at) {
				return nil, errNoPlace
			}
			from = at[i]
		}
	}
	object, ok := from.(map[string]any)
	if !ok {
		return nil, errNoPlace
	}
	return object, nil
}

// lost names the places whose field the patched pod no longer has, wherever it is now.
func lost(pod []byte) []string {
	var names []string
	for _, p := range places {
		if !bytes.Contains(pod, fmt.Appendf(nil, `"%s":{"kept":"as it came"}`, p.field())) {
			names = append(names, p.name)
		}
	}
	return names
}

// patched is what an API server makes of a pod with an answer.
func patched(pod, answer []byte) ([]byte, error) {
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer, &review); err != nil {
		return nil, fmt.Errorf("reading the answer to a review: %w", err)
	}
	if review.Response == nil || !review.Response.Allowed || len(review.Response.Patch) == 0 {
		return nil, fmt.Errorf("the pod does not get a sidecar: %.500s", answer)
	}
	patch, err := jsonpatch.DecodePatch(review.Response.Patch)
	if err != nil {
		return nil, fmt.Errorf("reading a patch: %w", err)
	}
	out, err := patch.Apply(pod)
	if err != nil {
		return nil, fmt.Errorf("applying a patch: %w", err)
	}
	return out, nil
}

// checkSidecar makes sure that the patched pod has the container.
func checkSidecar(pod []byte, sidecar string) error {
	var has corev1.Pod
	if err := json.Unmarshal(pod, &has); err != nil {
		return fmt.Errorf("reading a patched pod: %w", err)
	}
	if !slices.ContainsFunc(slices.Concat(has.Spec.InitContainers, has.Spec.Containers), func(c corev1.Container) bool { return c.Name == sidecar }) {
		return fmt.Errorf("the patched pod has no container %q", sidecar)
	}
	return nil
}
