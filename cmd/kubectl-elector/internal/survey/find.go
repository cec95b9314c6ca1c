package survey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Reference is how a person names a lock: by its name, or lease/NAME,
// configmap/NAME where both are there.
type Reference struct {
	Name string
	// Modes are those that it may have.
	Modes []elector.Mode
}

// kinds are what may stand before the name.
var kinds = map[string]elector.Mode{
	"lease": elector.ModeLease, "leases": elector.ModeLease, "lease.coordination.k8s.io": elector.ModeLease, "leases.coordination.k8s.io": elector.ModeLease,
	"configmap": elector.ModeLeaderForLife, "configmaps": elector.ModeLeaderForLife, "cm": elector.ModeLeaderForLife,
}

// Parse reads a reference.
func Parse(text string) (Reference, error) {
	kind, name, qualified := strings.Cut(text, "/")
	ref := Reference{Name: name}
	switch mode, known := kinds[strings.ToLower(kind)]; {
	case !qualified:
		ref = Reference{Name: kind, Modes: []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife}}
	case known:
		ref.Modes = []elector.Mode{mode}
	default:
		return ref, fmt.Errorf("%q is no lock: it is NAME, lease/NAME or configmap/NAME", text)
	}
	if len(validation.IsDNS1123Subdomain(ref.Name)) > 0 {
		return ref, fmt.Errorf("%q is no name of a lock: use at most 253 lower-case letters, digits, '-' and '.'", ref.Name)
	}
	return ref, nil
}

// UnknownError says that there is no such lock.
type UnknownError struct {
	Namespace, Name string
	// Near are the names of locks there are, the most similar first.
	Near []string
}

func (e *UnknownError) Error() string {
	if len(e.Near) == 0 {
		return fmt.Sprintf("there is no lock %q in namespace %q, and no other; with -A, `kubectl elector get` looks in all", e.Name, e.Namespace)
	}
	return fmt.Sprintf("there is no lock %q in namespace %q, but there is %s", e.Name, e.Namespace, strings.Join(e.Near, ", "))
}

// ErrAmbiguous says that a name is that of two locks.
var ErrAmbiguous = errors.New("it is the name of two locks")

// One returns the lock that ref names, and what could not be read of it.
func (s Surveyor) One(ctx context.Context, namespace string, ref Reference) (*Lock, []string, error) {
	candidates, err := s.candidates(ctx, namespace)
	var missing []string
	switch {
	case access.IsDenied(err):
		missing = append(missing, err.Error())
	case err != nil:
		return nil, nil, err
	}
	var found []Lock
	var denied error
	for _, mode := range ref.Modes {
		l, err := s.Read(ctx, Key{namespace, mode, ref.Name})
		switch {
		case access.IsDenied(err):
			denied = cmp.Or(denied, err)
		case err != nil:
			return nil, nil, err
		}
		// Every Lease says who holds it. A ConfigMap is a lock if a Pod owns it, or
		// elector made it, or a pod contends for it.
		contended := len(candidates[l.Key()]) > 0
		if contended || l.Exists && (mode == elector.ModeLease || l.holder != "" || !l.foreign) {
			found = append(found, l)
			if err != nil {
				missing = append(missing, err.Error())
			}
		}
	}
	switch {
	case len(found) > 1:
		return nil, nil, fmt.Errorf("%w: say lease/%[2]s or configmap/%[2]s", ErrAmbiguous, ref.Name)
	case len(found) == 1:
		s.lookUp(ctx, &found[0], candidates[found[0].Key()])
		found[0].join(candidates[found[0].Key()], candidates != nil, s.API.Now())
		return &found[0], missing, nil
	case denied != nil:
		return nil, nil, denied
	}
	return nil, nil, s.unknown(ctx, namespace, ref.Name)
}

// maxNear is how many names are worth reading.
const maxNear = 5

// unknown says so, with the names that there are.
func (s Surveyor) unknown(ctx context.Context, namespace, name string) error {
	e := &UnknownError{Namespace: namespace, Name: name}
	all, err := s.All(ctx, namespace)
	if err != nil {
		return e // what there is instead is help, and no more
	}
	for i := range all.Locks {
		e.Near = append(e.Near, all.Locks[i].Name)
	}
	slices.SortStableFunc(e.Near, func(a, b string) int { return cmp.Compare(inject.Distance(a, name), inject.Distance(b, name)) })
	e.Near = slices.Compact(e.Near)
	e.Near = e.Near[:min(len(e.Near), maxNear)]
	return e
}
