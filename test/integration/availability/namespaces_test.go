//go:build integration

package availability

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/inject"
)

// What the namespaceSelector does not select gets no grant either: a pod there was never admitted, whatever it looks like. What it
// selects no more loses it.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	i := prepare(t)
	label := func(value string) {
		t.Helper()
		i.kubectl("label", "--overwrite", "namespace", i.apps, "elected="+value)
	}
	label("yes")
	i.helm("install", "webhook.namespaceSelector.matchLabels.elected=yes")

	pods := cluster.Client().CoreV1()
	forged := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "forged", Labels: map[string]string{inject.LabelInjected: "true"},
			Annotations: map[string]string{inject.AnnotationStatus: `{"lock":"forged","mode":"lease"}`},
		},
		Spec: corev1.PodSpec{
			NodeSelector:   map[string]string{"example.com/place": "nowhere"},
			InitContainers: []corev1.Container{{Name: inject.ContainerName, Image: "any", Args: []string{"--lock=forged"}}},
			Containers:     []corev1.Container{{Name: "app", Image: "any"}},
		},
	}
	if _, err := pods.Pods(i.name).Create(t.Context(), forged, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	asks := forged.DeepCopy()
	asks.Name, asks.Labels, asks.Spec.InitContainers = "asks", nil, nil
	asks.Annotations = asking()
	if _, err := pods.Pods(i.apps).Create(t.Context(), asks, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	granted := func(namespace string) (names []string, err error) {
		bindings, err := cluster.Client().RbacV1().RoleBindings(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=elector"})
		for _, b := range bindings.Items {
			names = append(names, b.Name)
		}
		return names, err
	}
	await := func(what string, there bool) {
		t.Helper()
		eventually(t, what, func(context.Context) error {
			names, err := granted(i.apps)
			if err == nil && (len(names) > 0) != there {
				err = fmt.Errorf("granted is %v", names)
			}
			return err
		})
	}
	told := func(namespace string) {
		t.Helper()
		eventually(t, "the Event in "+namespace, func(ctx context.Context) error {
			events, err := pods.Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=LockNotGranted"})
			if err != nil {
				return err
			}
			for _, e := range events.Items {
				if strings.Contains(e.Message, "elector does not work in the namespace "+namespace) {
					return nil
				}
			}
			return errors.New("nobody is told")
		})
	}
	await("the grant where it is selected", true)
	told(i.name)
	if names, err := granted(i.name); err != nil || len(names) > 0 {
		t.Errorf("granted where nothing is selected: %v, %v", names, err)
	}
	label("no")
	await("the grant to go", false)
	told(i.apps)
	label("yes")
	await("the grant to come back", true)
}
