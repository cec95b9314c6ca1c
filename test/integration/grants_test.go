//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
)

// claim makes a pod that never runs and contends for a lock, and waits until it is granted that.
func (s *space) claim(lock string, mode elector.Mode) (binding string) {
	s.t.Helper()
	s.pending("claims", "default", annotations(mode, "lock", lock))
	kind := "lease"
	if mode == elector.ModeLeaderForLife {
		kind = "configmap"
	}
	binding = "elector:" + kind + ":" + lock + ":default"
	s.awaitBinding(binding, true)
	return binding
}

func (s *space) awaitBinding(name string, there bool) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("RoleBinding %s there: %t", name, there), func(ctx context.Context) error {
		_, err := cluster.Client().RbacV1().RoleBindings(s.name).Get(ctx, name, metav1.GetOptions{})
		switch {
		case there || err != nil && !apierrors.IsNotFound(err):
			return err
		case err == nil:
			return errors.New("it is there")
		}
		return nil
	})
}

// awaitEvent waits for an Event about an object.
func (s *space) awaitEvent(kind, reason, text string) {
	s.t.Helper()
	eventually(s.t, "the Event "+reason+" on the "+kind, func(ctx context.Context) error {
		events, err := cluster.Client().CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=" + kind + ",reason=" + reason})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Type == "Warning" && strings.Contains(e.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("there are %d others", len(events.Items))
	})
}

func (s *space) configMap(annotations, data map[string]string) {
	s.t.Helper()
	_, err := cluster.Client().CoreV1().ConfigMaps(s.name).Create(s.t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "app-config", Annotations: annotations}, Data: data,
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestCreatedLater holds that a pod which claims a name does not keep what somebody else makes under it, and that the name is free for
// it again when that goes.
func TestCreatedLater(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	binding := s.claim("app-config", elector.ModeLeaderForLife)
	secret := map[string]string{"password": "1234"}
	made := time.Now()
	s.configMap(nil, secret)
	s.awaitBinding(binding, false)
	t.Logf("revoked %s after the ConfigMap was made", time.Since(made))
	if _, err := s.as("default").CoreV1().ConfigMaps(s.name).Get(t.Context(), "app-config", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the pod's ServiceAccount reads it: %v", err)
	}
	s.awaitEvent("Pod", "LockNotGranted", "ConfigMap "+s.name+"/app-config exists and is not elector's")
	s.awaitEvent("ConfigMap", "LockRevoked", "Until now pods with the ServiceAccount default could use it as their lock")

	s.kubectl("delete", "configmap", "app-config")
	gone := time.Now()
	s.awaitBinding(binding, true)
	t.Logf("granted %s after it was gone", time.Since(gone))

	// Absent for a moment: what comes back need not be what went.
	s.configMap(map[string]string{"elector.io/adopt": "true"}, secret)
	s.kubectl("delete", "configmap", "app-config")
	s.configMap(nil, secret)
	s.awaitBinding(binding, false)
	s.kubectl("annotate", "configmap", "app-config", "elector.io/adopt=true")
	s.awaitBinding(binding, true)
	s.kubectl("annotate", "configmap", "app-config", "elector.io/adopt-")
	s.awaitBinding(binding, false)
}

// TestCreatedLaterLease is the same with a Lease.
func TestCreatedLaterLease(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	binding := s.claim("billing", elector.ModeLease)
	s.kubectl("create", "-f", "testdata/billing.yaml")
	s.awaitBinding(binding, false)
	s.awaitEvent("Lease", "LockRevoked", "Lease "+s.name+"/billing exists and is not elector's")
	s.kubectl("delete", "lease", "billing")
	s.awaitBinding(binding, true)
}

// TestDataInLock has configuration that is applied to a lock: it keeps the lock's label.
func TestDataInLock(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	e := s.elect(s.deployment("web", annotations(elector.ModeLeaderForLife, "lock", "web")))
	e.awaitLeader("")
	const binding = "elector:configmap:web:default"
	s.kubectl("patch", "configmap", "web", "-p", `{"data":{"password":"1234"}}`)
	s.awaitBinding(binding, false)
	s.awaitEvent("Deployment", "LockNotGranted", "ConfigMap "+s.name+"/web holds data")
	s.awaitEvent("ConfigMap", "LockRevoked", "ConfigMap "+s.name+"/web holds data")
	s.kubectl("patch", "configmap", "web", "-p", `{"data":null}`)
	s.awaitBinding(binding, true)
}

// TestForeignRole has somebody's Role of the name that the grant needs.
func TestForeignRole(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "elector:lease:single"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}},
	}
	if _, err := cluster.Client().RbacV1().Roles(s.name).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := cluster.Client().CoreV1().Pods(s.name).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "single", Annotations: map[string]string{"elector.io/enabled": "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app", Command: []string{"sleep", "3600"}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.awaitEvent("Pod", "LockNotGranted", "Role "+s.name+"/elector:lease:single exists and is not elector's")
	now, err := cluster.Client().RbacV1().Roles(s.name).Get(t.Context(), role.Name, metav1.GetOptions{})
	if err != nil || len(now.Rules) != 1 || now.Rules[0].Resources[0] != "secrets" || len(now.Labels) > 0 {
		t.Errorf("the Role was changed: %+v, %v", now, err)
	}
	if out := s.kubectl("get", "rolebindings", "-o", "name"); out != "" {
		t.Errorf("bound all the same: %s", out)
	}
	s.kubectl("delete", "role", role.Name)
	s.awaitBinding("elector:lease:single:default", true)
}

