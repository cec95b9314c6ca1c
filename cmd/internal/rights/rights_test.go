package rights

import (
	"strings"
	"testing"

	"github.com/elector-io/elector/elector"
)

func TestLock(t *testing.T) {
	tests := map[string]struct {
		name string
		mode elector.Mode
		lock string
		ok   bool
	}{
		"role":            {"elector:lease:web", elector.ModeLease, "web", true},
		"binding":         {"elector:configmap:web:default", elector.ModeLeaderForLife, "web", true},
		"dots":            {"elector:lease:a.b-c:x.y", elector.ModeLease, "a.b-c", true},
		"somebody's":      {"elector-webhook", "", "", false},
		"other prefix":    {"other:lease:web", "", "", false},
		"unknown kind":    {"elector:secret:web", "", "", false},
		"nothing follows": {"elector:lease", "", "", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			mode, lock, ok := Lock(tc.name)
			if mode != tc.mode || lock != tc.lock || ok != tc.ok {
				t.Errorf("got %q %q %v, want %q %q %v", mode, lock, ok, tc.mode, tc.lock, tc.ok)
			}
			if ok && !strings.HasPrefix(tc.name, Name(mode, lock)) {
				t.Errorf("the role's name %s is not the start of %s", Name(mode, lock), tc.name)
			}
		})
	}
}

// TestBinding: the names of locks and accounts meet in one name, and come apart again.
func TestBinding(t *testing.T) {
	b := Binding(Role(elector.ModeLease, "shop", "web"), "default")
	if b.Name != "elector:lease:web:default" || b.Namespace != "shop" || b.RoleRef.Name != "elector:lease:web" {
		t.Errorf("got %s/%s for the Role %s", b.Namespace, b.Name, b.RoleRef.Name)
	}
}
