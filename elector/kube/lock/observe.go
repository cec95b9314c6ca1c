package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	code := codeOf(err)
	return code == http.StatusForbidden || code == http.StatusMethodNotAllowed
}

// lockOnly is the query that narrows a list or a watch to the lock.
func (l *lock) lockOnly() url.Values {
	return url.Values{"fieldSelector": {"metadata.name=" + l.name}}
}

// list reports the lock as it is. No resourceVersion asks for the newest state,
// which no stale cache may answer.
func (l *lock) list(ctx context.Context, see func(elector.Record)) (version uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	text, err := l.ask(ctx, request{method: http.MethodGet, query: l.lockOnly()})
	if err != nil {
		return 0, requestError("listing", err)
	}
	var found struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(text, &found); err != nil {
		return 0, fmt.Errorf("listing: the API server sent what is no list: %w", err)
	}
	version, err = parseVersion(found.Metadata.ResourceVersion)
	if err != nil {
		return 0, err
	}
	if len(found.Items) == 0 {
		see(elector.Record{Version: l.see(version)})
		return version, nil
	}
	rec, err := l.record(found.Items[0])
	if err != nil {
		return 0, err
	}
	see(rec)
	return version, nil
}

// watch reports changes after version until the server ends the watch, as it
// does now and then, or its connection does.
func (l *lock) watch(ctx context.Context, version uint64, see func(elector.Record)) error {
	lifetime := minWatch + l.cfg.Jitter(maxWatch-minWatch)
	ctx, cancel := context.WithTimeout(ctx, lifetime+watchGrace)
	defer cancel()
	query := l.lockOnly()
	query.Set("watch", "true")
	query.Set("allowWatchBookmarks", "true")
	query.Set("resourceVersion", strconv.FormatUint(version, 10))
	query.Set("timeoutSeconds", strconv.FormatInt(int64(lifetime/time.Second), 10))
	stream, err := l.open(ctx, request{method: http.MethodGet, query: query})
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	defer stream.Close()
	for events := json.NewDecoder(stream); ; {
		var event watchEvent
		if err := events.Decode(&event); err != nil {
			return streamError(err)
		}
		if err := l.seeEvent(event, see); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
}

// streamError returns nil for how a watch ends by itself, or with its connection.
func streamError(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET),
		errors.As(err, &timeout) && timeout.Timeout(),
		strings.Contains(err.Error(), "server sent GOAWAY and closed the connection"): // net/http has a type for it that others can't name
		return nil
	}
	return fmt.Errorf("watching: %w", err)
}

// watchEvent is one change, in the API's JSON.
type watchEvent struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// seeEvent reports what an event says of the lock.
func (l *lock) seeEvent(event watchEvent, see func(elector.Record)) error {
	if event.Type == "ERROR" {
		return statusOf(0, event.Object)
	}
	rec, err := l.record(event.Object)
	if err != nil {
		return err
	}
	switch event.Type {
	case "ADDED", "MODIFIED":
		see(rec)
	case "DELETED":
		see(elector.Record{Version: rec.Version})
	} // a BOOKMARK says nothing about the lock
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
	text, err := l.ask(ctx, request{method: http.MethodGet, name: l.name})
	switch {
	case codeOf(err) == http.StatusNotFound:
		return elector.Record{Version: before + 1, Missed: true}, nil
	case err != nil:
		return elector.Record{}, requestError("reading", err)
	}
	rec, err := l.record(text)
	rec.Missed = true
	return rec, err
}
