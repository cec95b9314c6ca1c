package admit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
)

// TestRefused sends what is no review. Each is answered in one line, and counted.
func TestRefused(t *testing.T) {
	const head = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1","kind":{"version":"v1","kind":"Pod"},"operation":"CREATE","object":`
	tests := map[string]struct {
		reason            string
		method, mediaType string
		body              io.Reader
		status            int
		want              string
	}{
		"GET":         {"a browser", http.MethodGet, "", strings.NewReader(""), 405, "send an AdmissionReview with POST"},
		"form":        {"curl without a header", "", "application/x-www-form-urlencoded", strings.NewReader("{}"), 415, `send an AdmissionReview as application/json, not as "application/x-www-form-urlencoded"`},
		"no type":     {"it may be anything", "", "-", strings.NewReader("{}"), 415, `send an AdmissionReview as application/json, not as ""`},
		"nothing":     {"no body", "", "", strings.NewReader(""), 400, "the body is empty, send an AdmissionReview"},
		"spaces":      {"as good as nothing", "", "", strings.NewReader(" \n"), 400, "the body is empty, send an AdmissionReview"},
		"text":        {"garbage", "", "", strings.NewReader("hello"), 400, "the body is no AdmissionReview: invalid character 'h' looking for beginning of value"},
		"bytes":       {"garbage", "", "", strings.NewReader("\x16\x03\x01\x00"), 400, `the body is no AdmissionReview: invalid character '\x16' looking for beginning of value`},
		"truncated":   {"half a review", "", "", strings.NewReader(head + `{"kind"`), 400, "the body is no AdmissionReview: unexpected end of JSON input"},
		"null":        {"JSON, but nothing", "", "", strings.NewReader("null"), 400, `the body is " ", send an AdmissionReview of admission.k8s.io/v1`},
		"list":        {"JSON, but no object", "", "", strings.NewReader("[]"), 400, "the body is no AdmissionReview: json: cannot unmarshal array into Go value of type v1.AdmissionReview"},
		"kind":        {"an object without a review", "", "", strings.NewReader(`{"kind":"Pod","apiVersion":"v1"}`), 400, `the body is "v1 Pod", send an AdmissionReview of admission.k8s.io/v1`},
		"version":     {"the configuration asks for v1", "", "", strings.NewReader(strings.Replace(head, "io/v1", "io/v1beta1", 1) + `{}}}`), 400, `the body is "admission.k8s.io/v1beta1 AdmissionReview", send an AdmissionReview of admission.k8s.io/v1`},
		"long kind":   {"the sentence stays short", "", "", strings.NewReader(`{"kind":"` + strings.Repeat("x", 1<<20) + `"}`), 400, `the body is " ` + strings.Repeat("x", 199) + `…", send an AdmissionReview of admission.k8s.io/v1`},
		"no request":  {"nothing to decide on", "", "", strings.NewReader(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{}}`), 400, "the AdmissionReview holds no request with a uid"},
		"no uid":      {"no API server would know the answer", "", "", strings.NewReader(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}`), 400, "the AdmissionReview holds no request with a uid"},
		"10 MB":       {"refused before it is read", "", "", strings.NewReader(strings.Repeat(" ", 10<<20)), 413, "the review is larger than 7340032 bytes"},
		"endless":     {"of a length that is not known", "", "", io.MultiReader(endless{}), 413, "the review is larger than 7340032 bytes"},
		"objects":     {"3 bytes that become 1000", "", "", strings.NewReader(head + `{"spec":{"containers":[` + strings.Repeat("{},", 40_000) + `{}]}}}}`), 413, "the review has so many lists and objects that it would take too much memory"},
		"lists":       {"the same", "", "", strings.NewReader(head + `{"x":` + strings.Repeat("[", 300_000)), 413, "the review has so many lists and objects that it would take too much memory"},
		"broken":      {"the client went away", "", "", iotest.ErrReader(errors.New("connection reset by peer")), 400, "the review did not arrive: connection reset by peer"},
		"slow":        {"the server's ReadTimeout", "", "", iotest.ErrReader(fmt.Errorf("read tcp: %w", os.ErrDeadlineExceeded)), 408, "the review did not arrive in time"},
		"slow, large": {"the same", "", "", io.MultiReader(strings.NewReader(strings.Repeat(" ", 1<<20)), iotest.ErrReader(os.ErrDeadlineExceeded)), 408, "the review did not arrive in time"},
	}
	limits := NewLimits()
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			method := http.MethodPost
			if tc.method != "" {
				method = tc.method
			}
			r := httptest.NewRequest(method, "/mutate", tc.body)
			switch tc.mediaType {
			case "":
				r.Header.Set("Content-Type", "application/json; charset=utf-8")
			case "-":
			default:
				r.Header.Set("Content-Type", tc.mediaType)
			}
			w := httptest.NewRecorder()
			before := counted(t, "other", outcomeFailed, "")
			limits.Serve(Pods(options)).ServeHTTP(w, r)
			if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != tc.status || got != tc.want {
				t.Errorf("%s:\n got %d %s\nwant %d %s", tc.reason, w.Code, got, tc.status, tc.want)
			}
			if n := counted(t, "other", outcomeFailed, "") - before; n != 1 {
				t.Errorf("counted %v times", n)
			}
		})
	}
	if !limits.reading.TryAcquire(maxReading) || !limits.small.TryAcquire(maxSmallWork) || !limits.large.TryAcquire(maxLargeWork) {
		t.Error("a place was not given back")
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestSlowClients holds that clients that announce much and send nothing do not
// keep others from being answered, small reviews not at all.
func TestSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := NewLimits()
		handler := limits.Serve(Pods(options))
		request := func(body io.Reader, length int64) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "/mutate", body)
			r.ContentLength = length
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			return w
		}
		var wg sync.WaitGroup
		var held []*io.PipeWriter
		for range maxReading / maxBody {
			r, w := io.Pipe()
			held = append(held, w)
			wg.Go(func() {
				if got := request(r, maxBody); got.Code != http.StatusRequestTimeout {
					t.Errorf("answered with %d %s", got.Code, got.Body)
				}
			})
			if _, err := io.WriteString(w, strings.Repeat(" ", 2*smallBody)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()

		raw := toJSON(t, electedPod)
		small := review(t, admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: kruntime.RawExtension{Raw: raw}})
		large := append(bytes.Clone(small), strings.Repeat(" ", 2*smallBody)...)
		start := time.Now()
		if w := request(bytes.NewReader(small), int64(len(small))); w.Code != http.StatusOK || time.Since(start) > 0 {
			t.Errorf("a small review waits %s and is answered with %d %s", time.Since(start), w.Code, w.Body)
		}
		if w := request(bytes.NewReader(large), int64(len(large))); w.Code != http.StatusServiceUnavailable || time.Since(start) != maxReadWait {
			t.Errorf("a large review waits %s and is answered with %d %s", time.Since(start), w.Code, w.Body)
		}
		wg.Go(func() {
			if w := request(bytes.NewReader(large), int64(len(large))); w.Code != http.StatusOK {
				t.Errorf("a large review that waits until there is a place is answered with %d %s", w.Code, w.Body)
			}
		})
		synctest.Wait()
		for _, w := range held {
			if err := w.CloseWithError(os.ErrDeadlineExceeded); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
	})
}