// TestMarks holds that the rights of a grant do not suffice to keep it: whoever has no others to an object cannot give it to elector.
func TestMarks(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	const tenant = "tenant"
	if _, err := cluster.Client().CoreV1().ServiceAccounts(s.name).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: tenant}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: tenant}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"app-config"}, Verbs: []string{"get", "patch", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}},
	}}
	if _, err := cluster.Client().RbacV1().Roles(s.name).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.kubectl("create", "rolebinding", tenant, "--role="+tenant, "--serviceaccount="+s.name+":"+tenant)
	s.configMap(nil, map[string]string{"password": "1234"})
	configMaps := s.as(tenant).CoreV1().ConfigMaps(s.name)
	patch := func(metadata string) error {
		return second(configMaps.Patch(t.Context(), "app-config", types.MergePatchType, []byte(`{"metadata":`+metadata+`}`), metav1.PatchOptions{}))
	}
	create := func(labels, annotations map[string]string) error {
		return second(configMaps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "new-", Labels: labels, Annotations: annotations}}, metav1.CreateOptions{}))
	}
	eventually(t, "the tenant's rights", func(context.Context) error { return patch(`{"labels":{"mine":"yes"}}`) })
	ours, adopted := map[string]string{"app.kubernetes.io/managed-by": "elector"}, map[string]string{"elector.io/adopt": "true"}
	for what, err := range map[string]error{
		"the label":                patch(`{"labels":{"app.kubernetes.io/managed-by":"elector"}}`),
		"the annotation":           patch(`{"annotations":{"elector.io/adopt":"true"}}`),
		"both":                     patch(`{"labels":{"app.kubernetes.io/managed-by":"elector"},"annotations":{"elector.io/adopt":"true"}}`),
		"a new one's annotation":   create(nil, adopted),
		"a new lock's annotation":  create(ours, adopted),
		"the annotation by itself": patch(`{"annotations":{"elector.io/adopt":"true","mine":"yes"}}`),
	} {
		const want = "to give a lock to elector, by the label app.kubernetes.io/managed-by or the annotation elector.io/adopt, takes the right to change all configmaps of the namespace"
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want 403 and %q", what, err, want)
		}
	}
	if err := errors.Join(create(ours, nil), create(nil, nil), patch(`{"annotations":{"elector.io/adopt":"false"}}`)); err != nil {
		t.Errorf("what gives nothing away is refused: %v", err)
	}
	s.kubectl("annotate", "--overwrite", "configmap", "app-config", "elector.io/adopt=true") // by who may change all
	if err := patch(`{"labels":{"mine":"still"}}`); err != nil {
		t.Errorf("a mark that was there before: %v", err)
	}
}
