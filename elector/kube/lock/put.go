package lock

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube/internal/record"
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
	obj := fields{"metadata": fields{
		"namespace": l.cfg.Candidate.Namespace, "name": l.name, "labels": map[string]string{record.ManagedByLabel: record.ManagedBy},
	}}
	return l.write(ctx, request{method: http.MethodPost}, obj, elector.Record{}, want)
}

func (l *lock) update(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	obj, err := base.Object.(*object).fields()
	if err != nil {
		return elector.Record{}, err
	}
	forgetManagers(obj.child("metadata"))
	return l.write(ctx, request{method: http.MethodPut, name: l.name}, obj, base, want)
}

// write sends obj, made to say what is wanted.
func (l *lock) write(ctx context.Context, r request, obj fields, base, want elector.Record) (elector.Record, error) {
	annotations, err := record.Annotations(annotationsOf(base), want)
	if err != nil {
		return elector.Record{}, err
	}
	obj["apiVersion"], obj["kind"] = l.kind.apiVersion, l.kind.name
	obj.child("metadata")["annotations"] = annotations
	l.kind.apply(obj, want)
	r.body = obj
	return l.send(ctx, r, base)
}

// forgetManagers takes the list of who wrote which field off metadata, for good: where
// there is none the API server makes none. Of a renewal it costs a fifth of the API
// server's time, and a third of all bytes to those who watch. Who applies from the
// server's side needs it.
func forgetManagers(metadata fields) {
	text, _ := metadata["managedFields"].(json.RawMessage)
	var managers []struct{ Operation string }
	if json.Unmarshal(text, &managers) != nil || len(managers) == 0 {
		return // there is none, or what nobody knows here
	}
	if !slices.ContainsFunc(managers, func(m struct{ Operation string }) bool { return m.Operation == "Apply" }) {
		metadata["managedFields"] = []fields{{}} // none at all would leave it as it is
	}
}

// annotationsOf returns the annotations of the object that a record was read from.
func annotationsOf(base elector.Record) map[string]string {
	if !base.Exists {
		return nil
	}
	return base.Object.(*object).Metadata.Annotations
}

// writeLabel is what is changed instead of a note for which there is no room.
const writeLabel = "elector.io/write"

// patch changes the note of the very object that base is, in the very version, and
// nothing else: the object may have data of which only the metadata are known here.
func (l *lock) patch(ctx context.Context, base, want elector.Record) (elector.Record, error) {
	text, err := record.FormatNote(want)
	if err != nil {
		return elector.Record{}, err
	}
	metadata := base.Object.(*object).Metadata
	change := fields{"uid": metadata.UID, "resourceVersion": metadata.ResourceVersion}
	if record.HasRoom(metadata.Annotations, text) {
		change["annotations"] = map[string]string{record.ClaimAnnotation: text}
	} else {
		change["labels"] = map[string]string{writeLabel: want.Note.Write} // it has to change something
	}
	return l.send(ctx, request{method: http.MethodPatch, name: l.name, body: fields{"metadata": change}}, base)
}

// send sends a write and returns the lock as written.
func (l *lock) send(ctx context.Context, r request, base elector.Record) (elector.Record, error) {
	text, err := l.ask(ctx, r)
	if err != nil {
		return elector.Record{}, writeError(err, base)
	}
	return l.record(text)
}

// remove deletes the very object that base is, in the very version.
func (l *lock) remove(ctx context.Context, base elector.Record) (elector.Record, error) {
	metadata := base.Object.(*object).Metadata
	_, err := l.ask(ctx, request{method: http.MethodDelete, name: l.name, body: fields{
		"apiVersion": "v1", "kind": "DeleteOptions",
		"preconditions": fields{"uid": metadata.UID, "resourceVersion": metadata.ResourceVersion},
	}})
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
	if code := codeOf(err); code == http.StatusConflict || base.Exists && code == http.StatusNotFound {
		return fmt.Errorf("%w: %w", elector.ErrConflict, err)
	}
	return requestError("writing", err)
}

// requestError tells which errors are elector.ErrDenied. The API server's own
// words say enough.
func requestError(doing string, err error) error {
	code := codeOf(err)
	err = fmt.Errorf("%s: %w", doing, err)
	if code == http.StatusForbidden || code == http.StatusUnauthorized {
		return deniedError{err}
	}
	return err
}

type deniedError struct{ error }

func (deniedError) Is(target error) bool { return target == elector.ErrDenied }

func (e deniedError) Unwrap() error { return e.error }
