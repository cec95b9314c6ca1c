package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// faults is what is wrong with one candidate's connection at the moment.
type faults struct {
	cutOut     bool    // requests do not arrive
	cutIn      bool    // answers and events do not arrive
	lossy      float64 // share of answers that get lost after the write was applied
	slow       time.Duration
	errorShare float64 // share of requests answered with an error
	stall      bool    // watches stay open and silent
	repeat     bool    // watches say everything twice
	lag        time.Duration

	noWatch bool // list and watch are forbidden

	// The rest only the tests of single rules use.
	slowIn  time.Duration // every answer takes this long
	slowOut time.Duration // every write takes this long to arrive, whatever becomes of who sent it
	hang    bool          // requests hang until their time is up
	always  int           // every request is answered with this error
}

// link is one candidate process's way to the API server: an http.RoundTripper.
type link struct {
	w    *world
	node *node

	pod *pod
	id  uint64 // of the link, the same in every run
	// The engine's own dice, and the lock's.
	jitter, watchJitter *dice

	mu       sync.Mutex
	faults   faults
	dead     bool // the process was killed: nothing leaves or reaches it
	requests map[string]int
	watches  map[*stream]bool
	answered time.Time // when the process first learnt anything; zero before
}

func newLink(w *world, p *pod, id uint64) *link {
	l := &link{w: w, pod: p, node: p.node, id: id, faults: w.initial, requests: map[string]int{}, watches: map[*stream]bool{}}
	l.jitter, l.watchJitter = l.dice("jitter", 0), l.dice("watch jitter", 0)
	return l
}

// dice is a source of chance that belongs to one goroutine, so that what it
// shows does not depend on how goroutines are scheduled.
type dice struct {
	*rand.Rand
	id uint64
}

// dice returns the dice for the nth thing of a kind that happens on the link.
func (l *link) dice(kind string, n int) *dice {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d %d", kind, n, l.id)
	return &dice{rand.New(rand.NewPCG(l.w.seed, h.Sum64())), h.Sum64()}
}

func (d *dice) chance(p float64) bool { return d.Float64() < p }

// between draws a duration; no two draws are equal in practice, so that virtual
// events do not coincide.
func (d *dice) between(low, high time.Duration) time.Duration {
	return low + time.Duration(d.Int64N(int64(high-low)+1))
}

func (d *dice) latency(f faults) time.Duration {
	t := d.between(200*time.Microsecond, 3*time.Millisecond)
	if f.slow > 0 {
		t += d.between(0, f.slow)
	}
	return t
}

func (l *link) state() (faults, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.faults, l.dead
}

var (
	errReset = errors.New("connection reset by peer")
	errDead  = errors.New("the process is dead")
)

// RoundTrip carries a request to the API server and the answer back, with
// whatever the faults of the moment do to it.
func (l *link) RoundTrip(req *http.Request) (*http.Response, error) {
	watching := req.URL.Query().Get("watch") != ""
	d := l.count(req.Method, watching)
	l.w.mark("link %d sends %s %s", l.id, req.Method, req.URL.RawQuery)
	res, err := l.carry(req, d, watching)
	l.node.waitAwake(d.id) //nolint:contextcheck // a suspended machine learns of nothing, not even that its time is up
	if _, dead := l.state(); dead {
		if res != nil {
			_ = res.Body.Close()
		}
		<-req.Context().Done()
		return nil, errDead
	}
	if err == nil {
		l.w.mark("link %d is answered %d", l.id, res.StatusCode)
		l.mu.Lock()
		if l.answered.IsZero() && res.StatusCode == http.StatusOK {
			l.answered = time.Now()
		}
		l.mu.Unlock()
	}
	return res, err
}

