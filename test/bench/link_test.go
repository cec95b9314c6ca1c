package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
)

func TestVerb(t *testing.T) {
	const leases = "/apis/coordination.k8s.io/v1/namespaces/bench/leases"
	for name, tc := range map[string]struct{ method, target, want string }{
		"get":         {http.MethodGet, leases + "/lock", "get"},
		"list":        {http.MethodGet, leases + "?fieldSelector=metadata.name%3Dlock", "list"},
		"watch":       {http.MethodGet, leases + "?watch=true", "watch"},
		"watch by 1":  {http.MethodGet, leases + "?watch=1", "watch"},
		"no watch":    {http.MethodGet, leases + "?watch=false", "list"},
		"create":      {http.MethodPost, leases, "create"},
		"update":      {http.MethodPut, leases + "/lock", "update"},
		"patch":       {http.MethodPatch, leases + "/lock", "patch"},
		"delete":      {http.MethodDelete, leases + "/lock", "delete"},
		"lock leases": {http.MethodPut, leases + "/leases", "update"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := verb(httptest.NewRequest(tc.method, tc.target, nil)); got != tc.want {
				t.Errorf("%s %s is a %s, want %s", tc.method, tc.target, got, tc.want)
			}
		})
	}
}

// TestSever cuts a link with a request under way: it fails, none follows, and what was sent before is still counted.
func TestSever(t *testing.T) {
	arrived, hang := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			close(arrived)
			<-hang
		}
	}))
	defer server.Close()
	defer close(hang)
	var l link
	client, err := rest.HTTPClientFor(l.config(&rest.Config{Host: server.URL}))
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) error {
		response, err := client.Get(server.URL + path)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	if err := get("/"); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() { failed <- get("/hang") }()
	<-arrived
	l.sever()
	if err := <-failed; err == nil {
		t.Error("a request under way got an answer over a severed link")
	}
	if err := get("/"); !errors.Is(err, errCut) {
		t.Errorf("a request over a severed link: %v, want %v", err, errCut)
	}
	if diff := cmp.Diff(counts{"get": 2}, l.sent()); diff != "" {
		t.Errorf("requests sent (-want +got):\n%s", diff)
	}
}

func TestCounts(t *testing.T) {
	before := counts{"get": 2, "watch": 1}
	after := counts{"get": 5, "watch": 1, "update": 1}
	since := after.minus(before)
	if diff := cmp.Diff(counts{"get": 3, "update": 1}, since); diff != "" {
		t.Errorf("counted since (-want +got):\n%s", diff)
	}
	since.plus(before)
	if diff := cmp.Diff(after, since); diff != "" {
		t.Errorf("with what was before (-want +got):\n%s", diff)
	}
}