// TestBusy holds that a review waits for memory, and not forever; a small one not
// for large ones.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := NewLimits()
		pod := toJSON(t, electedPod)
		small := review(t, admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: kruntime.RawExtension{Raw: pod}})
		pod = toJSON(t, electedPod+"    args: ["+strings.Repeat("a,", smallWork/bytesPerValue)+"a]\n")
		large := review(t, admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: kruntime.RawExtension{Raw: pod}})
		serve := func(body []byte) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "/mutate", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			limits.Serve(Pods(options)).ServeHTTP(w, r)
			return w
		}
		busy := func(body []byte) {
			t.Helper()
			start := time.Now()
			w := serve(body)
			if w.Code != http.StatusServiceUnavailable || w.Body.String() != "too many reviews at a time, try again\n" || time.Since(start) != maxWait {
				t.Errorf("answered with %d %s after %s", w.Code, w.Body, time.Since(start))
			}
		}
		if !limits.large.TryAcquire(maxLargeWork) {
			t.Fatal("there is no room")
		}
		if code := serve(small).Code; code != http.StatusOK {
			t.Errorf("a small review is answered with %d while there are large ones", code)
		}
		busy(large)
		if !limits.small.TryAcquire(maxSmallWork) {
			t.Fatal("there is no room")
		}
		busy(small)
		done := make(chan int)
		for _, body := range [][]byte{small, large} {
			go func() { done <- serve(body).Code }()
		}
		synctest.Wait()
		limits.small.Release(maxSmallWork)
		limits.large.Release(maxLargeWork)
		for range 2 {
			if code := <-done; code != http.StatusOK {
				t.Errorf("answered with %d when there is room", code)
			}
		}
	})
}

