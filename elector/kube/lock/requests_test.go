package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/client-go/transport"

	"github.com/elector-io/elector/elector"
)

// script is an API server that is told what to answer, and notes what it was asked.
type script struct {
	answers []reply
	asked   []string        // method, path and query, and what was sent
	within  []time.Duration // how long each request might take
}

// reply is an answer. The last one is given again and again.
type reply struct {
	code int
	body string
	// hangs tells that the body ends with the request, not by itself.
	hangs bool
	// after is what Retry-After says; "" for nothing.
	after string
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	asked := req.Method + " " + req.URL.Path
	if query := req.URL.Query(); len(query) > 0 {
		text, _ := url.QueryUnescape(query.Encode())
		asked += "?" + text
	}
	if req.Body != nil {
		sent, _ := io.ReadAll(req.Body)
		asked += " " + string(sent)
	}
	s.asked = append(s.asked, asked)
	until, _ := req.Context().Deadline()
	s.within = append(s.within, time.Until(until))
	r := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	res := &http.Response{StatusCode: r.code, Header: http.Header{"Content-Type": {"application/json"}}, Request: req}
	if r.after != "" {
		res.Header.Set("Retry-After", r.after)
	}
	var body io.Reader = strings.NewReader(r.body)
	if r.hangs {
		body = io.MultiReader(body, untilDone{req.Context()})
	}
	res.Body = io.NopCloser(body)
	return res, nil
}

// untilDone is the rest of a stream that is silent until its context ends.
type untilDone struct{ context.Context }

func (u untilDone) Read([]byte) (int, error) {
	<-u.Done()
	return 0, u.Err()
}

// serverOf is the server at an address, asked over rt if there is one.
func serverOf(address string, rt http.RoundTripper) Server {
	at, _ := url.Parse(address)
	return Server{URL: at, Connect: clientGo(&transport.Config{Transport: rt})}
}

// clientGo connects as programs do that use package kube.
func clientGo(client *transport.Config) Connect {
	return func(dial DialFunc, wrap func(http.RoundTripper) http.RoundTripper) (http.RoundTripper, error) {
		cfg := *client
		if cfg.Transport == nil {
			cfg.DialHolder, cfg.WrapTransport = &transport.DialHolder{Dial: dial}, wrap
		}
		return transport.New(&cfg)
	}
}

// scripted is the lock of web-0 in namespace default, or of the Pod web-0, and the server that it asks.
func scripted(t *testing.T, mode elector.Mode, answers ...reply) (*lock, *script) {
	t.Helper()
	s := &script{answers: answers}
	l, err := New(serverOf("http://api", s), Config{
		Candidate: elector.Description{Settings: elector.Settings{Lock: testLock, Mode: mode}, Namespace: "default", Identity: "web-0_u0"},
		Jitter:    func(limit time.Duration) time.Duration { return limit / 2 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return l.(*lock), s
}

// lease is a Lease in JSON; of its metadata and spec what is given, besides the name.
func lease(version int, metadata, spec string) string {
	return fmt.Sprintf(`{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"%d"%s},"spec":{%s}}`, version, metadata, spec)
}

func configMap(version int, metadata string) string {
	return fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"web","namespace":"default","uid":"cm","resourceVersion":"%d"%s},"data":{"not":"read"}}`, version, metadata)
}

func listOf(items ...string) string {
	kind, group := "LeaseList", "coordination.k8s.io/v1"
	if len(items) > 0 && strings.Contains(items[0], "ConfigMap") {
		kind, group = "ConfigMapList", "v1"
	}
	return fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"9"},"items":[%s]}`, kind, group, strings.Join(items, ","))
}

