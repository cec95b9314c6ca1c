package locks

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Namespaces are those in which the manager works: the ones in which it admits,
// so that a pod which looks injected elsewhere gets nothing by it.
type Namespaces struct {
	selector labels.Selector
	cache    cache.Cache
	locksIn  func(namespace string) []Lock
}

// NewNamespaces returns the namespaces that selector selects, by their labels in
// the cache, which must not have been started yet. An empty selector selects all,
// and needs no rights to read any. locksIn returns the locks of the pods in a
// namespace.
func NewNamespaces(ctx context.Context, cache cache.Cache, selector labels.Selector, locksIn func(namespace string) []Lock) (*Namespaces, error) {
	n := &Namespaces{selector: selector, cache: cache, locksIn: locksIn}
	if n.all() {
		return n, nil
	}
	if _, err := cache.GetInformer(ctx, Namespace()); err != nil {
		return nil, fmt.Errorf("watching namespaces: %w", err)
	}
	return n, nil
}

// Namespace is an empty Namespace, as the cache holds it.
func Namespace() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
}

func (n *Namespaces) all() bool { return n == nil || n.selector == nil || n.selector.Empty() }

// Selected reports whether the manager works in the namespace. It does not where
// the cache does not know it (yet): there will be news.
func (n *Namespaces) Selected(ctx context.Context, name string) (selected, known bool, err error) {
	if n.all() {
		return true, true, nil
	}
	namespace := Namespace()
	err = n.cache.Get(ctx, client.ObjectKey{Name: name}, namespace)
	if apierrors.IsNotFound(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("getting the namespace: %w", err)
	}
	return n.selector.Matches(labels.Set(namespace.Labels)), true, nil
}

// String is the selector, as kubectl takes it.
func (n *Namespaces) String() string {
	if n.all() {
		return ""
	}
	return n.selector.String()
}

// Changes are the locks of a namespace that is selected now and was not before,
// or the other way round: none if all are selected.
func (n *Namespaces) Changes() []source.TypedSource[Lock] {
	if n.all() {
		return nil
	}
	return []source.TypedSource[Lock]{Changes(n.cache, Watched{
		Object: Namespace(),
		Locks:  func(obj client.Object) []Lock { return n.locksIn(obj.GetName()) },
		View:   func(obj client.Object) any { return n.selector.Matches(labels.Set(obj.GetLabels())) },
	})}
}

// TrimNamespace is a cache's transform that keeps of a Namespace what is selected
// by.
func TrimNamespace(obj any) (any, error) {
	namespace, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return obj, nil
	}
	return &metav1.PartialObjectMetadata{TypeMeta: namespace.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Name: namespace.Name, UID: namespace.UID, ResourceVersion: namespace.ResourceVersion, Labels: namespace.Labels,
	}}, nil
}