// TestWeigh compares the estimates with what is allocated for pods that are made
// to need much, and for an ordinary one. What is allocated is more than what is
// needed at a time: by half at least, when everything is copied several times.
func TestWeigh(t *testing.T) {
	const n = 5000
	list := func(element string) string { return strings.TrimSuffix(strings.Repeat(element+",", n), ",") }
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"%d":{}`, i)
	}
	pods := map[string]string{
		"arguments":  `"containers":[{"name":"a","args":[` + list(`""`) + `]}]`,
		"variables":  `"containers":[{"name":"a","env":[` + list(`{}`) + `]}]`,
		"references": `"containers":[{"name":"a","env":[` + list(`{"name":"a","valueFrom":{"secretKeyRef":{"name":"x","key":"y"}}}`) + `]}]`,
		"mounts":     `"containers":[{"name":"a","volumeMounts":[` + list(`{}`) + `]}]`,
		"ports":      `"containers":[{"name":"a","ports":[` + list(`{}`) + `]}]`,
		"volumes":    `"containers":[{"name":"a"}],"volumes":[` + list(`{}`) + `]`,
		"ephemeral":  `"containers":[{"name":"a"}],"ephemeralContainers":[` + list(`{}`) + `]`,
		"unknown":    `"containers":[{"name":"a"}],"future":[` + list(`{"a":[{}]}`) + `]`,
		"twice":      `"containers":[{"name":"a","env":[` + list(`{"name":"a","valueFrom":{"secretKeyRef":{"name":"x","key":"y"}}}`) + `]}],"x":1,"x":2`,
		"nulls":      `"containers":[{"name":"a"}],"volumes":[` + list(`null`) + `],"ephemeralContainers":[` + list(`null`) + `]`,
		"no objects": `"x":1,"x":2,"containers":[` + list(`""`) + `]`,
		"numbers":    `"containers":[` + list(` 1 `) + `]`,
		"names":      `"containers":[{"name":"a"}],"future":{` + strings.Join(names, ",") + `}`,
		"text":       `"containers":[{"name":"a","args":["` + strings.Repeat("x", 1<<20) + `"]}]`,
	}
	for name, spec := range pods {
		t.Run(name, func(t *testing.T) {
			object := `{"metadata":{"name":"web","annotations":{"elector.io/enabled":"true"}},"spec":{"serviceAccountName":"web",` + spec + `}}`
			body := review(t, admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: kruntime.RawExtension{Raw: []byte(object)}})
			handler := NewLimits().Serve(Pods(options))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := httptest.NewRequest(http.MethodPost, "/mutate", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			runtime.ReadMemStats(&after)
			if w.Code != http.StatusOK {
				t.Fatalf("answered with %d %s", w.Code, w.Body)
			}
			allocated, weight := int64(after.TotalAlloc-before.TotalAlloc), weigh(body)
			if allocated > 2*weight {
				t.Errorf("%d bytes are allocated for a body of %d that is estimated to need %d", allocated, len(body), weight)
			}
			t.Logf("body %d, allocated %d, estimated %d", len(body), allocated, weight)
		})
	}
	for body, want := range map[string]int64{
		`{"a":"{,[\"{","b":[1]}`:     2*bytesPerObject + 2*bytesPerValue,
		`{"a":null, "b" : 1,"c":[]}`: bytesPerObject + 3*bytesPerValue,
		"[\n\tnull, {}, \"\" , [] ]": 2*bytesPerObject + 5*bytesPerValue + bytesPerText,
	} {
		if got := weigh([]byte(body)) - int64(len(body))*bytesPerByte; got != want {
			t.Errorf("%s weighs %d more than its bytes, want %d", body, got, want)
		}
	}
}

// tokens are what JSON is made of, as far as estimates go.
var tokens = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*(?:"|\\?$)|[^\s"]`)

