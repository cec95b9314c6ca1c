package sim

import (
	"errors"
	"testing"
	"time"
)

// TestAPI holds what the simulated API server shares with the real one.
func TestAPI(t *testing.T) {
	lease := func(spec map[string]any) object {
		return object{"metadata": map[string]any{"name": lockName}, "spec": spec}
	}
	for name, tc := range map[string]struct {
		do   func(a *api) error
		want int // the status code of the error; 0 for none
	}{
		"negative transitions": {func(a *api) error {
			_, err := a.create("leases", lease(map[string]any{"leaseTransitions": -1}))
			return err
		}, 422},
		"no duration": {func(a *api) error {
			_, err := a.create("leases", lease(map[string]any{"leaseDurationSeconds": 0}))
			return err
		}, 422},
		"beyond int32": {func(a *api) error {
			_, err := a.create("leases", lease(map[string]any{"leaseTransitions": 1 << 31}))
			return err
		}, 400},
		"patch of what there is": {func(a *api) error {
			_, err := a.patch("configmaps", lockName, object{"metadata": map[string]any{"uid": "object-1", "resourceVersion": "1001", "labels": nil}})
			return err
		}, 0},
		"patch of another version": {func(a *api) error {
			_, err := a.patch("configmaps", lockName, object{"metadata": map[string]any{"resourceVersion": "1000"}})
			return err
		}, 409},
		"patch of another object": {func(a *api) error {
			_, err := a.patch("configmaps", lockName, object{"metadata": map[string]any{"uid": "object-2"}})
			return err
		}, 409},
		"patch of what is gone": {func(a *api) error {
			_, err := a.patch("leases", lockName, object{})
			return err
		}, 404},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			if _, err := a.create("configmaps", object{"metadata": map[string]any{"name": lockName, "labels": map[string]any{"a": "b"}}}); err != nil {
				t.Fatal(err)
			}
			got := 0
			if failure, ok := errors.AsType[*apiError](tc.do(a)); ok {
				got = failure.code
			}
			if got != tc.want {
				t.Errorf("code %d, want %d", got, tc.want)
			}
		})
	}
}

// TestRestore puts an object back to an earlier state, in the earlier version.
func TestRestore(t *testing.T) {
	a := newAPI()
	o, err := a.create("leases", object{"metadata": map[string]any{"name": lockName}, "spec": map[string]any{"holderIdentity": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	first := o.version()
	later := o.clone()
	later["spec"] = map[string]any{"holderIdentity": "b"}
	if _, err := a.update("leases", lockName, later); err != nil {
		t.Fatal(err)
	}
	a.restore(first)
	items, version := a.list("leases", lockName, 0)
	if len(items) != 1 || items[0].version() != first || version != first || items[0]["spec"].(map[string]any)["holderIdentity"] != "a" {
		t.Errorf("restored to %v at %d", items, version)
	}
	if found, _, err := a.since("leases", lockName, first, time.Duration(0)); err != nil || len(found) > 0 {
		t.Errorf("a watch is told %v, %v", found, err)
	}
}

// TestTaken tells how the holder of a lock came to have it, whatever was written into
// it later.
func TestTaken(t *testing.T) {
	for name, tc := range map[string]struct {
		holders   []string // of one state after the other, of versions from 1001; - deletes
		made      bool
		by, freed uint64
	}{
		"made":                     {[]string{"a"}, true, 0, 0},
		"made, and renewed":        {[]string{"a", "a", "a"}, true, 0, 0},
		"made after another":       {[]string{"b", "-", "a", "a"}, true, 1003, 1002},
		"taken over":               {[]string{"b", "a"}, false, 0, 0},
		"released":                 {[]string{"b", "", "a", "a"}, false, 1003, 1002},
		"written to while free":    {[]string{"b", "", "", "a"}, false, 0, 0},
		"made for nobody":          {[]string{"", "a"}, false, 0, 0},
		"given away, and back":     {[]string{"a", "b", "a"}, false, 0, 0},
		"deleted":                  {[]string{"a", "-"}, false, 0, 0},
		"another's after that":     {[]string{"a", "-", "b"}, false, 1003, 1002},
		"another's since it is so": {[]string{"a", "", "b", "b"}, false, 1003, 1002},
		"never there":              {nil, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			const key = "leases/" + lockName
			a := newAPI()
			for i, holder := range tc.holders {
				o := object{"metadata": map[string]any{"name": lockName}, "spec": map[string]any{"holderIdentity": holder, "leaseTransitions": i}}
				var err error
				switch {
				case holder == "-":
					err = a.remove("leases", lockName, "", "")
				case a.objects[key] == nil:
					_, err = a.create("leases", o)
				default:
					_, err = a.update("leases", lockName, o)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			now := a.version
			a.commit("ADDED", "leases/other", object{"metadata": map[string]any{"name": "other"}})
			a.commit("MODIFIED", key, object{"metadata": map[string]any{"name": lockName}}) // later
			if got := a.madeBy(key, "a", now); got != tc.made {
				t.Errorf("made by a: %v, want %v", got, tc.made)
			}
			var by, freed uint64
			if b, f := a.taken(key, now); b != nil {
				by, freed = b.version, f.version
			}
			if by != tc.by || freed != tc.freed {
				t.Errorf("taken by %d, freed by %d; want %d, %d", by, freed, tc.by, tc.freed)
			}
		})
	}
}
