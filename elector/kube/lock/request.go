package lock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

// request is one of the API server.
type request struct {
	method string
	name   string // of the object; empty for all of the kind
	query  url.Values
	body   any // sent as JSON; nil for none
}

// api is what the API server has of one kind in one namespace.
type api struct {
	client  *http.Client
	objects *url.URL
}

func newAPI(server Server, apiVersion, namespace, resource string, onRequest func(verb, result string)) (api, error) {
	client, err := httpClient(server, onRequest)
	if err != nil {
		return api{}, err
	}
	root := "apis"
	if !strings.Contains(apiVersion, "/") {
		root = "api" // the first group has no name
	}
	return api{client, server.URL.JoinPath(root, apiVersion, "namespaces", namespace, resource)}, nil
}

// ask sends a request and returns the whole answer.
func (a api) ask(ctx context.Context, r request) ([]byte, error) {
	body, err := a.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return text, nil
}

// open sends a request and returns the answer, to be read and closed.
func (a api) open(ctx context.Context, r request) (io.ReadCloser, error) {
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encoding a request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	at := *a.objects
	if r.name != "" {
		at = *at.JoinPath(r.name)
	}
	at.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, at.String(), body)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	switch {
	case r.method == http.MethodPatch:
		req.Header.Set("Content-Type", "application/merge-patch+json")
	case r.body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 == 2 {
		return res.Body, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxStatus))
	return nil, statusOf(res.StatusCode, text)
}

// maxStatus is many times what a Status needs, in bytes.
const maxStatus = 64 << 10

// statusError is a refusal by the API server, or by a proxy before it.
type statusError struct {
	code    int
	message string
}

func (e *statusError) Error() string { return e.message }

// statusOf makes an error of an answer, a Status of the API if all is well. Code is
// HTTP's, 0 for an answer within a watch.
func statusOf(code int, text []byte) error {
	var status struct {
		Kind, Message, Reason string
		Code                  int
	}
	if json.Unmarshal(text, &status) != nil || status.Kind != "Status" {
		return &statusError{code, fmt.Sprintf("the server answered %d: %.200q", code, text)}
	}
	if code == 0 {
		code = status.Code
	}
	if status.Message == "" {
		status.Message = fmt.Sprintf("the server answered %d %s", code, status.Reason)
	}
	return &statusError{code, shown(status.Message)}
}

// shown is a message as it may stand in a log: in one line, which does not go on for
// ever.
func shown(message string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, fmt.Sprintf("%.1024s", message))
}

// codeOf returns the HTTP status of a refusal, 0 if err is something else.
func codeOf(err error) int {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.code
	}
	return 0
}