// failure is the API server's error of a code and reason.
func failure(code int, reason string) reply {
	return reply{code: code, body: fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"no"}`, reason, code)}
}

const (
	leases     = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
	configMaps = "/api/v1/namespaces/default/configmaps"
	ownedBy0   = `,"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web-0","uid":"u0"}]`
)

// read returns the record that the lock makes of an object.
func (l *lock) read(t *testing.T, text string) elector.Record {
	t.Helper()
	rec, err := l.record([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// sorted returns a request with the fields of its body in order, as they are sent.
func sorted(t *testing.T, asked string) string {
	t.Helper()
	start, body, found := strings.Cut(asked, " {")
	if !found {
		return asked
	}
	var fields map[string]any
	decoder := json.NewDecoder(strings.NewReader("{" + body))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return start + " " + string(text)
}

var withoutObject = cmpopts.IgnoreFields(elector.Record{}, "Object")

// TestPut holds what each write asks for, to the byte, and what the lock is after it.
func TestPut(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 5000, time.UTC)
	note := elector.Note{Holder: "web-0_u0", Write: "p.1", After: 10, Token: 9, LeaseDuration: 15 * time.Second}
	const noted = `{"holder":"web-0_u0","term":%d,"write":"p.1","after":10,"token":9,"leaseSeconds":15%s}`
	inJSON := func(s string) string {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	term3, released := inJSON(fmt.Sprintf(noted, 3, "")), inJSON(fmt.Sprintf(noted, 3, `,"released":true`))
	releasedTo := inJSON(fmt.Sprintf(noted, 3, `,"released":true,"to":"web-1","why":"w"`))
	term0 := inJSON(fmt.Sprintf(noted, 0, ""))
	const allowed = 262144 // of all annotations, by the API server
	room := strings.Repeat("x", allowed-len("elector.io/claim")-len(fmt.Sprintf(noted, 3, ""))-len("c"))
	full := room + "x"
	mine := func(r elector.Record) elector.Record {
		r.Holder, r.LeaseDuration, r.Transitions, r.AcquireTime, r.RenewTime, r.Note = "web-0_u0", 15*time.Second, 3, at, at, note
		return r
	}
	for name, tc := range map[string]struct {
		reason string
		mode   elector.Mode
		base   string // "" for none
		want   func(base elector.Record) elector.Record
		answer string
		asked  string
		got    elector.Record
	}{
		"a Lease is made": {
			reason: "with elector's label, so that what made it is known",
			want:   mine,
			answer: lease(12, "", `"holderIdentity":"web-0_u0"`),
			asked: "POST " + leases + ` {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default",` +
				`"labels":{"app.kubernetes.io/managed-by":"elector"},"annotations":{"elector.io/claim":` + term3 + `}},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true, Holder: "web-0_u0"},
		},
		"a Lease is renewed": {
			reason: "in the version that was seen, with all that others wrote on it, whether it is known here or not",
			base:   lease(11, `,"labels":{"a":"b"},"annotations":{"c":"d","elector.io/claim":"old"}`, `"holderIdentity":"x","leaseTransitions":2,"preferredHolder":"y","later":{"n":12345678901234567890.50}`),
			want:   mine,
			answer: lease(12, `,"annotations":{"elector.io/claim":`+term3+`}`, `"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"leaseTransitions":3,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z"`),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"labels":{"a":"b"},"annotations":{"c":"d","elector.io/claim":` + term3 + `}},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3,"preferredHolder":"y","later":{"n":12345678901234567890.50}}}`,
			got: mine(elector.Record{Version: 12, Exists: true}),
		},
		"a Lease with managed fields is renewed": {
			reason: "an entry that is empty makes the API server forget them, which makes every write cheaper",
			base:   lease(11, `,"managedFields":[{"manager":"kubectl","operation":"Update"}]`, `"holderIdentity":"x","leaseTransitions":2`),
			want:   mine,
			answer: lease(12, "", ""),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"elector.io/claim":` + term3 + `},"managedFields":[{}]},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true},
		},
		"a Lease that somebody applies is renewed": {
			reason: "the API server has to know what to remove when that is applied without it",
			base:   lease(11, `,"managedFields":[{"manager":"kubectl","operation":"Update"},{"manager":"argocd","operation":"Apply"}]`, `"holderIdentity":"x","leaseTransitions":2`),
			want:   mine,
			answer: lease(12, "", ""),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"elector.io/claim":` + term3 + `},"managedFields":[{"manager":"kubectl","operation":"Update"},{"manager":"argocd","operation":"Apply"}]},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true},
		},
		"a Lease with a request is renewed": {
			reason: "what others ask stays until it is done, or speaks of another's claim",
			base:   lease(11, `,"annotations":{"elector.io/handover":"{\"token\":9}","elector.io/next":"web-1"}`, `"holderIdentity":"web-0_u0"`),
			want:   mine,
			answer: lease(12, "", ""),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"elector.io/claim":` + term3 + `,"elector.io/handover":"{\"token\":9}","elector.io/next":"web-1"}},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true},
		},
		"a Lease with a request is released": {
			reason: "the request is done, and the release says whose wish it was",
			base:   lease(11, `,"annotations":{"elector.io/handover":"{\"token\":9}","elector.io/next":"web-1"}`, `"holderIdentity":"web-0_u0","leaseTransitions":3`),
			want: func(r elector.Record) elector.Record {
				r.Holder, r.Note, r.Handover = "", note, elector.Handover{}
				r.Note.Released, r.Note.To, r.Note.Why = true, "web-1", "w"
				return r
			},
			answer: lease(12, `,"annotations":{"elector.io/claim":`+releasedTo+`,"elector.io/next":"web-1"}`, `"holderIdentity":"","leaseTransitions":3`),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"elector.io/claim":` + releasedTo + `,"elector.io/next":"web-1"}},` +
				`"spec":{"holderIdentity":"","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true, Transitions: 3, Next: "web-1", Note: func() elector.Note {
				n := note
				n.Released, n.To, n.Why = true, "web-1", "w"
				return n
			}()},
		},
		"a Lease with garbage for a request is taken": {
			reason: "it is nobody's any more",
			base:   lease(11, `,"annotations":{"elector.io/handover":"now!"}`, ""),
			want:   func(r elector.Record) elector.Record { r = mine(r); r.HandoverFault = ""; return r },
			answer: lease(12, "", ""),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"elector.io/claim":` + term3 + `}},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true},
		},
		"a Lease with garbage for a request is renewed": {
			reason: "its writer may want to see it",
			base:   lease(11, `,"annotations":{"elector.io/handover":"now!"}`, ""),
			want:   mine,
			answer: lease(12, "", ""),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"elector.io/claim":` + term3 + `,"elector.io/handover":"now!"}},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true},
		},
		"a Lease is released": {
			reason: "the holder goes; its times stay, for people to read",
			base:   lease(11, "", `"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"renewTime":"2026-11-20T11:00:00.000000Z","leaseTransitions":3`),
			want: func(r elector.Record) elector.Record {
				r.Holder, r.Note, r.RenewTime, r.LeaseDuration = "", note, at, time.Minute
				r.Note.Released = true
				return r
			},
			answer: lease(12, "", `"holderIdentity":"","leaseTransitions":3`),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"elector.io/claim":` + released + `}},` +
				`"spec":{"holderIdentity":"","leaseDurationSeconds":15,"renewTime":"2026-11-20T11:00:00.000000Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true, Transitions: 3},
		},
		"a Lease full of annotations": {
			reason: "where there is no room for a note an old one, which would lie, goes all the same",
			base:   lease(11, `,"annotations":{"c":"`+full+`","elector.io/claim":"old"}`, ""),
			want:   mine,
			answer: lease(12, "", ""),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"c":"` + full + `"}},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true},
		},
		"a Lease with just the room": {
			reason: "the old note makes room for the new one",
			base:   lease(11, `,"annotations":{"c":"`+room+`","elector.io/claim":"old"}`, ""),
			want:   mine,
			answer: lease(12, "", ""),
			asked: "PUT " + leases + `/web {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"default","resourceVersion":"11",` +
				`"annotations":{"c":"` + room + `","elector.io/claim":` + term3 + `}},` +
				`"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15,"acquireTime":"2026-11-20T12:00:00.000005Z","renewTime":"2026-11-20T12:00:00.000005Z","leaseTransitions":3}}`,
			got: elector.Record{Version: 12, Exists: true},
		},
		"a ConfigMap is made": {
			reason: "its owner is this Pod, so that the garbage collector frees it",
			mode:   elector.ModeLeaderForLife,
			want:   func(elector.Record) elector.Record { return elector.Record{Holder: "web-0_u0", Note: note} },
			answer: configMap(12, ownedBy0+`,"annotations":{"elector.io/claim":`+term0+`}`),
			asked: "POST " + configMaps + ` {"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"web","namespace":"default",` +
				`"labels":{"app.kubernetes.io/managed-by":"elector"},"annotations":{"elector.io/claim":` + term0 + `}` + ownedBy0 + `}}`,
			got: elector.Record{Version: 12, Exists: true, Holder: "web-0_u0", Note: note},
		},
		"a ConfigMap is noted on": {
			reason: "in the very version of the very object, and nothing else in it is touched",
			mode:   elector.ModeLeaderForLife,
			base:   configMap(11, ownedBy0),
			want:   func(r elector.Record) elector.Record { r.Note = note; return r },
			answer: configMap(12, ownedBy0),
			asked:  "PATCH " + configMaps + `/web {"metadata":{"annotations":{"elector.io/claim":` + term0 + `},"resourceVersion":"11","uid":"cm"}}`,
			got:    elector.Record{Version: 12, Exists: true, Holder: "web-0_u0"},
		},
		"a ConfigMap full of annotations": {
			reason: "a write has to change something, or it would prove nothing",
			mode:   elector.ModeLeaderForLife,
			base:   configMap(11, ownedBy0+`,"annotations":{"c":"`+full+`"}`),
			want:   func(r elector.Record) elector.Record { r.Note = note; return r },
			answer: configMap(12, ownedBy0),
			asked:  "PATCH " + configMaps + `/web {"metadata":{"labels":{"elector.io/write":"p.1"},"resourceVersion":"11","uid":"cm"}}`,
			got:    elector.Record{Version: 12, Exists: true, Holder: "web-0_u0"},
		},
		"a ConfigMap is released": {
			reason: "the very object goes, in the very version; what was its last state is older than its end",
			mode:   elector.ModeLeaderForLife,
			base:   configMap(11, ownedBy0),
			want:   func(r elector.Record) elector.Record { r.Holder, r.Note = "", note; return r },
			answer: `{"kind":"Status","apiVersion":"v1","status":"Success"}`,
			asked:  "DELETE " + configMaps + `/web {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"cm","resourceVersion":"11"}}`,
			got:    elector.Record{Version: 12},
		},
		"a ConfigMap of nobody's": {
			reason: "it can't be given an owner: it goes, and the next write makes another",
			mode:   elector.ModeLeaderForLife,
			base:   configMap(11, `,"labels":{"app.kubernetes.io/managed-by":"elector"}`),
			want:   func(r elector.Record) elector.Record { r.Holder, r.Note = "web-0_u0", note; return r },
			answer: `{"kind":"Status","apiVersion":"v1","status":"Success"}`,
			asked:  "DELETE " + configMaps + `/web {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"cm","resourceVersion":"11"}}`,
			got:    elector.Record{Version: 12},
		},
		"a ConfigMap of nobody's is released": {
			reason: "nobody holds it, and nobody shall",
			mode:   elector.ModeLeaderForLife,
			base:   configMap(11, `,"labels":{"app.kubernetes.io/managed-by":"elector"}`),
			want:   func(r elector.Record) elector.Record { r.Note = note; return r },
			answer: `{"kind":"Status","apiVersion":"v1","status":"Success"}`,
			asked:  "DELETE " + configMaps + `/web {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"cm","resourceVersion":"11"}}`,
			got:    elector.Record{Version: 12},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Log(tc.reason)
			l, s := scripted(t, tc.mode, reply{code: http.StatusOK, body: tc.answer})
			var base elector.Record
			if tc.base != "" {
				base = l.read(t, tc.base)
			}
			before := fmt.Sprintf("%+v", base.Object)
			got, err := l.Put(t.Context(), base, tc.want(base))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{sorted(t, tc.asked)}, s.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.got, got, withoutObject); diff != "" {
				t.Errorf("the lock as written (-want +got):\n%s", diff)
			}
			if got.Exists && got.Object == nil {
				t.Error("the next write has nothing to go on from")
			}
			if after := fmt.Sprintf("%+v", base.Object); after != before {
				t.Errorf("what was seen is changed: %s", after)
			}
		})
	}
}

