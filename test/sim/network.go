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

	// The rest only the tests of single rules use.
	slowIn  time.Duration // every answer takes this long
	slowOut time.Duration // every write takes this long to arrive, whatever becomes of who sent it
	hang    bool          // requests hang until their time is up
	always  int           // every request is answered with this error
	noWatch bool          // list and watch are forbidden
}

// link is one candidate process's way to the API server: an http.RoundTripper.
type link struct {
	w    *world
	node *node

	pod *pod
	id  uint64
	// The engine's own dice, and the lock's.
	jitter, watchJitter *dice

	mu       sync.Mutex
	faults   faults
	dead     bool // the process was killed: nothing leaves or reaches it
	requests map[string]int
	watches  map[*stream]bool
}

func newLink(w *world, p *pod, id uint64) *link {
	l := &link{w: w, pod: p, node: p.node, id: id, faults: w.initial, requests: map[string]int{}, watches: map[*stream]bool{}}
	l.jitter, l.watchJitter = l.dice("jitter", 0), l.dice("watch jitter", 0)
	return l
}

// dice is a source of chance that belongs to one goroutine, so that what it
// shows does not depend on how goroutines are scheduled.
type dice struct{ *rand.Rand }

// dice returns the dice for the nth thing of a kind that happens on the link.
func (l *link) dice(kind string, n int) *dice {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d %d", kind, n, l.id)
	return &dice{rand.New(rand.NewPCG(l.w.seed, h.Sum64()))}
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
	res, err := l.carry(req)
	l.node.waitAwake() //nolint:contextcheck // a suspended machine learns of nothing, not even that its time is up
	if _, dead := l.state(); dead {
		if res != nil {
			_ = res.Body.Close()
		}
		<-req.Context().Done()
		return nil, errDead
	}
	return res, err
}

func (l *link) carry(req *http.Request) (*http.Response, error) {
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
	watching := req.URL.Query().Get("watch") != ""
	d := l.count(req.Method, watching)
	if l.w.onRequest != nil {
		l.w.onRequest(l.pod, req)
	}
	delay := d.latency(f)
	if f.cutOut {
		return unreachable(ctx, d)
	}
	if f.slowOut > 0 && req.Method != http.MethodGet {
		l.w.tasks.Go(func() {
			time.Sleep(f.slowOut)
			l.w.serve(req, body)
		})
		return unreachable(ctx, d)
	}
	if !sleep(ctx, delay) {
		if d.chance(0.5) { // it was on its way
			late := d.between(time.Millisecond, 5*time.Second)
			l.w.tasks.Go(func() {
				time.Sleep(late)
				l.w.serve(req, body)
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
		e := &apiError{f.always, http.StatusText(f.always), "refused"}
		return response(req, e.code, io.NopCloser(bytes.NewReader(encodeStatus(e)))), nil
	case f.noWatch && req.Method == http.MethodGet && parsePath(req.URL.Path).name == "":
		e := &apiError{403, "Forbidden", "you may get, but not list or watch"}
		return response(req, e.code, io.NopCloser(bytes.NewReader(encodeStatus(e)))), nil
	case d.chance(f.errorShare):
		return randomError(req, d), nil
	}
	if watching {
		return l.watch(req, d)
	}
	code, answer := l.w.serve(req, body)
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
		{403, "Forbidden", "not allowed yet"},
		{409, "Conflict", "somebody was quicker"},
		{429, "TooManyRequests", "slow down"},
		{500, "InternalError", "etcdserver: request timed out"},
		{503, "ServiceUnavailable", "apiserver is shutting down"},
	}
	e := errs[d.between(0, time.Duration(len(errs)-1))]
	return response(req, e.code, io.NopCloser(bytes.NewReader(encodeStatus(e))))
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
func (w *world) serve(req *http.Request, body []byte) (code int, answer []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := parsePath(req.URL.Path)
	var in object
	if len(body) > 0 {
		if err := json.Unmarshal(body, &in); err != nil {
			return 400, encodeStatus(&apiError{400, "BadRequest", err.Error()})
		}
	}
	var out object
	var err error
	switch req.Method {
	case http.MethodGet:
		if p.name == "" {
			items, version := w.api.list(p.resource, selectedName(req))
			return 200, encodeList(p.resource, items, version)
		}
		if out = w.api.objects[p.resource+"/"+p.name]; out == nil {
			err = &apiError{404, "NotFound", "not found"}
		}
	case http.MethodPost:
		out, err = w.api.create(p.resource, in)
	case http.MethodPut:
		out, err = w.api.update(p.resource, p.name, in)
	case http.MethodPatch:
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
	reader, writer := io.Pipe()
	l.w.tasks.Go(func() {
		defer cancel()
		err := l.feed(ctx, d, writer, parsePath(req.URL.Path).resource, selectedName(req), version)
		l.node.waitAwake() //nolint:contextcheck // nor does it notice that a stream ended
		_ = writer.CloseWithError(err)
		l.mu.Lock()
		delete(l.watches, s)
		l.mu.Unlock()
	})
	return response(req, 200, reader), nil
}

// feed writes the changes after version until ctx ends.
func (l *link) feed(ctx context.Context, d *dice, to io.Writer, resource, name string, version uint64) error {
	nextBookmark := time.Now().Add(bookmarkPeriod)
	for {
		l.w.mu.Lock()
		changed := l.w.api.changed
		changes, err := l.w.api.since(resource, name, version)
		newest := l.w.api.version
		l.w.mu.Unlock()
		if failure, ok := errors.AsType[*apiError](err); ok {
			_, err := to.Write(encodeEvent("ERROR", encodeStatus(failure)))
			return err
		}
		for _, c := range changes {
			if err := l.deliver(ctx, d, to, encodeEvent(c.kind, encode(resource, c.object))); err != nil {
				return endOf(ctx, err)
			}
			version = c.version
		}
		if len(changes) == 0 && !time.Now().Before(nextBookmark) {
			nextBookmark = time.Now().Add(bookmarkPeriod)
			version = newest
			if err := l.deliver(ctx, d, to, encodeEvent("BOOKMARK", bookmark(resource, newest))); err != nil {
				return endOf(ctx, err)
			}
		}
		timer := time.NewTimer(time.Until(nextBookmark))
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
	if !l.node.awake(ctx) {
		return ctx.Err()
	}
	if f.repeat {
		event = append(event, event...)
	}
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
