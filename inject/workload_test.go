package inject

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestTwoLocks(t *testing.T) {
	pod := electedPod()
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: pod.Annotations}, Spec: pod.Spec}
	meta := metav1.ObjectMeta{Name: "web", Namespace: "shop"}
	deployment := func(replicas int32, strategy appsv1.DeploymentStrategyType) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &replicas, Template: template, Strategy: appsv1.DeploymentStrategy{Type: strategy}}}
	}
	stateful := func(replicas int32) *appsv1.StatefulSet {
		return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &replicas, Template: template}}
	}
	cron := func(policy batchv1.ConcurrencyPolicy) *batchv1.CronJob {
		return &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{ConcurrencyPolicy: policy, JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}}}}
	}
	long := strings.Repeat("a", 100)
	tests := map[string]struct {
		reason   string
		old, new runtime.Object
		was, is  []string // annotations of the template
		want     string   // the locks
	}{
		"mode":              {"a Lease and a ConfigMap", deployment(3, ""), deployment(3, ""), nil, []string{keyMode, "leader-for-life"}, `they had the Lease "web", the new ones get the ConfigMap "web-lock"`},
		"mode, one name":    {"the kind is another", deployment(3, ""), deployment(3, ""), []string{keyLock, "shop"}, []string{keyLock, "shop", keyMode, "leader-for-life"}, `they had the Lease "shop", the new ones get the ConfigMap "shop"`},
		"lock":              {"another name", stateful(3), stateful(3), nil, []string{keyLock, "shop"}, `they had the Lease "web", the new ones get the Lease "shop"`},
		"end of long names": {"what is not shown counts, too", deployment(3, ""), deployment(3, ""), []string{keyLock, long}, []string{keyLock, long + "b"}, "let the old ones end first"},
		"one replica":       {"a rollout has two pods for a while", deployment(1, ""), deployment(1, ""), nil, []string{keyLock, "shop"}, `get the Lease "shop"`},
		"Jobs side by side": {"one may run when the next begins", cron(batchv1.AllowConcurrent), cron(batchv1.AllowConcurrent), nil, []string{keyLock, "shop"}, `get the Lease "shop"`},
		"the default named": {"it is the same lock", deployment(3, ""), deployment(3, ""), nil, []string{keyLock, "web", keyMode, "lease"}, ""},
		"another setting":   {"it is the same lock", deployment(3, ""), deployment(3, ""), nil, []string{keyLogLevel, "3"}, ""},
		"switched off":      {"the new pods do not lead", deployment(3, ""), deployment(3, ""), nil, []string{keyEnabled, "false", keyLock, "shop"}, ""},
		"switched on":       {"the old pods did not lead", deployment(3, ""), deployment(3, ""), []string{keyEnabled, "false"}, []string{keyLock, "shop"}, ""},
		"scaled to 0":       {"there are no new pods", deployment(3, ""), deployment(0, ""), nil, []string{keyLock, "shop"}, ""},
		"scaled from 0":     {"there are no old pods", deployment(0, ""), deployment(3, ""), nil, []string{keyLock, "shop"}, ""},
		"Recreate":          {"the old pods end first", deployment(3, appsv1.RecreateDeploymentStrategyType), deployment(3, appsv1.RecreateDeploymentStrategyType), nil, []string{keyLock, "shop"}, ""},
		"StatefulSet of 1":  {"the old pod ends first", stateful(1), stateful(1), nil, []string{keyLock, "shop"}, ""},
		"Jobs in turn":      {"the old Job ends first", cron(batchv1.ForbidConcurrent), cron(batchv1.ForbidConcurrent), nil, []string{keyLock, "shop"}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			annotate := func(obj runtime.Object, annotations []string) runtime.Object {
				w, err := open(obj)
				if err != nil {
					t.Fatal(err)
				}
				w.template.Annotations = electedPod(annotations...).Annotations
				return obj
			}
			_, warnings, err := Workload(annotate(tc.new, tc.is), annotate(tc.old, tc.was), options)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if i := slices.IndexFunc(warnings, func(w string) bool { return strings.Contains(w, "a leader each") }); i >= 0 {
				got = warnings[i]
			}
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("%s:\n got %q\nwant %q", tc.reason, got, tc.want)
			}
		})
	}
}

// Whoever forbids a mode has workloads that leave it.
func TestTwoLocksOfAForbiddenMode(t *testing.T) {
	old := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Annotations: electedPod(keyMode, "leader-for-life").Annotations}, Spec: electedPod().Spec}}}
	sent := old.DeepCopy()
	delete(sent.Spec.Template.Annotations, Prefix+keyMode)
	o := options
	o.ForbidLeaderForLife = true
	_, warnings, err := Workload(sent, old, o)
	if err != nil || !strings.Contains(strings.Join(warnings, "\n"), `they had the ConfigMap "web-lock"`) {
		t.Errorf("got %q, %v", warnings, err)
	}
}
