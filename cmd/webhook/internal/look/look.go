// Package look looks at single lock objects at the API server: whether there is
// one, whose it is, and whether it holds data. It never reads the data: the API
// server prints an object as a table's row, in which a ConfigMap's data is a
// number, with its metadata beside it. What a look costs the manager is therefore
// the metadata of one object, and a few looks at a time are all there are.
package look

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Sight is what a look found.
type Sight struct {
	// Object names the object and says whose it is: kind, name, UID, version, labels,
	// elector.io/adopt and owners. It is nil if there is none.
	Object *metav1.PartialObjectMetadata
	// HasData tells that it is a ConfigMap with data or binaryData: somebody's
	// configuration, and no lock of elector's making.
	HasData bool
}

// Looker looks at lock objects. It may be used by many at a time.
type Looker struct {
	tables map[elector.Mode]rest.Interface
	watch  metadata.Interface
	places chan struct{}
}

// places bounds how many looks are under way. What somebody may fill the metadata
// of an object with, 1.5 MB, is some times as much when it is read. Ordinary looks
// take milliseconds, so that few places are enough for hundreds a second.
const places = 4

// New returns a Looker that uses the given connections.
func New(config *rest.Config, client *http.Client) (*Looker, error) {
	l := &Looker{tables: map[elector.Mode]rest.Interface{}, places: make(chan struct{}, places)}
	for mode, path := range map[elector.Mode]string{elector.ModeLease: "/apis", elector.ModeLeaderForLife: "/api"} {
		config := rest.CopyConfig(config)
		config.APIPath, config.GroupVersion = path, new(locks.Lock{Mode: mode}.Kind().GroupVersion())
		config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
		table, err := rest.RESTClientForConfigAndClient(config, client)
		if err != nil {
			return nil, fmt.Errorf("making a client for %s: %w", path, err)
		}
		l.tables[mode] = table
	}
	var err error
	if l.watch, err = metadata.NewForConfigAndClient(config, client); err != nil {
		return nil, fmt.Errorf("making a client for metadata: %w", err)
	}
	return l, nil
}

// resource is the lock object's.
func resource(l locks.Lock) schema.GroupVersionResource {
	if l.Mode == elector.ModeLeaderForLife {
		return corev1.SchemeGroupVersion.WithResource("configmaps")
	}
	return coordinationv1.SchemeGroupVersion.WithResource("leases")
}

const (
	// asTable asks for what kubectl get shows.
	asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"
	// dataColumn counts the entries of data and binaryData (printConfigMap in
	// pkg/printers/internalversion of Kubernetes).
	dataColumn = "Data"
)

// Look reads the lock's object as it is now.
func (k *Looker) Look(ctx context.Context, l locks.Lock) (Sight, error) {
	select {
	case k.places <- struct{}{}:
	case <-ctx.Done():
		return Sight{}, ctx.Err()
	}
	defer func() { <-k.places }()
	raw, err := k.tables[l.Mode].Get().Namespace(l.Namespace).Resource(resource(l).Resource).Name(l.Name).
		SetHeader("Accept", asTable).Param("includeObject", string(metav1.IncludeMetadata)).Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return Sight{}, nil
	}
	if err != nil {
		return Sight{}, fmt.Errorf("reading %s: %w", l, err)
	}
	return sightOf(l, raw)
}

// sightOf reads a table of one row. One that does not say what is asked for is an
// error: nothing is granted on a guess.
func sightOf(l locks.Lock, raw []byte) (Sight, error) {
	var table metav1.Table
	if err := json.Unmarshal(raw, &table); err != nil {
		return Sight{}, fmt.Errorf("reading %s as a table: %w", l, err)
	}
	if len(table.Rows) != 1 {
		return Sight{}, fmt.Errorf("reading %s as a table: it has %d rows", l, len(table.Rows))
	}
	row := table.Rows[0]
	var whole metav1.PartialObjectMetadata
	if err := json.Unmarshal(row.Object.Raw, &whole); err != nil {
		return Sight{}, fmt.Errorf("reading the metadata of %s: %w", l, err)
	}
	if whole.UID == "" || whole.Name != l.Name || whole.Namespace != l.Namespace {
		return Sight{}, fmt.Errorf("reading %s as a table: its row is about %q in %q", l, whole.Name, whole.Namespace)
	}
	s := Sight{Object: trimmed(l, &whole)}
	if l.Mode != elector.ModeLeaderForLife {
		return s, nil
	}
	for i, column := range table.ColumnDefinitions {
		if column.Name != dataColumn || i >= len(row.Cells) {
			continue
		}
		n, ok := row.Cells[i].(float64) // as encoding/json has numbers
		s.HasData = !ok || n > 0
		return s, nil
	}
	return Sight{}, fmt.Errorf("reading %s as a table: it has no column %s", l, dataColumn)
}

// trimmed keeps what is looked at, and the kind, by which Events find the object.
func trimmed(l locks.Lock, whole *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	kept := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: whole.Namespace, Name: whole.Name, UID: whole.UID, ResourceVersion: whole.ResourceVersion,
		Labels: whole.Labels, OwnerReferences: whole.OwnerReferences,
	}}
	kept.SetGroupVersionKind(l.Kind())
	if adopted, ok := whole.Annotations[inject.AnnotationAdopt]; ok {
		kept.Annotations = map[string]string{inject.AnnotationAdopt: adopted}
	}
	return kept
}

// Watch calls news when the watch has begun, so that nothing is missed between a
// look and it, and when the lock's object comes, goes, or becomes somebody else's.
// Renewals are no news. It returns when the API server ends the watch, or ctx
// ends.
func (k *Looker) Watch(ctx context.Context, l locks.Lock, news func()) error {
	stream, err := k.watch.Resource(resource(l)).Namespace(l.Namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, l.Name).String(),
	})
	if err != nil {
		return fmt.Errorf("watching %s: %w", l, err)
	}
	defer stream.Stop()
	news()
	var was view
	for event := range stream.ResultChan() {
		if event.Type == watch.Error {
			return fmt.Errorf("watching %s: %w", l, apierrors.FromObject(event.Object))
		}
		object, ok := event.Object.(*metav1.PartialObjectMetadata)
		if !ok {
			continue
		}
		is := view{}
		if event.Type != watch.Deleted {
			is = viewOf(l, object)
		}
		if is != was {
			news()
		}
		was = is
	}
	return ctx.Err()
}

// view is what matters of an object. The version does where every write may bring
// data; Leases have none.
type view struct {
	uid     string
	mayUse  bool
	version string
}

func viewOf(l locks.Lock, object *metav1.PartialObjectMetadata) view {
	v := view{uid: string(object.UID), mayUse: locks.MayUse(object)}
	if l.Mode == elector.ModeLeaderForLife {
		v.version = object.ResourceVersion
	}
	return v
}
