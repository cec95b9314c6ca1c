package inject

import (
	"strings"
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

func TestLockOfALongName(t *testing.T) {
	pod := electedPod()
	pod.Name = strings.Repeat("a", 250)
	if _, err := Pod(pod, options); err != nil {
		t.Errorf("a Lease of the pod's name is refused: %v", err)
	}
	pod.Annotations[Prefix+keyMode] = "leader-for-life"
	_, err := Pod(pod, options)
	want := `elector.io/enabled "true" is not allowed: after its workload the lock would have a name of 255 characters, of which 253 are allowed, so name the lock with elector.io/lock`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	pod.Annotations[Prefix+keyLock] = "short"
	if _, err := Pod(pod, options); err != nil {
		t.Errorf("with a name it is refused: %v", err)
	}
}
