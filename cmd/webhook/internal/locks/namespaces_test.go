package locks

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// places are a cache of namespaces, by their labels.
type places struct {
	cache.Cache
	of map[string]labels.Set
}

func (p places) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return nil, nil
}

func (p places) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	of, ok := p.of[key.Name]
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("namespaces"), key.Name)
	}
	obj.SetLabels(of)
	return nil
}

func TestSelected(t *testing.T) {
	known := places{of: map[string]labels.Set{"shop": {"team": "web"}, "bank": {"team": "money"}, "bare": nil}}
	tests := map[string]struct {
		reason    string
		selector  string
		namespace string
		selected  bool
		known     bool
	}{
		"all":          {"no selector needs no namespaces", "", "anywhere", true, true},
		"selected":     {"its label fits", "team=web", "shop", true, true},
		"not":          {"its label does not fit", "team=web", "bank", false, true},
		"without":      {"it has no label", "team", "bare", false, true},
		"by exclusion": {"what has no label is not excluded", "team notin (money)", "bare", true, true},
		"excluded":     {"it is named", "team notin (money)", "bank", false, true},
		"unknown":      {"the cache does not have it yet", "!team", "new", false, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			selector, err := labels.Parse(tc.selector)
			if err != nil {
				t.Fatal(err)
			}
			n, err := NewNamespaces(t.Context(), known, selector, nil)
			if err != nil {
				t.Fatal(err)
			}
			selected, isKnown, err := n.Selected(t.Context(), tc.namespace)
			if err != nil || selected != tc.selected || isKnown != tc.known {
				t.Errorf("%s: selected %v, known %v, %v", tc.reason, selected, isKnown, err)
			}
			looked, forgotten := false, false
			loop := Loop{Namespaces: n, Reconcile: func(context.Context, Lock) (reconcile.Result, error) {
				looked = true
				return reconcile.Result{}, nil
			}}
			for _, loop.Forget = range []func(Lock){nil, func(Lock) { forgotten = true }} {
				if _, err := loop.reconcile(t.Context(), Lock{Namespace: tc.namespace}); err != nil || looked != tc.selected {
					t.Errorf("%s: looked at %v, %v", tc.reason, looked, err)
				}
			}
			if forgotten == tc.selected {
				t.Errorf("%s: forgotten %v", tc.reason, forgotten)
			}
		})
	}
}

// TestTrimNamespace holds that what is selected by is kept, and no more.
func TestTrimNamespace(t *testing.T) {
	whole := Namespace()
	whole.Name, whole.Labels, whole.Annotations = "shop", map[string]string{"team": "web"}, map[string]string{"large": "value"}
	whole.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	out, err := TrimNamespace(whole)
	if err != nil {
		t.Fatal(err)
	}
	got := out.(*metav1.PartialObjectMetadata)
	if got.Name != "shop" || got.Labels["team"] != "web" || got.Kind != "Namespace" || len(got.Annotations)+len(got.ManagedFields) > 0 {
		t.Errorf("trimmed to %+v", got)
	}
}
