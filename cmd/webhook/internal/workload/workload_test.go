package workload

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestKindOf(t *testing.T) {
	tests := map[string]struct {
		reason, apiVersion, kind string
		want                     string // its version, and what may be behind it
	}{
		"ReplicaSet":        {"a Deployment may have made it", "apps/v1", "ReplicaSet", "apps/v1 Deployment"},
		"Job":               {"a CronJob may have made it", "batch/v1", "Job", "batch/v1 CronJob"},
		"StatefulSet":       {"nothing is behind it", "apps/v1", "StatefulSet", "apps/v1 "},
		"DaemonSet":         {"nothing is behind it", "apps/v1", "DaemonSet", "apps/v1 "},
		"another version":   {"of the same kind", "apps/v9", "ReplicaSet", "apps/v1 Deployment"},
		"core":              {"it has no group", "v1", "ReplicationController", "v1 "},
		"Deployment":        {"it makes no pods itself", "apps/v1", "Deployment", ""},
		"Node":              {"it makes no pods", "v1", "Node", ""},
		"another group":     {"a kind of that name", "example.com/v1", "ReplicaSet", ""},
		"a version of none": {"there is none", "a/b/c", "ReplicaSet", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			kind, ok := KindOf(tc.apiVersion, tc.kind)
			if got := kind.APIVersion + " " + kind.Behind.Kind; ok != (tc.want != "") || ok && got != tc.want {
				t.Errorf("%s: got %q %v, want %q", tc.reason, got, ok, tc.want)
			}
		})
	}
}

func TestController(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	ref := func(name string, uid types.UID, controls bool) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name, UID: uid, Controller: &controls}
	}
	tests := map[string]struct {
		reason string
		refs   []metav1.OwnerReference
		want   string
	}{
		"one of two": {"owners need not control", []metav1.OwnerReference{ref("other", "1", false), ref("web-1", "2", true)}, "web-1"},
		"none":       {"nobody made it", nil, ""},
		"long name":  {"no object has it", []metav1.OwnerReference{ref(long, "1", true)}, ""},
		"long UID":   {"no object has it", []metav1.OwnerReference{ref("web-1", types.UID(long), true)}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := Controller(&metav1.ObjectMeta{OwnerReferences: tc.refs})
			if (got != nil) != (tc.want != "") || got != nil && got.Name != tc.want {
				t.Errorf("%s: got %v, want %q", tc.reason, got, tc.want)
			}
		})
	}
}