func (l *link) carry(req *http.Request, d *dice, watching bool) (*http.Response, error) {
	ctx := req.Context()
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	f, dead := l.state()
	if dead {
		<-ctx.Done()
		return nil, errDead
	}
	l.w.mu.Lock()
	hook := l.w.onRequest
	l.w.mu.Unlock()
	if hook != nil {
		hook(l.pod, req)
	}
	delay := d.latency(f)
	if f.cutOut {
		return unreachable(ctx, d)
	}
	if f.slowOut > 0 && req.Method != http.MethodGet {
		l.w.tasks.Go(func() {
			time.Sleep(f.slowOut)
			l.w.serve(req, body, d)
		})
		return unreachable(ctx, d)
	}
	if !sleep(ctx, delay) {
		if d.chance(0.5) { // it was on its way
			late := d.between(time.Millisecond, 5*time.Second)
			l.w.tasks.Go(func() {
				time.Sleep(late)
				l.w.serve(req, body, d)
			})
		}
		return nil, ctx.Err()
	}
	if f, _ = l.state(); f.cutOut {
		return unreachable(ctx, d)
	}
	switch {
	case f.hang:
		<-ctx.Done()
		return nil, ctx.Err()
	case f.always != 0:
		return failure(req, &apiError{code: f.always, reason: http.StatusText(f.always), message: "refused"}), nil
	case f.noWatch && req.Method == http.MethodGet && parsePath(req.URL.Path).name == "":
		return failure(req, &apiError{code: 403, reason: "Forbidden", message: "you may get, but not list or watch"}), nil
	case d.chance(f.errorShare):
		return randomError(req, d), nil
	}
	if watching {
		return l.watch(req, d)
	}
	code, answer := l.w.serve(req, body, d)
	f, _ = l.state()
	back := d.latency(f) + f.slowIn
	if f.cutIn || d.chance(f.lossy) {
		return unreachable(ctx, d)
	}
	if !sleep(ctx, back) {
		return nil, ctx.Err()
	}
	return response(req, code, io.NopCloser(bytes.NewReader(answer))), nil
}

// unreachable hangs, as a cut network does, or fails soon, as a refused
// connection does.
func unreachable(ctx context.Context, d *dice) (*http.Response, error) {
	if d.chance(0.5) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !sleep(ctx, d.between(time.Millisecond, 3*time.Second)) {
		return nil, ctx.Err()
	}
	return nil, errReset
}

func randomError(req *http.Request, d *dice) *http.Response {
	errs := []*apiError{
		{code: 403, reason: "Forbidden", message: "not allowed yet"},
		{code: 409, reason: "Conflict", message: "somebody was quicker"},
		{code: 429, reason: "TooManyRequests", message: "slow down"},
		{code: 429, reason: "TooManyRequests", message: "slow down", after: 1 + d.IntN(30)},
		{code: 500, reason: "InternalError", message: "etcdserver: request timed out"},
		{code: 503, reason: "ServiceUnavailable", message: "apiserver is shutting down", after: d.IntN(3)},
	}
	return failure(req, errs[d.IntN(len(errs))])
}

func failure(req *http.Request, e *apiError) *http.Response {
	res := response(req, e.code, io.NopCloser(bytes.NewReader(encodeStatus(e))))
	if e.after > 0 {
		res.Header.Set("Retry-After", strconv.Itoa(e.after))
	}
	return res
}

// count counts a request and returns its dice.
func (l *link) count(method string, watching bool) *dice {
	l.mu.Lock()
	defer l.mu.Unlock()
	if watching {
		method = "WATCH"
	}
	l.requests[method]++
	return l.dice(method, l.requests[method])
}

// sleep waits and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func response(req *http.Request, code int, body io.ReadCloser) *http.Response {
	return &http.Response{
		Status: strconv.Itoa(code) + " " + http.StatusText(code), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: body, ContentLength: -1, Request: req,
	}
}

