// Package manifest changes objects in files as people write them for kubectl:
// YAML and JSON, several documents in one file, lists of objects in one document.
//
// A document that nobody changes stays as it is, byte for byte. In one that is
// changed, fields that nobody changed stay, known or not, and in YAML their order
// and comments, too; blank lines go. Where that would say something else than what was
// decided, as it may with anchors and aliases, the document is written anew, in the
// order of its keys and without comments.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	evanphx "github.com/evanphx/json-patch/v5"
	"gomodules.xyz/jsonpatch/v2"
)

// Object is one object of a file.
type Object struct {
	APIVersion string
	Kind       string
	Namespace  string
	Name       string
	// Raw is the object as JSON, with all its fields.
	Raw []byte
	// Where is what people look for: file, document and name.
	Where string
}

// Change says what becomes of an object: the operations that change it, paths being
// the object's own. None leaves it as it is. ErrLeaveOut takes it out of the file. Any
// other error refuses the file.
type Change func(Object) ([]jsonpatch.Operation, error)

// ErrLeaveOut is what a Change returns for an object that is to go.
var ErrLeaveOut = errors.New("leave the object out")

// Each returns the file's text with every object changed. name is what people call
// the file. The error has one line for each object that was refused.
func Each(name string, data []byte, change Change) (text []byte, err error) {
	var refused []error
	var b bytes.Buffer
	n := 0 // documents that have content
	for _, part := range split(data) {
		docs, err := part.read()
		if err != nil {
			n++
			refused = append(refused, fmt.Errorf("%s, document %d: %w", name, n, err))
		}
		for _, doc := range docs {
			if len(doc.json) > 0 {
				n++
			}
			text, err := doc.change(fmt.Sprintf("%s, document %d", name, n), change)
			if err != nil {
				refused = append(refused, err)
			}
			b.Write(text)
		}
	}
	if err := errors.Join(refused...); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// document is one of a file. Its text is head, body and tail one after the other; only
// the body has content.
type document struct {
	head, body, tail []byte
	// json is the body's content; empty if it has none.
	json []byte
	// yaml tells how the body is written.
	yaml bool
}

// change returns the document's new text.
func (d document) change(where string, change Change) ([]byte, error) {
	all := bytes.Join([][]byte{d.head, d.body, d.tail}, nil)
	if len(d.json) == 0 {
		return all, nil
	}
	ops, err := header{}.operations(where, "", d.json, change)
	switch {
	case errors.Is(err, ErrLeaveOut):
		return nil, nil
	case err != nil:
		return nil, err
	case len(ops) == 0:
		return all, nil
	}
	want, err := apply(d.json, ops)
	if err != nil {
		return nil, fmt.Errorf("%s: changing it: %w", where, err)
	}
	var body []byte
	if d.yaml {
		body, err = rewriteYAML(d.body, ops, want)
	} else {
		body, err = rewriteJSON(d.body, want)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: writing it: %w", where, err)
	}
	return bytes.Join([][]byte{d.head, body, d.tail}, nil), nil
}

// maxDepth is how deep lists may be in lists. One is usual.
const maxDepth = 8

// header is as much of an object as tells what it is.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// operations asks for the changes of an object, or of those in a list. Of an object
// in a list of its kind, the list's header says what it is.
func (in header) operations(where, path string, raw []byte, change Change) ([]jsonpatch.Operation, error) {
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		// Something else than an object, or one whose name is a number.
		return nil, fmt.Errorf("%s: it is no object of Kubernetes: %.200s", where, err.Error())
	}
	if h.Kind == "" {
		h.APIVersion, h.Kind = in.APIVersion, strings.TrimSuffix(in.Kind, "List")
	}
	if h.Items != nil && strings.HasSuffix(h.Kind, "List") {
		return h.each(where, path, change)
	}
	where += ", " + h.called()
	ops, err := change(Object{APIVersion: h.APIVersion, Kind: h.Kind, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name, Raw: raw, Where: where})
	if err != nil && !errors.Is(err, ErrLeaveOut) {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	for i := range ops {
		ops[i].Path = path + ops[i].Path
	}
	return ops, err
}

// each asks for the changes in a list. Those of the last item come first, because one
// that is left out moves those behind it.
func (in header) each(where, path string, change Change) ([]jsonpatch.Operation, error) {
	if strings.Count(path, "/items/") == maxDepth {
		return nil, fmt.Errorf("%s: it has lists in lists, more than %d deep", where, maxDepth)
	}
	var all []jsonpatch.Operation
	var refused []error
	for i, item := range in.Items {
		at := path + "/items/" + strconv.Itoa(i)
		ops, err := in.operations(fmt.Sprintf("%s, item %d", where, i+1), at, item, change)
		switch {
		case errors.Is(err, ErrLeaveOut):
			ops = []jsonpatch.Operation{jsonpatch.NewOperation("remove", at, nil)}
		case err != nil:
			refused = append(refused, err)
		}
		all = append(ops, all...)
	}
	return all, errors.Join(refused...)
}

// called is what people call the object.
func (in header) called() string {
	switch name := in.Metadata.Name; {
	case name == "":
		return in.Kind
	case in.Metadata.Namespace == "":
		return in.Kind + " " + name
	default:
		return in.Kind + " " + in.Metadata.Namespace + "/" + name
	}
}

// apply returns a JSON object with the operations applied.
func apply(raw []byte, ops []jsonpatch.Operation) ([]byte, error) {
	text, err := json.Marshal(ops)
	if err != nil {
		return nil, err
	}
	patch, err := evanphx.DecodePatch(text)
	if err != nil {
		return nil, err
	}
	return patch.Apply(raw)
}
