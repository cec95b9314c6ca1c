package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elector-io/elector/elector"
)

// event is one line of a watch.
func event(kind, object string) string {
	return fmt.Sprintf(`{"type":%q,"object":%s}`+"\n", kind, object)
}

// TestObserve holds what is asked for a reading, how long it may take, and what is seen of the answers. Time is synctest's.
func TestObserve(t *testing.T) {
	const (
		list      = "GET " + leases + "?fieldSelector=metadata.name=web"
		watchFrom = "GET " + leases + "?allowWatchBookmarks=true&fieldSelector=metadata.name=web&resourceVersion=%d&timeoutSeconds=450&watch=true"
		get       = "GET " + leases + "/web"
	)
	const readWithin, watchWithin = 5 * time.Second, 480 * time.Second
	held := lease(7, "", `"holderIdentity":"web-1_u1"`)
	ok := func(body string) reply { return reply{code: http.StatusOK, body: body} }
	forbidden := failure(http.StatusForbidden, "Forbidden")
	busy := failure(http.StatusTooManyRequests, "TooManyRequests")
	busy.after = "1"
	rec := func(version uint64, holder string) elector.Record {
		return elector.Record{Version: version, Exists: true, Holder: holder}
	}
	polled := func(r elector.Record) elector.Record { r.Missed = true; return r }
	times := func(n int, s string) (all []string) {
		for range n {
			all = append(all, s)
		}
		return all
	}
	// polls are so many sightings of the same.
	polls := func(n int, r elector.Record) (all []elector.Record) {
		for range n {
			all = append(all, polled(r))
		}
		return all
	}
	for name, tc := range map[string]struct {
		reason  string
		answers []reply
		asked   []string
		seen    []elector.Record
		err     string // a part of it, "" for none
		denied  bool
		took    time.Duration
		first   bool // it was not refused before
	}{
		"changes": {
			reason: "the state at first, then every change, in order, until the server ends the watch, which is no failure",
			answers: []reply{
				ok(listOf(held)),
				ok(event("MODIFIED", lease(10, "", `"holderIdentity":""`)) + event("BOOKMARK", lease(11, "", "")) + event("DELETED", lease(12, "", `"holderIdentity":"x"`)) +
					event("ADDED", lease(13, "", `"holderIdentity":"web-2_u2"`))),
			},
			asked: []string{list, fmt.Sprintf(watchFrom, 9)},
			seen:  []elector.Record{rec(7, "web-1_u1"), rec(10, ""), {Version: 12}, rec(13, "web-2_u2")},
		},
		"no lock": {
			reason:  "the version of the list is that of there being none",
			answers: []reply{ok(listOf()), ok("")},
			asked:   []string{list, fmt.Sprintf(watchFrom, 9)},
			seen:    []elector.Record{{Version: 9}},
		},
		"silence": {
			reason:  "a server that does not end its watch in time is taken for dead",
			answers: []reply{ok(listOf(held)), {code: http.StatusOK, body: event("MODIFIED", lease(10, "", "")), hangs: true}},
			asked:   []string{list, fmt.Sprintf(watchFrom, 9)},
			seen:    []elector.Record{rec(7, "web-1_u1"), rec(10, "")},
			took:    watchWithin,
		},
		"expired": {
			reason:  "what was between is not to be had any more, so reading begins anew",
			answers: []reply{ok(listOf(held)), ok(event("ERROR", failure(http.StatusGone, "Expired").body))},
			asked:   []string{list, fmt.Sprintf(watchFrom, 9)},
			seen:    []elector.Record{rec(7, "web-1_u1")},
			err:     "watching: no",
		},
		"something else in a watch": {
			reason:  "it is no lock",
			answers: []reply{ok(listOf(held)), ok(event("MODIFIED", `{"kind":"Status","apiVersion":"v1","reason":"odd"}`))},
			asked:   []string{list, fmt.Sprintf(watchFrom, 9)},
			seen:    []elector.Record{rec(7, "web-1_u1")},
			err:     "watching: the API server sent a Status",
		},
		"a version that is no number in a watch": {
			reason:  "nothing could be told from it",
			answers: []reply{ok(listOf(held)), ok(event("MODIFIED", strings.Replace(held, `"7"`, `"seven"`, 1)) + event("MODIFIED", lease(10, "", "")))},
			asked:   []string{list, fmt.Sprintf(watchFrom, 9)},
			seen:    []elector.Record{rec(7, "web-1_u1")},
			err:     `resourceVersion "seven"`,
		},
		"a version that is no number in a list": {
			reason:  "nothing could be told from it",
			answers: []reply{ok(strings.Replace(listOf(held), `"9"`, `"nine"`, 1))},
			asked:   []string{list},
			err:     `resourceVersion "nine"`,
		},
		"a version that is no number in an item": {
			reason:  "nothing could be told from it",
			answers: []reply{ok(listOf(strings.Replace(held, `"7"`, `"seven"`, 1)))},
			asked:   []string{list},
			err:     `resourceVersion "seven"`,
		},
		"a busy list": {
			reason:  "the candidate waits as long as it likes, and does not sleep in a request",
			answers: []reply{busy},
			asked:   []string{list},
			err:     "listing: no",
		},
		"a busy watch": {
			reason:  "the candidate waits as long as it likes, and does not sleep in a request",
			answers: []reply{ok(listOf(held)), busy},
			asked:   []string{list, fmt.Sprintf(watchFrom, 9)},
			seen:    []elector.Record{rec(7, "web-1_u1")},
			err:     "watching: no",
		},
		"unauthorized": {
			reason:  "who may not list for want of a token may not get either",
			answers: []reply{failure(http.StatusUnauthorized, "Unauthorized")},
			asked:   []string{list},
			err:     "listing: no",
			denied:  true,
		},
		"no list yet": {
			reason:  "it may be granted now, and a candidate that polls does not see all",
			answers: []reply{forbidden, ok(held)},
			asked:   []string{list, get},
			err:     "listing: no",
			denied:  true,
			first:   true,
		},
		"no list": {
			reason:  "it is polled every retry-period, and after a while watching is tried again",
			answers: []reply{forbidden, ok(held)},
			asked:   append([]string{list}, times(15, get)...),
			seen:    polls(15, rec(7, "web-1_u1")),
			err:     "allow get, list and watch",
			took:    30 * time.Second,
		},
		"no watch": {
			reason:  "the same, after the list",
			answers: []reply{ok(listOf(held)), failure(http.StatusMethodNotAllowed, "MethodNotAllowed"), ok(held)},
			asked:   append([]string{list, fmt.Sprintf(watchFrom, 9)}, times(15, get)...),
			seen:    append([]elector.Record{rec(7, "web-1_u1")}, polls(15, rec(7, "web-1_u1"))...),
			err:     "allow get, list and watch",
			took:    30 * time.Second,
		},
		"no lock to poll": {
			reason:  "what is missing has no version: it went after the last that was seen",
			answers: []reply{forbidden, ok(held), failure(http.StatusNotFound, "NotFound"), ok(lease(10, "", "")), failure(http.StatusNotFound, "NotFound"), forbidden},
			asked:   append([]string{list}, times(5, get)...),
			seen:    []elector.Record{polled(rec(7, "web-1_u1")), {Version: 8, Missed: true}, polled(rec(10, "")), {Version: 11, Missed: true}},
			err:     "reading: no",
			denied:  true,
			took:    8 * time.Second,
		},
		"a busy poll": {
			reason:  "the candidate waits as long as it likes, and does not sleep in a request",
			answers: []reply{forbidden, busy},
			asked:   []string{list, get},
			err:     "reading: no",
		},
		"a version that is no number in a poll": {
			reason:  "nothing could be told from it",
			answers: []reply{forbidden, ok(strings.Replace(held, `"7"`, `"seven"`, 1))},
			asked:   []string{list, get},
			err:     `resourceVersion "seven"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Log(tc.reason)
			synctest.Test(t, func(t *testing.T) {
				l, s := scripted(t, elector.ModeLease, tc.answers...)
				l.refused.Store(!tc.first)
				began := time.Now()
				var seen []elector.Record
				err := l.Observe(t.Context(), func(r elector.Record) { seen = append(seen, r) })
				if text := fmt.Sprint(err); tc.err == "" && err != nil || !strings.Contains(text, tc.err) || errors.Is(err, elector.ErrDenied) != tc.denied {
					t.Errorf("it ended with %v; want %q, denied: %v", err, tc.err, tc.denied)
				}
				if diff := cmp.Diff(tc.asked, s.asked); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tc.seen, seen, withoutObject); diff != "" {
					t.Errorf("seen (-want +got):\n%s", diff)
				}
				for i, asked := range s.asked {
					want := readWithin
					if strings.Contains(asked, "watch=true") {
						want = watchWithin
					}
					if s.within[i] != want {
						t.Errorf("%s might take %v, want %v", asked, s.within[i], want)
					}
				}
				if took := time.Since(began); took != tc.took {
					t.Errorf("it took %v, want %v", took, tc.took)
				}
			})
		})
	}
}

// TestObserveGranted holds that one refusal, long after the last, is none that makes it poll.
func TestObserveGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forbidden, held := failure(http.StatusForbidden, "Forbidden"), lease(7, "", `"holderIdentity":"web-1_u1"`)
		ok := reply{code: http.StatusOK, body: held}
		l, s := scripted(t, elector.ModeLease, forbidden, forbidden, forbidden, ok, reply{code: http.StatusOK, body: listOf(held)}, reply{code: http.StatusOK}, forbidden, ok, forbidden, ok)
		for i, denied := range []bool{true, true, false, true, false} {
			err := l.Observe(t.Context(), func(r elector.Record) {
				if r.Missed != (i == 4) {
					t.Errorf("at try %d it polls, or does not: %v", i, r.Missed)
				}
			})
			if errors.Is(err, elector.ErrDenied) != denied {
				t.Errorf("try %d ended with %v", i, err)
			}
		}
		if n := len(s.asked); n != 2+2+2+2+1+15 {
			t.Errorf("it asked %d times: %v", n, s.asked)
		}
	})
}

// TestObserveEnds holds that observing ends at once with its context, wherever it is, and says no more than that.
func TestObserveEnds(t *testing.T) {
	held := lease(7, "", `"holderIdentity":"web-1_u1"`)
	ok := func(body string) reply { return reply{code: http.StatusOK, body: body} }
	for name, answers := range map[string][]reply{
		"in a list":  {{code: http.StatusOK, hangs: true}},
		"in a watch": {ok(listOf(held)), {code: http.StatusOK, hangs: true}},
		"in a poll":  {failure(http.StatusForbidden, "Forbidden"), {code: http.StatusOK, hangs: true}},
		"in between": {failure(http.StatusForbidden, "Forbidden"), ok(held)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, _ := scripted(t, elector.ModeLease, answers...)
				l.refused.Store(true)
				ctx, cancel := context.WithCancel(t.Context())
				began := time.Now()
				time.AfterFunc(3*time.Second, cancel)
				if err := l.Observe(ctx, func(elector.Record) {}); !errors.Is(err, context.Canceled) || errors.Is(err, elector.ErrDenied) {
					t.Errorf("it ended with %v", err)
				}
				if took := time.Since(began); took != 3*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// TestObserveConfigMap reads no more of a ConfigMap than its metadata.
func TestObserveConfigMap(t *testing.T) {
	for name, tc := range map[string]struct {
		reason, metadata string
		want             elector.Record
	}{
		"a Pod's":        {"its owner leads", ownedBy0, elector.Record{Holder: "web-0_u0"}},
		"two Pods'":      {"the first one leads", strings.Replace(ownedBy0, "}]", `},{"apiVersion":"v1","kind":"Pod","name":"web-1","uid":"u1"}]`, 1), elector.Record{Holder: "web-0_u0"}},
		"another kind's": {"only Pods lead", strings.Replace(ownedBy0, "Pod", "Node", 1), elector.Record{Foreign: "the ConfigMap default/web is not a lock: no Pod owns it and it has no label app.kubernetes.io/managed-by=elector"}},
		"another API's":  {"only Pods lead", strings.Replace(ownedBy0, `"v1"`, `"example.com/v1"`, 1), elector.Record{Foreign: "the ConfigMap default/web is not a lock: no Pod owns it and it has no label app.kubernetes.io/managed-by=elector"}},
		"nobody's":       {"elector made it", `,"labels":{"app.kubernetes.io/managed-by":"elector"}`, elector.Record{}},
		"Helm's":         {"it is somebody's configuration", `,"labels":{"app.kubernetes.io/managed-by":"Helm"}`, elector.Record{Foreign: "the ConfigMap default/web is not a lock: no Pod owns it and it has no label app.kubernetes.io/managed-by=elector"}},
		"deleted, not gone": {
			"nobody leads by it any more, and nobody can take it", ownedBy0 + `,"deletionTimestamp":"2026-11-20T12:00:00Z","finalizers":["a","b"]`,
			elector.Record{Foreign: `the ConfigMap default/web is being deleted, and is waited for by the finalizers ["a" "b"]`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, s := scripted(t, elector.ModeLeaderForLife,
				reply{code: http.StatusOK, body: listOf(configMap(7, tc.metadata))}, reply{code: http.StatusOK, body: event("DELETED", configMap(12, tc.metadata))})
			var seen []elector.Record
			if err := l.Observe(t.Context(), func(r elector.Record) { seen = append(seen, r) }); err != nil {
				t.Fatal(err)
			}
			tc.want.Version, tc.want.Exists = 7, true
			if diff := cmp.Diff([]elector.Record{tc.want, {Version: 12}}, seen, withoutObject); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if want := "GET " + configMaps + "?fieldSelector=metadata.name=web"; s.asked[0] != want {
				t.Errorf("asked %s, want %s", s.asked[0], want)
			}
		})
	}
	l, _ := scripted(t, elector.ModeLeaderForLife,
		reply{code: http.StatusOK, body: strings.NewReplacer("LeaseList", "ConfigMapList", "coordination.k8s.io/", "").Replace(listOf())}, reply{code: http.StatusOK})
	var seen []elector.Record
	if err := l.Observe(t.Context(), func(r elector.Record) { seen = append(seen, r) }); err != nil || len(seen) != 1 || seen[0].Exists || seen[0].Version != 9 {
		t.Errorf("without a ConfigMap: %v, %v", seen, err)
	}
}

// TestStreamError tells how a watch ends by itself, or with its connection, from what has gone wrong: only the latter makes the candidate wait.
func TestStreamError(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err  error
		ends bool
	}{
		"the end":            {io.EOF, true},
		"in mid event":       {io.ErrUnexpectedEOF, true},
		"out of time":        {context.DeadlineExceeded, true},
		"a read's time":      {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, true},
		"closed by us":       {&net.OpError{Op: "read", Err: net.ErrClosed}, true},
		"reset":              {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, true},
		"sent elsewhere":     {errors.New(`http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug=""`), true},
		"no answer to pings": {errors.New("http2: client connection lost"), false},
		"no JSON":            {new(json.SyntaxError), false},
	} {
		if err := streamError(tc.err); (err == nil) != tc.ends || err != nil && !errors.Is(err, tc.err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