// serve is the API server: one request, at one instant.
func (w *world) serve(req *http.Request, body []byte, d *dice) (code int, answer []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := parsePath(req.URL.Path)
	var in object
	if len(body) > 0 {
		if err := json.Unmarshal(body, &in); err != nil {
			return 400, encodeStatus(&apiError{code: 400, reason: "BadRequest", message: err.Error()})
		}
	}
	var out object
	var err error
	switch req.Method {
	case http.MethodGet:
		if p.name == "" {
			var lag time.Duration
			if req.URL.Query().Get("resourceVersion") != "" {
				lag = w.api.lag(d)
			}
			items, version := w.api.list(p.resource, selectedName(req), lag)
			return 200, encodeList(p.resource, items, version)
		}
		if out = w.api.objects[p.resource+"/"+p.name]; out == nil {
			err = &apiError{code: 404, reason: "NotFound", message: "not found"}
		}
	case http.MethodPost:
		out, err = w.api.create(p.resource, in)
	case http.MethodPut:
		out, err = w.api.update(p.resource, p.name, in)
	case http.MethodPatch:
		if t := req.Header.Get("Content-Type"); t != "application/merge-patch+json" {
			return 415, encodeStatus(&apiError{code: 415, reason: "UnsupportedMediaType", message: "no patches of " + t})
		}
		out, err = w.api.patch(p.resource, p.name, in)
	case http.MethodDelete:
		uid, version := preconditions(in)
		if err = w.api.remove(p.resource, p.name, uid, version); err == nil {
			return 200, []byte(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}`)
		}
	}
	if failure, ok := errors.AsType[*apiError](err); ok {
		return failure.code, encodeStatus(failure)
	}
	return 200, encode(p.resource, out)
}

// lag is that of the server which d's request comes to.
func (a *api) lag(d *dice) time.Duration {
	if len(a.lags) == 0 {
		return 0
	}
	return a.lags[d.IntN(len(a.lags))]
}

func selectedName(req *http.Request) string {
	return strings.TrimPrefix(req.URL.Query().Get("fieldSelector"), "metadata.name=")
}

func preconditions(in object) (uid, version string) {
	p, _ := in["preconditions"].(map[string]any)
	uid, _ = p["uid"].(string)
	version, _ = p["resourceVersion"].(string)
	return uid, version
}

// stream is one open watch.
type stream struct {
	cancel context.CancelFunc
}

// watch opens a stream of the changes to one object.
func (l *link) watch(req *http.Request, d *dice) (*http.Response, error) {
	q := req.URL.Query()
	version, err := strconv.ParseUint(q.Get("resourceVersion"), 10, 64)
	if err != nil {
		return nil, err
	}
	timeout, err := strconv.Atoi(q.Get("timeoutSeconds"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(req.Context(), time.Duration(timeout)*time.Second)
	s := &stream{cancel: cancel}
	l.mu.Lock()
	l.watches[s] = true
	l.mu.Unlock()
	l.w.mu.Lock()
	lag := l.w.api.lag(d)
	l.w.mu.Unlock()
	reader, writer := io.Pipe()
	l.w.tasks.Go(func() {
		defer cancel()
		err := l.feed(ctx, d, writer, parsePath(req.URL.Path).resource, selectedName(req), version, lag)
		time.Sleep(d.between(0, time.Millisecond)) // streams that break together end one by one
		l.node.waitAwake(d.id)                     //nolint:contextcheck // nor does it notice that a stream ended
		_ = writer.CloseWithError(err)
		l.mu.Lock()
		delete(l.watches, s)
		l.mu.Unlock()
	})
	return response(req, 200, reader), nil
}

// feed writes the changes after version until ctx ends.
func (l *link) feed(ctx context.Context, d *dice, to io.Writer, resource, name string, version uint64, lag time.Duration) error {
	// Not in a period that a watch's time is a multiple of: timers that end at one
	// instant of virtual time fire in an order of the runtime's random choice.
	period := bookmarkPeriod + d.between(0, time.Second)
	nextBookmark := time.Now().Add(period)
	for {
		l.w.mu.Lock()
		changed := l.w.api.changed
		changes, next, err := l.w.api.since(resource, name, version, lag)
		newest := l.w.api.version
		l.w.mu.Unlock()
		if failure, ok := errors.AsType[*apiError](err); ok {
			_, err := to.Write(encodeEvent("ERROR", encodeStatus(failure)))
			return err
		}
		for _, c := range changes {
			if err := l.deliver(ctx, d, to, encodeEvent(c.kind, c.data)); err != nil {
				return endOf(ctx, err)
			}
			version = c.version
		}
		if len(changes) == 0 && next.IsZero() && newest >= version && !time.Now().Before(nextBookmark) {
			nextBookmark = time.Now().Add(period)
			version = newest
			if err := l.deliver(ctx, d, to, encodeEvent("BOOKMARK", bookmark(resource, newest))); err != nil {
				return endOf(ctx, err)
			}
		}
		if !time.Now().Before(nextBookmark) {
			nextBookmark = time.Now().Add(period)
		}
		if next.IsZero() || nextBookmark.Before(next) {
			next = nextBookmark
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return endOf(ctx, ctx.Err())
		}
	}
}

// endOf is how a stream ends: well when the server's time for it is up.
func endOf(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	return err
}

// deliver brings one event to the client.
func (l *link) deliver(ctx context.Context, d *dice, to io.Writer, event []byte) error {
	f, _ := l.state()
	if !sleep(ctx, d.latency(f)+f.lag) {
		return ctx.Err()
	}
	for {
		f, dead := l.state()
		if !f.cutIn && !f.stall && !dead {
			break
		}
		// TCP would deliver it when the line is whole again, if the watch lives.
		if !sleep(ctx, d.between(50*time.Millisecond, 100*time.Millisecond)) {
			return ctx.Err()
		}
	}
	if !l.node.awake(ctx, d.id) {
		return ctx.Err()
	}
	if f.repeat {
		event = append(event, event...)
	}
	l.w.mark("link %d hears", l.id)
	_, err := to.Write(event)
	return err
}

// breakWatches resets every open watch.
func (l *link) breakWatches() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.watches {
		s.cancel()
	}
}
