package inject

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRevisionsOfAKnativeConfiguration(t *testing.T) {
	for _, revision := range []string{"web-00001", "web-00002"} {
		got, err := workloadName(&metav1.ObjectMeta{
			Name:            revision + "-deployment-5d4f-x",
			Labels:          map[string]string{"pod-template-hash": "5d4f", "serving.knative.dev/configuration": "web", "serving.knative.dev/revision": revision},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: revision + "-deployment-5d4f", Controller: new(true)}},
		})
		if err != nil || got != "web" {
			t.Errorf("without a Service, %s is of the workload %q, %v", revision, got, err)
		}
	}
}
