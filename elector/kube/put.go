package kube

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/elector"
)

// Put implements elector.Lock.
func (l *lock) Put(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	if base.Exists && !l.kind.writable {
		// To free it, or because it has no holder: then the next Put makes a new one.
		return l.remove(ctx, base)
	}
	obj := l.kind.newObject()
	var request = l.client.Post().Namespace(l.cfg.Namespace).Resource(l.kind.resource)
	if base.Exists {
		obj = base.Object.(object).DeepCopyObject().(object)
		request = l.client.Put().Namespace(l.cfg.Namespace).Resource(l.kind.resource).Name(l.cfg.Name)
	} else {
		obj.SetNamespace(l.cfg.Namespace)
		obj.SetName(l.cfg.Name)
		obj.SetLabels(map[string]string{ManagedByLabel: ManagedBy})
	}
	l.kind.apply(obj, want)
	result := l.kind.newObject()
	if err := request.Body(obj).MaxRetries(0).Do(ctx).Into(result); err != nil {
		return elector.Record{}, writeError(err, base)
	}
	return l.record(result)
}

// remove deletes the very object that base is, in the very version.
func (l *lock) remove(ctx context.Context, base elector.Record) (elector.Record, error) {
	obj := base.Object.(object)
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	err := l.client.Delete().Namespace(l.cfg.Namespace).Resource(l.kind.resource).Name(l.cfg.Name).
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