// FuzzWeigh holds the estimate to one that looks at tokens.
func FuzzWeigh(f *testing.F) {
	for _, body := range []string{`{"a":"{,[\"{","b":[1]}`, `"\\",[`, `"\\\",["`, `"`, `"\`, `\",[{`, `{"a\\":[{}]`, `[null ,1, "a" ,"b" :"c"]`, `["`, `,"a`} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if !utf8.ValidString(body) || strings.Contains(body, "\f") {
			t.Skip("the expression has other ideas of its bytes")
		}
		want, found := int64(len(body))*bytesPerByte, append(tokens.FindAllString(body, -1), "")
		before := ""
		for i, token := range found[:len(found)-1] {
			element := before == "," || before == "["
			switch before = token; {
			case token == "{":
				want += bytesPerObject
			case token == ",", token == "[":
				want += bytesPerValue
			case token == "]", token == "}", !element:
			case token[0] != '"':
				want += bytesPerObject
			case found[i+1] != ":":
				want += bytesPerText
			}
		}
		if got := weigh([]byte(body)); got != want {
			t.Errorf("%q weighs %d, want %d", body, got, want)
		}
	})
}

// checkUnmarshal holds the review's two readers to the same.
func checkUnmarshal(t *testing.T, body []byte) {
	t.Helper()
	var got, want admissionv1.AdmissionReview
	err, wantErr := unmarshal(body, &got), kjson.UnmarshalCaseSensitivePreserveInts(body, &want)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Errorf("%s: the error is %v, want %v", body, err, wantErr)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s (-want +got):\n%s", body, cmp.Diff(want, got))
	}
}

// oddReviews are what the two readers might take differently.
var oddReviews = []string{
	`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1","kind":{"kind":"Pod","version":"v1"},"operation":"CREATE","object":{"a":1,"a":2},"options":null}}`,
	`{"request":{"uid":"1","uid":null,"kind":{"kind":"Pod"},"kind":{"version":"v1"},"object":{"a":1},"object":null},"request":{"uid":"2","operation":null}}`,
	`{"request":{"uid":"1"},"request":null}`,
	`{"request":{"userInfo":{"groups":["a","b"],"groups":["c"],"groups":[null,"d"],"extra":{"a":["1"],"a":["2","3"],"a":null}},"dryRun":true,"dryRun":null}}`,
	`{"Request":{},"request":{"UID":"1","oldObject":[],"OldObject":1}}`,
	`{"response":{"patch":"AA==","patch":"","status":{"details":{"causes":[{}]}},"auditAnnotations":{"a":"1","a":null}}}`,
	`{"response":{"patch":[1,2]}}`, `{"response":{"patch":"A A"}}`, `{"response":{"patch":"AA\r\n=="}}`,
	"{\"request\":{\"uid\":\"\xff\",\"object\":{\"\xff\":\"\xff\"}}}", `{"request":{"uid":"\ud800"}}`, `{"request":{"requestKind":{"kind":1}}}`, `{}{}`, `[]`, `null`, ``,
	`{"request":{"object":` + strings.Repeat("[", 9998) + strings.Repeat("]", 9998) + `}}`,
	`{"request":{"object":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + `}}`,
}

// TestUnmarshal holds both readers of reviews to the same.
func TestUnmarshal(t *testing.T) {
	for _, body := range oddReviews {
		checkUnmarshal(t, []byte(body))
	}
}

// FuzzUnmarshal holds both readers of reviews to the same, whatever comes.
func FuzzUnmarshal(f *testing.F) {
	for _, body := range oddReviews[:len(oddReviews)-2] {
		f.Add([]byte(body))
	}
	f.Fuzz(checkUnmarshal)
}

// TestBuffersAreNotShared answers many reviews at a time, each of which wants its own answer.
func TestBuffersAreNotShared(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		lock := fmt.Sprintf("lock-%d-%s", i, strings.Repeat("x", 20*i+1))
		object := kruntime.RawExtension{Raw: toJSON(t, strings.Replace(electedPod, "annotations:", "annotations:\n    elector.io/lock: "+lock, 1))}
		wg.Go(func() {
			for range 50 {
				resp := send(t, Pods(options), admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: object})
				if !bytes.Contains(resp.Patch, []byte(`"--lock=`+lock+`"`)) {
					t.Errorf("the pod of %s is patched by %s", lock, resp.Patch)
				}
			}
		})
	}
	wg.Wait()
}

// TestLargeBuffersAreNotKept holds that a large review does not take memory for longer than itself.
func TestLargeBuffersAreNotKept(t *testing.T) {
	for range 100 {
		large := new(bytes.Buffer)
		large.Grow(1 << 20)
		putBack(large)
		if kept := buffers.Get().(*bytes.Buffer); kept.Cap() >= 1<<20 {
			t.Fatalf("a buffer of %d bytes is kept", kept.Cap())
		}
	}
}
