package kube

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/elector-io/elector/elector"
)

const (
	// readTimeout limits one read, so that a connection that hangs is left.
	readTimeout = 5 * time.Second
	// minWatch and maxWatch are how long the server is asked to keep a watch, the
	// same as client-go's reflector asks for: seldom enough to cost nothing.
	minWatch, maxWatch = 5 * time.Minute, 10 * time.Minute
	// watchGrace is how much longer than asked a watch may stay silent before it
	// is taken for dead.
	watchGrace = 30 * time.Second
	// pollsPerTry is how many polls pass before watching is tried again where it
	// was refused.
	pollsPerTry = 15
)

// Observe implements elector.Lock. It ends without an error when a watch has run
// for its time, some minutes: the list that follows finds out if the datastore was
// exchanged behind a watch that stayed open and silent. Where it may get
// but not list or watch, it says so the first time, and polls from the second on.
func (l *lock) Observe(ctx context.Context, see func(elector.Record)) error {
	version, err := l.list(ctx, see)
	if err == nil {
		err = l.watch(ctx, version, see)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	again := l.refused.Swap(false)
	if !refused(err) {
		return err
	}
	if !again {
		// A right that is being granted may come between two requests, and who polls half
		// a minute for that does not see what happens in between.
		if _, cannot := l.get(ctx); cannot != nil {
			return cannot
		}
		l.refused.Store(true)
		return err
	}
	l.refused.Store(true)
	return l.poll(ctx, see)
}

// refused tells whether the API server will not have a list or a watch by this
// client: its Role may allow get alone.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsMethodNotSupported(err)
}

func (l *lock) options() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, l.name).String()}
}

// list reports the lock as it is. No resourceVersion asks for the newest state,
// which no stale cache may answer.
func (l *lock) list(ctx context.Context, see func(elector.Record)) (version uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	options := l.options()
	found := l.kind.newList()
	err = l.client.Get().Namespace(l.namespace).Resource(l.kind.resource).
		VersionedParams(&options, parameters).MaxRetries(0).Do(ctx).Into(found)
	if err != nil {
		return 0, requestError("listing", err)
	}
	version, err = parseVersion(found.GetResourceVersion())
	if err != nil {
		return 0, err
	}
	obj := l.kind.first(found)
	if obj == nil {
		see(elector.Record{Version: l.see(version)})
		return version, nil
	}
	rec, err := l.record(obj)
	if err != nil {
		return 0, err
	}
	see(rec)
	return version, nil
}

// watch reports changes after version until the server ends the watch, as it
// does now and then.
func (l *lock) watch(ctx context.Context, version uint64, see func(elector.Record)) error {
	lifetime := minWatch + l.cfg.Jitter(maxWatch-minWatch)
	ctx, cancel := context.WithTimeout(ctx, lifetime+watchGrace)
	defer cancel()
	options := l.options()
	options.Watch = true
	options.AllowWatchBookmarks = true
	options.ResourceVersion = strconv.FormatUint(version, 10)
	seconds := int64(lifetime / time.Second)
	options.TimeoutSeconds = &seconds
	stream, err := l.client.Get().Namespace(l.namespace).Resource(l.kind.resource).
		VersionedParams(&options, parameters).MaxRetries(0).Watch(ctx)
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	defer stream.Stop()
	for event := range stream.ResultChan() {
		if event.Type == watch.Error {
			return fmt.Errorf("watching: %w", apierrors.FromObject(event.Object))
		}
		obj, ok := event.Object.(object)
		if !ok {
			return fmt.Errorf("watching: the API server sent a %T", event.Object)
		}
		rec, err := l.record(obj)
		if err != nil {
			return err
		}
		switch event.Type {
		case watch.Added, watch.Modified:
			see(rec)
		case watch.Deleted:
			see(elector.Record{Version: rec.Version})
		case watch.Bookmark, watch.Error: // nothing about the lock; handled above
		}
	}
	return nil
}

// poll reports the lock every retry-period, for clients that may only get it. It
// ends with an error after a while, so that watching is tried again.
func (l *lock) poll(ctx context.Context, see func(elector.Record)) error {
	for range pollsPerTry {
		rec, err := l.get(ctx)
		if err != nil {
			return err
		}
		see(rec)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(l.cfg.Candidate.Settings.RetryPeriod):
		}
	}
	return errWatchRefused
}

var errWatchRefused = errors.New("listing or watching the lock is not allowed, so it is polled: allow get, list and watch")

func (l *lock) get(ctx context.Context) (elector.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	before := l.newest.Load() // a lock that is missing has no version; it went after this one
	obj := l.kind.newObject()
	err := l.client.Get().Namespace(l.namespace).Resource(l.kind.resource).Name(l.name).
		MaxRetries(0).Do(ctx).Into(obj)
	switch {
	case apierrors.IsNotFound(err):
		return elector.Record{Version: before + 1, Missed: true}, nil
	case err != nil:
		return elector.Record{}, requestError("reading", err)
	}
	rec, err := l.record(obj)
	rec.Missed = true
	return rec, err
}
