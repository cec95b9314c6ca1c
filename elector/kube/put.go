package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/elector"
)

// Put implements elector.Lock.
func (l *lock) Put(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	switch {
	case !base.Exists:
		return l.create(ctx, want)
	case !l.kind.patched:
		return l.update(ctx, base, want)
	case want.Holder != "" && want.Holder == base.Holder:
		return l.patch(ctx, base, want)
	}
	// To free it, or because it has no holder: then the next Put makes a new one.
	return l.remove(ctx, base)
}

func (l *lock) create(ctx context.Context, want elector.Record) (elector.Record, error) {
	obj := l.kind.newObject()
	obj.SetNamespace(l.namespace)
	obj.SetName(l.name)
	obj.SetLabels(map[string]string{ManagedByLabel: ManagedBy})
	return l.write(ctx, l.client.Post(), obj, elector.Record{}, want)
}

func (l *lock) update(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	obj := base.Object.(object).DeepCopyObject().(object)
	dropHandover(obj, want)
	forgetManagers(obj)
	return l.write(ctx, l.client.Put().Name(l.name), obj, base, want)
}

// write sends obj, made to say what is wanted.
func (l *lock) write(ctx context.Context, request *rest.Request, obj object, base, want elector.Record) (elector.Record, error) {
	l.kind.apply(obj, want)
	if err := annotate(obj, want); err != nil {
		return elector.Record{}, err
	}
	return l.send(ctx, request.Body(obj), base)
}

// forgetManagers takes the list of who wrote which field off obj, for good: where
// there is none the API server makes none. Of a renewal it costs a fifth of the API
// server's time, and a third of all bytes to those who watch. Who applies from the
// server's side needs it.
func forgetManagers(obj object) {
	managers := obj.GetManagedFields()
	applies := func(m metav1.ManagedFieldsEntry) bool { return m.Operation == metav1.ManagedFieldsOperationApply }
	if len(managers) > 0 && !slices.ContainsFunc(managers, applies) {
		obj.SetManagedFields([]metav1.ManagedFieldsEntry{{}}) // none at all would leave it as it is
	}
}

// writeLabel is what is changed instead of a note for which there is no room.
const writeLabel = "elector.io/write"

// patch changes the note of the very object that base is, in the very version, and
// nothing else: the object may have data of which only the metadata are known here.
func (l *lock) patch(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	text, err := writeNote(want)
	if err != nil {
		return elector.Record{}, err
	}
	obj := base.Object.(object)
	change := map[string]any{"uid": obj.GetUID(), "resourceVersion": obj.GetResourceVersion()}
	if hasRoom(obj.GetAnnotations(), text) {
		change["annotations"] = map[string]string{ClaimAnnotation: text}
	} else {
		change["labels"] = map[string]string{writeLabel: want.Note.Write} // it has to change something
	}
	patch, err := json.Marshal(map[string]any{"metadata": change})
	if err != nil {
		return elector.Record{}, fmt.Errorf("encoding a patch: %w", err)
	}
	return l.send(ctx, l.client.Patch(types.MergePatchType).Name(l.name).Body(patch), base)
}

// send sends a write and returns the lock as written.
func (l *lock) send(ctx context.Context, request *rest.Request, base elector.Record) (elector.Record, error) {
	result := l.kind.newObject()
	if err := request.Namespace(l.namespace).Resource(l.kind.resource).MaxRetries(0).Do(ctx).Into(result); err != nil {
		return elector.Record{}, writeError(err, base)
	}
	return l.record(result)
}

// remove deletes the very object that base is, in the very version.
func (l *lock) remove(ctx context.Context, base elector.Record) (elector.Record, error) {
	obj := base.Object.(object)
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	err := l.client.Delete().Namespace(l.namespace).Resource(l.kind.resource).Name(l.name).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}).
		MaxRetries(0).Do(ctx).Error()
	if err != nil {
		return elector.Record{}, writeError(err, base)
	}
	// The answer does not say in which version; an event that still shows the
	// object must not look as new as its end.
	return elector.Record{Version: base.Version + 1}, nil
}

// writeError tells conflicts from failures. A lock that should exist and does not
// is a conflict; a new one that finds no namespace is not.
func writeError(err error, base elector.Record) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || base.Exists && apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", elector.ErrConflict, err)
	}
	return requestError("writing", err)
}

// requestError tells which errors are elector.ErrDenied. The API server's own
// words say enough.
func requestError(doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return deniedError{err}
	}
	return err
}

type deniedError struct{ error }

func (deniedError) Is(target error) bool { return target == elector.ErrDenied }

func (e deniedError) Unwrap() error { return e.error }
