package grant

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/cmd/internal/rights"
	"github.com/elector-io/elector/elector"
)

// TestTrim holds that the cache keeps little of a grant, whatever it says, and
// still knows a right one from a wrong one.
func TestTrim(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	longest := lock{Namespace: strings.Repeat("n", 63), Mode: elector.ModeLeaderForLife, Name: strings.Repeat("l", 253)}
	role := roleFor(longest)
	binding := rights.Binding(role, strings.Repeat("a", 253))
	largeRole, largeBinding := role.DeepCopy(), binding.DeepCopy()
	largeRole.Rules[0].ResourceNames = append(largeRole.Rules[0].ResourceNames, large)
	largeBinding.Subjects[0].Name = large
	largeRef := binding.DeepCopy()
	largeRef.RoleRef.Name = large
	tests := map[string]struct {
		object client.Object
		right  bool
	}{
		"Role":                      {role, true},
		"RoleBinding":               {binding, true},
		"large Role":                {largeRole, false},
		"large RoleBinding":         {largeBinding, false},
		"RoleBinding of large name": {largeRef, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			object := tc.object.DeepCopyObject().(client.Object)
			object.SetAnnotations(map[string]string{large: large})
			object.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: large}})
			labels := object.GetLabels()
			labels[large] = large
			object.SetLabels(labels)
			out, err := Trim(object)
			if err != nil {
				t.Fatal(err)
			}
			trimmed := out.(client.Object)
			if size := out.(interface{ Size() int }).Size(); size > 2*maxGrant {
				t.Errorf("%d bytes are kept", size)
			}
			if got := isRight(longest, trimmed); got != tc.right {
				t.Errorf("right: %v", got)
			}
			if trimmed.GetLabels() != nil || trimmed.GetName() != object.GetName() {
				t.Errorf("kept %v of %s, as %s", trimmed.GetLabels(), object.GetName(), trimmed.GetName())
			}
		})
	}
	if other, err := Trim(&rbacv1.ClusterRole{}); err != nil || other == nil {
		t.Error(other, err)
	}
}