// TestPutOverMuch writes locks as large as the datastore takes, which somebody filled to be a nuisance: a write costs no more than some
// copies of the text, and what nobody knows here is sent back as it was.
func TestPutOverMuch(t *testing.T) {
	var filling strings.Builder
	for i := 0; filling.Len() < 1_380_000; i++ { // the datastore takes 1.5 MB
		fmt.Fprintf(&filling, `"f:%x":{"f:a":{}},`, i)
	}
	owned := `{"f:spec":{` + filling.String() + `"f:last":{}}}`
	for name, tc := range map[string]struct{ reason, metadata, sent string }{
		"managed fields": {
			"who wrote what is forgotten, and not looked at for that",
			`,"managedFields":[{"manager":"x","operation":"Update","fieldsV1":` + owned + `}]`, `"managedFields":[{}]`,
		},
		"applied": {
			"it is sent back, and not looked at for that",
			`,"managedFields":[{"manager":"x","operation":"Apply","fieldsV1":` + owned + `}]`, `"operation":"Apply","fieldsV1":` + owned + `}]`,
		},
		"unknown": {"a later API's, it may be", `,"later":` + owned, `"later":` + owned},
	} {
		t.Run(name, func(t *testing.T) {
			t.Log(tc.reason)
			l, s := scripted(t, elector.ModeLease, reply{code: http.StatusOK, body: lease(12, "", "")})
			base := l.read(t, lease(11, tc.metadata, `"holderIdentity":"x"`))
			want := base
			want.Holder = ""
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := l.Put(t.Context(), base, want)
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(s.asked[0], tc.sent) {
				t.Errorf("asked %.300s… and so on, and not what was there", s.asked[0])
			}
			if made := (after.TotalAlloc - before.TotalAlloc) / uint64(len(owned)); made > 15 {
				t.Errorf("the write took memory for %d times the text", made)
			}
		})
	}
}

