package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"github.com/go-logr/logr"
	"golang.org/x/sync/semaphore"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	kjson "sigs.k8s.io/json"
)

const (
	// maxBody is what an API server may have to send: two objects of 3 MiB each, its
	// own limit for a request, and 1 MiB for the rest of the review.
	maxBody = 7 << 20
	// smallBody needs no place among the bodies being read. Nearly all reviews are
	// smaller.
	smallBody = 64 << 10
	// maxReading bounds the larger bodies that are being read.
	maxReading = 2 * maxBody
	// smallWork is the most that an ordinary review is estimated to need while it is
	// answered; that of a pod with 100 variables is half.
	smallWork = 2 << 20
	// maxSmallWork and maxLargeWork bound what the reviews need that are being
	// answered. With the bodies, and the garbage that Go leaves until there is as
	// much of it as of the rest, this fits into the memory limit in the chart.
	maxSmallWork = 12 << 20
	maxLargeWork = 48 << 20
	// maxReadWait is how long a larger body waits for its place. HTTP/2 lets what has
	// come of it hold up all other requests of the same connection.
	maxReadWait = 500 * time.Millisecond
	// maxWait is how long a review waits to be answered when it has been read. The
	// chart gives API servers twice as long to wait.
	maxWait = 5 * time.Second
)

// Limits bounds the memory that reviews take, whoever sends them. Large ones wait
// for each other, so that they cannot hold up the others. Handlers that serve on
// one port share one.
type Limits struct{ reading, small, large *semaphore.Weighted }

// NewLimits returns limits that nothing is counted against yet.
func NewLimits() *Limits {
	return &Limits{
		reading: semaphore.NewWeighted(maxReading),
		small:   semaphore.NewWeighted(maxSmallWork), large: semaphore.NewWeighted(maxLargeWork),
	}
}

// Serve answers reviews over HTTP with what h says. What is no review is refused
// with an HTTP status and one sentence; so is a review that is too large, and one
// that finds no place in time.
//
// The body's arrival is not timed here: the server's ReadTimeout does that, and
// its end is answered with status 408.
func (l *Limits) Serve(h admission.Handler) http.Handler {
	// What a line of the log says of the request is put together when there is a line.
	webhook := &admission.Webhook{Handler: h, LogConstructor: func(base logr.Logger, _ *admission.Request) logr.Logger { return base }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := l.serve(webhook, w, r); err != nil {
			klog.FromContext(r.Context()).V(1).Info("refused a request", "from", r.RemoteAddr, "status", err.status, "reason", err.reason)
			admissions.WithLabelValues("other", outcomeFailed, "").Inc()
			if err.status == http.StatusMethodNotAllowed {
				w.Header().Set("Allow", http.MethodPost)
			}
			// What the client goes on sending is not worth reading.
			w.Header().Set("Connection", "close")
			http.Error(w, err.reason, err.status)
		}
	})
}

// refusedError is a request that is no review, or came at a bad time.
type refusedError struct {
	status int
	reason string
}

func (e *refusedError) Error() string { return e.reason }

func refused(status int, format string, args ...any) *refusedError {
	return &refusedError{status, fmt.Sprintf(format, args...)}
}

func (l *Limits) serve(webhook *admission.Webhook, w http.ResponseWriter, r *http.Request) *refusedError {
	if r.Method != http.MethodPost {
		return refused(http.StatusMethodNotAllowed, "send an AdmissionReview with POST")
	}
	if given := r.Header.Get("Content-Type"); !isJSON(given) {
		return refused(http.StatusUnsupportedMediaType, "send an AdmissionReview as application/json, not as %q", shorten(given))
	}
	buffer := buffers.Get().(*bytes.Buffer)
	defer putBack(buffer)
	done, err := l.read(r, buffer)
	defer done()
	if err != nil {
		return err
	}
	body := buffer.Bytes()
	weight, places := weigh(body), l.small
	if weight > smallWork {
		places = l.large
	}
	if weight > maxLargeWork {
		return refused(http.StatusRequestEntityTooLarge, "the review has so many lists and objects that it would take too much memory")
	}
	if acquire(r.Context(), places, weight, maxWait) != nil {
		return refused(http.StatusServiceUnavailable, "too many reviews at a time, try again")
	}
	defer places.Release(weight)
	req, err := parse(body)
	if err != nil {
		return err
	}
	response := webhook.Handle(r.Context(), admission.Request{AdmissionRequest: *req}).AdmissionResponse
	review := admissionv1.AdmissionReview{Response: &response}
	review.SetGroupVersionKind(reviewKind)
	// The body has been read: what came of it are copies.
	buffer.Reset()
	if err := json.NewEncoder(buffer).Encode(review); err != nil {
		return refused(http.StatusInternalServerError, "the answer cannot be written")
	}
	// With its length it goes out as it is, and not in chunks.
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(buffer.Len()))
	if _, err := w.Write(buffer.Bytes()); err != nil {
		klog.FromContext(r.Context()).V(1).Info("the client of an admission review is gone", "err", err)
	}
	return nil
}

// buffers are for bodies, and then for their answers.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// putBack keeps the buffer for other reviews, unless it grew for a large one.
func putBack(buffer *bytes.Buffer) {
	if buffer.Cap() > 2*smallBody {
		return
	}
	buffer.Reset()
	buffers.Put(buffer)
}

