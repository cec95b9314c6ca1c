package inject

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestOverlooked(t *testing.T) {
	t.Parallel()
	deployment := func(labels, annotations, template map[string]string) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: labels, Annotations: annotations}}
		d.Spec.Template.Annotations = template
		return d
	}
	owned := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{"elector.io/lokc": "web"}, OwnerReferences: []metav1.OwnerReference{{Kind: "Deployment", Controller: new(true)}},
	}}
	job := &batchv1.Job{}
	job.Spec.Template.Labels = map[string]string{"elector.io/enabled": "true"}
	asks := map[string]string{"elector.io/enabled": "true"}
	tests := map[string]struct {
		reason string
		obj    runtime.Object
		want   []string
	}{
		"sound":     {"what elector noted is its own", deployment(nil, map[string]string{"elector.io/enabled": "true", AnnotationCarried: "{}"}, asks), nil},
		"typo":      {"", deployment(nil, map[string]string{"elector.io/enabled": "true", "elector.io/lokc": "web"}, asks), []string{`elector.io: the annotation "elector.io/lokc" is unknown and has no effect, the nearest known one is "elector.io/lock"`}},
		"label":     {"", deployment(asks, nil, nil), []string{`elector.io: the label "elector.io/enabled" has no effect, write it as an annotation`}},
		"job":       {"in the template", job, []string{`elector.io: the label "elector.io/enabled" has no effect, write it as an annotation`}},
		"overruled": {"", deployment(nil, asks, map[string]string{"elector.io/enabled": "false"}), []string{`elector.io: the annotation "elector.io/enabled" of the workload has no effect, because its pod template has another`}},
		"injected":  {"by kubectl elector inject", deployment(nil, asks, map[string]string{"elector.io/enabled": "true", AnnotationStatus: "{}"}), nil},
		"owned":     {"its owner is told", owned, nil},
		"unknown":   {"", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Labels: asks}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := test.obj.DeepCopyObject()
			if diff := cmp.Diff(test.want, Overlooked(test.obj)); diff != "" {
				t.Errorf("%s\n%s", test.reason, diff)
			}
			if diff := cmp.Diff(before, test.obj); diff != "" {
				t.Errorf("the workload was touched\n%s", diff)
			}
		})
	}
}
