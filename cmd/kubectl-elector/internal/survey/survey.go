package survey

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/inject"
)

// Survey is what there is in a namespace, or in all.
type Survey struct {
	// Locks are sorted by namespace and name.
	Locks []Lock
	// Missing says in sentences what could not be read, and so is not there.
	Missing []string
}

// Surveyor reads locks and pods.
type Surveyor struct{ API *access.API }

// pageSize keeps pages of pods and locks small: each object may have a megabyte
// and a half.
const pageSize = 50

// maxLooks bounds how many locks are read one by one, which pods name and which do
// not have elector's label.
const maxLooks = 100

// All returns the locks of a namespace, or of all if it is empty: those with
// elector's label, and those that pods contend for.
func (s Surveyor) All(ctx context.Context, namespace string) (*Survey, error) {
	found := map[Key]Lock{}
	survey := &Survey{}
	leases := s.labelledLeases(ctx, namespace, func(l Lock) { found[l.Key()] = l })
	configMaps := s.labelledConfigMaps(ctx, namespace, func(l Lock) { found[l.Key()] = l })
	candidates, pods := s.candidates(ctx, namespace)
	for _, err := range []error{leases, configMaps, pods} {
		switch {
		case access.IsDenied(err):
			survey.Missing = append(survey.Missing, err.Error())
		case err != nil:
			return nil, err
		}
	}
	if len(survey.Missing) == 3 {
		return nil, leases
	}
	looks := 0
	for _, key := range slices.SortedFunc(maps.Keys(candidates), compare) {
		if _, known := found[key]; known {
			continue
		}
		if looks++; looks > maxLooks {
			survey.Missing = append(survey.Missing, fmt.Sprintf("more than %d locks are not elector's own, and were not read", maxLooks))
			break
		}
		l, err := s.Read(ctx, key)
		if err != nil && !access.IsDenied(err) {
			return nil, err
		}
		found[key] = l
	}
	now := s.API.Now()
	for _, key := range slices.SortedFunc(maps.Keys(found), compare) {
		l := found[key]
		if looks++; looks <= maxLooks {
			s.lookUp(ctx, &l, candidates[key])
		}
		l.join(candidates[key], pods == nil, now)
		survey.Locks = append(survey.Locks, l)
	}
	return survey, nil
}

func compare(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Mode, b.Mode))
}

var ours = metav1.ListOptions{LabelSelector: kube.ManagedByLabel + "=" + kube.ManagedBy, Limit: pageSize}

func (s Surveyor) labelledLeases(ctx context.Context, namespace string, each func(Lock)) error {
	for options := ours; ; {
		page, err := s.API.Client.CoordinationV1().Leases(namespace).List(ctx, options)
		if err != nil {
			return s.API.Explain(ctx, err, access.Right{Verb: "list", Group: coordinationv1.GroupName, Resource: "leases", Namespace: access.Scope(namespace)})
		}
		for i := range page.Items {
			each(ofLease(&page.Items[i]))
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return nil
		}
	}
}

func (s Surveyor) labelledConfigMaps(ctx context.Context, namespace string, each func(Lock)) error {
	for options := ours; ; {
		page, err := s.API.Metadata.Resource(configMaps).Namespace(namespace).List(ctx, options)
		if err != nil {
			return s.API.Explain(ctx, err, access.Right{Verb: "list", Resource: "configmaps", Namespace: access.Scope(namespace)})
		}
		for i := range page.Items {
			each(ofConfigMap(&page.Items[i]))
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return nil
		}
	}
}

var configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")

// candidates returns the injected pods by their lock.
func (s Surveyor) candidates(ctx context.Context, namespace string) (map[Key][]Candidate, error) {
	found := map[Key][]Candidate{}
	for options := (metav1.ListOptions{LabelSelector: inject.LabelInjected + "=true", Limit: pageSize}); ; {
		page, err := s.API.Client.CoreV1().Pods(namespace).List(ctx, options)
		if err != nil {
			return nil, s.API.Explain(ctx, err, access.Right{Verb: "list", Resource: "pods", Namespace: access.Scope(namespace)})
		}
		for i := range page.Items {
			if key, c, ok := candidateOf(&page.Items[i]); ok {
				found[key] = append(found[key], c)
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	for _, list := range found {
		sortCandidates(list)
	}
	return found, nil
}

// Read returns a lock by its name, without candidates.
func (s Surveyor) Read(ctx context.Context, key Key) (Lock, error) {
	absent := Lock{Namespace: key.Namespace, Name: key.Name, Mode: key.Mode, Candidates: []Candidate{}}
	resource, group := key.Resource()
	right := access.Right{Verb: "get", Group: group, Resource: resource, Namespace: key.Namespace, Name: key.Name}
	if key.Mode == elector.ModeLeaderForLife {
		configMap, err := s.API.Metadata.Resource(configMaps).Namespace(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return absent, nil
		case err != nil:
			return absent, s.API.Explain(ctx, err, right)
		}
		return ofConfigMap(configMap), nil
	}
	lease, err := s.API.Client.CoordinationV1().Leases(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return absent, nil
	case err != nil:
		return absent, s.API.Explain(ctx, err, right)
	}
	return ofLease(lease), nil
}

// lookUp reads the leader's pod where it is none of the candidates: elector's
// manager elects itself without a sidecar, and so do programs with the library.
// What cannot be read stays unknown.
func (s Surveyor) lookUp(ctx context.Context, l *Lock, candidates []Candidate) {
	uid := elector.UIDOf(l.holder)
	isHolder := func(c Candidate) bool { return c.identity == l.holder }
	if l.holder == "" || uid == "" || slices.ContainsFunc(candidates, isHolder) || len(validation.IsDNS1123Subdomain(elector.NameOf(l.holder))) > 0 {
		return
	}
	pod, err := s.API.Client.CoreV1().Pods(l.Namespace).Get(ctx, elector.NameOf(l.holder), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && string(pod.UID) != uid:
		l.pod = gone
	case err == nil:
		l.pod, l.Node = there, pod.Spec.NodeName
	}
}