// TestPutFails holds what a refusal means. Each is told at once: who writes a lock knows when to try again.
func TestPutFails(t *testing.T) {
	missing := failure(http.StatusNotFound, "NotFound")
	busy := failure(http.StatusTooManyRequests, "TooManyRequests")
	busy.after = "1"
	for name, tc := range map[string]struct {
		reason           string
		answer           reply
		made             bool // the lock did not exist
		conflict, denied bool
	}{
		"changed":         {reason: "another write was first", answer: failure(http.StatusConflict, "Conflict"), conflict: true},
		"made by another": {reason: "another write was first", answer: failure(http.StatusConflict, "AlreadyExists"), made: true, conflict: true},
		"gone":            {reason: "it is not what it was", answer: missing, conflict: true},
		"no namespace":    {reason: "nothing changed, and it will not work before somebody makes it", answer: missing, made: true},
		"forbidden":       {reason: "a Role is missing", answer: failure(http.StatusForbidden, "Forbidden"), denied: true},
		"unauthorized":    {reason: "the token is no good", answer: failure(http.StatusUnauthorized, "Unauthorized"), denied: true},
		"broken":          {reason: "it may have been written, or not", answer: failure(http.StatusInternalServerError, "InternalError")},
		"busy":            {reason: "the candidate waits as long as it likes, and does not sleep in a request", answer: busy},
		"nonsense":        {reason: "nobody knows what became of it", answer: reply{code: http.StatusOK, body: `{"kind":"Lease"`}},
		"no number":       {reason: "a version is one", answer: reply{code: http.StatusOK, body: strings.Replace(lease(7, "", ""), `"7"`, `"x"`, 1)}},
	} {
		for _, mode := range []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife} {
			for _, op := range []string{"write", "remove"} {
				if op == "remove" && (mode == elector.ModeLease || tc.made || tc.answer.code == http.StatusOK) {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, %s", name, mode, op), func(t *testing.T) {
					t.Log(tc.reason)
					synctest.Test(t, func(t *testing.T) {
						l, s := scripted(t, mode, tc.answer)
						var base elector.Record
						switch {
						case tc.made:
						case mode == elector.ModeLease:
							base = l.read(t, lease(7, "", `"holderIdentity":"web-0_u0"`))
						default:
							base = l.read(t, configMap(7, ownedBy0))
						}
						want := base
						want.Holder = "web-0_u0"
						if op == "remove" {
							want.Holder = ""
						}
						began := time.Now()
						got, err := l.Put(t.Context(), base, want)
						if err == nil || errors.Is(err, elector.ErrConflict) != tc.conflict || errors.Is(err, elector.ErrDenied) != tc.denied {
							t.Errorf("got %v; want a conflict: %v, denied: %v", err, tc.conflict, tc.denied)
						}
						if diff := cmp.Diff(elector.Record{}, got); diff != "" {
							t.Errorf("a lock comes with the error: %s", diff)
						}
						if took := time.Since(began); len(s.asked) != 1 || took != 0 {
							t.Errorf("asked %d times in %v", len(s.asked), took)
						}
					})
				})
			}
		}
	}
}