func acquire(ctx context.Context, places *semaphore.Weighted, n int64, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return places.Acquire(ctx, n)
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/json"
}

// read puts the body into b; done, which is never nil, gives back its place.
func (l *Limits) read(r *http.Request, b *bytes.Buffer) (done func(), refusal *refusedError) {
	done = func() {}
	if r.ContentLength > maxBody {
		return done, tooLarge()
	}
	if _, err := io.CopyN(b, r.Body, smallBody); errors.Is(err, io.EOF) {
		return done, nil
	} else if err != nil {
		return done, unread(err)
	}
	place := int64(maxBody)
	if r.ContentLength > 0 {
		place = r.ContentLength
	}
	if acquire(r.Context(), l.reading, place, maxReadWait) != nil {
		return done, refused(http.StatusServiceUnavailable, "too many large reviews at a time, try again")
	}
	done = func() { l.reading.Release(place) }
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) - b.Len())
	}
	if _, err := io.Copy(b, io.LimitReader(r.Body, maxBody-smallBody+1)); err != nil {
		return done, unread(err)
	}
	if b.Len() > maxBody {
		return done, tooLarge()
	}
	return done, nil
}

func tooLarge() *refusedError {
	return refused(http.StatusRequestEntityTooLarge, "the review is larger than %d bytes", maxBody)
}

func unread(err error) *refusedError {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refused(http.StatusRequestTimeout, "the review did not arrive in time")
	}
	return refused(http.StatusBadRequest, "the review did not arrive: %s", shorten(err.Error()))
}

// The estimates are above what was measured, objects with hundreds of containers
// apart: an object of the API's types is some 400 bytes, is copied, compared and
// compared as JSON; lists and texts are copied a few times.
const (
	bytesPerByte   = 4
	bytesPerValue  = 256
	bytesPerObject = 2 << 10
	// bytesPerText is for one in a list, in addition: where a list of objects belongs,
	// the reader makes an object of it before it refuses them all.
	bytesPerText = 1 << 10
)

// weigh estimates the memory that it takes to answer a review: three bytes of
// JSON can become a thousand in memory. It looks at bytes alone, so that garbage
// is weighed, too. null in a list becomes an object, and a number may until it is refused.
func weigh(body []byte) int64 {
	weight := int64(len(body)) * bytesPerByte
	first := false // what comes is the first of an element, or of the next field
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case ' ', '\t', '\n', '\r':
			continue
		case '"':
			i += textLen(body[i+1:])
			if first && !isName(body[min(i+1, len(body)):]) {
				weight += bytesPerText
			}
		case '{':
			weight += bytesPerObject
		case ',', '[':
			weight += bytesPerValue
			first = true
			continue
		case ']', '}':
		default:
			if first {
				weight += bytesPerObject
			}
		}
		first = false
	}
	return weight
}

// isName reports whether rest is what follows on a field's name.
func isName(rest []byte) bool {
	rest = bytes.TrimLeft(rest, " \t\r\n")
	return len(rest) > 0 && rest[0] == ':'
}

// textLen is how long a text is of which the first quote was seen, with its last; of
// one that has no end, the rest.
func textLen(rest []byte) int {
	for n := 0; ; {
		i := bytes.IndexByte(rest[n:], '"')
		if i < 0 {
			return len(rest)
		}
		before := rest[:n+i]
		n += i + 1
		if (len(before)-len(bytes.TrimRight(before, `\`)))%2 == 0 {
			return n
		}
	}
}

var reviewKind = admissionv1.SchemeGroupVersion.WithKind("AdmissionReview")

func parse(body []byte) (*admissionv1.AdmissionRequest, *refusedError) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, refused(http.StatusBadRequest, "the body is empty, send an AdmissionReview")
	}
	review := &admissionv1.AdmissionReview{}
	if err := unmarshal(body, review); err != nil {
		return nil, refused(http.StatusBadRequest, "the body is no AdmissionReview: %s", shorten(err.Error()))
	}
	if review.GroupVersionKind() != reviewKind {
		return nil, refused(http.StatusBadRequest, "the body is %q, send an AdmissionReview of %s", shorten(review.APIVersion+" "+review.Kind), reviewKind.GroupVersion())
	}
	if review.Request == nil || review.Request.UID == "" {
		return nil, refused(http.StatusBadRequest, "the AdmissionReview holds no request with a uid")
	}
	return review.Request, nil
}

// unmarshal reads a review as the API server would, and with its errors. Like object.Decode
// it tries the quicker reader first. What the review has twice it takes as the other does;
// what an object has twice is not looked at yet.
func unmarshal(body []byte, into *admissionv1.AdmissionReview) error {
	if jsonv2.Unmarshal(body, into, jsontext.AllowDuplicateNames(true), jsonv1.MergeWithLegacySemantics(true)) == nil {
		return nil
	}
	*into = admissionv1.AdmissionReview{}
	return kjson.UnmarshalCaseSensitivePreserveInts(body, into)
}

// shorten keeps a senseless request from filling the log.
func shorten(s string) string {
	const most = 200
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