// TestPaces holds that nothing but the candidate paces requests: a queue before them would delay renewals.
func TestPaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := scripted(t, elector.ModeLease, reply{code: http.StatusOK, body: lease(8, "", "")})
		began := time.Now()
		for range 100 {
			if _, err := l.Put(t.Context(), elector.Record{}, elector.Record{Holder: "web-0_u0"}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("100 writes took %v", took)
		}
	})
}

// TestRedirected sends a renewal to a server that sends it on, as no API server does.
func TestRedirected(t *testing.T) {
	const lease = `{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"job","namespace":"default","uid":"l","resourceVersion":"7"},"spec":{"holderIdentity":"web-0_u0","leaseDurationSeconds":15}}`
	for _, code := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			t.Errorf("%d: another server was asked to %s", code, r.Method)
		}))
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				_, _ = io.WriteString(w, `{"kind":"LeaseList","apiVersion":"coordination.k8s.io/v1","metadata":{"resourceVersion":"7"},"items":[`+lease+`]}`)
				return
			}
			http.Redirect(w, r, other.URL+r.URL.Path, code) //nolint:gosec // to a server of this test
		}))
		l, err := New(serverOf(api.URL, nil), Config{Candidate: elector.Description{Settings: elector.Settings{Lock: "job"}, Namespace: "default", Identity: "web-0_u0"}})
		if err != nil {
			t.Fatal(err)
		}
		var base elector.Record
		if _, err := l.(*lock).list(t.Context(), func(r elector.Record) { base = r }); err != nil {
			t.Fatal(err)
		}
		want := base
		want.RenewTime = want.RenewTime.Add(time.Second)
		if _, err := l.Put(t.Context(), base, want); err == nil {
			t.Errorf("%d: a write that was not carried out has succeeded", code)
		}
		api.Close()
		other.Close()
	}
}

// TestShown holds that no message takes more than a line of a log, or too long a one.
func TestShown(t *testing.T) {
	for message, want := range map[string]string{
		"not today":               "not today",
		"one\ntwo\x1b[31m":        "one two [31m",
		strings.Repeat("é", 2000): strings.Repeat("é", 1024),
	} {
		text, err := json.Marshal(map[string]any{"kind": "Status", "code": 500, "message": message})
		if err != nil {
			t.Fatal(err)
		}
		if got := statusOf(500, text).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
