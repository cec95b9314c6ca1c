package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// part is what stands between two separators of a file, with the first of them.
type part struct{ separator, text []byte }

// split cuts a file at lines that begin with three dashes, which in YAML are nothing
// else but separators, wherever they stand.
func split(data []byte) []part {
	parts := []part{{}}
	for line := range bytes.Lines(data) {
		now := &parts[len(parts)-1]
		rest, ok := bytes.CutPrefix(line, []byte("---"))
		if !ok || len(rest) > 0 && !bytes.ContainsAny(rest[:1], " \t\r\n") {
			now.text = append(now.text, line...)
			continue
		}
		parts = append(parts, part{})
		now = &parts[len(parts)-1]
		if isBlank(rest) {
			now.separator = line
		} else { // content, as in "--- {kind: Pod}"
			now.separator, now.text = line[:3:3], append(now.text, rest...)
		}
	}
	return parts
}

// isBlank reports whether there are only comments, directives and white space.
func isBlank(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// read returns the part's documents: several only of JSON, which needs no separators.
func (p part) read() ([]document, error) {
	if isBlank(p.text) {
		return []document{{head: p.separator, tail: p.text}}, nil
	}
	if docs, ok := p.readJSON(); ok {
		return docs, nil
	}
	decoder := yamlv3.NewDecoder(bytes.NewReader(p.text))
	var first, second yamlv3.Node
	if err := decoder.Decode(&first); err != nil {
		return nil, fmt.Errorf("it is no YAML: %.200s", oneLine(err))
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New(`something follows its end "...", begin another document with "---"`)
	}
	content, err := yaml.YAMLToJSONStrict(p.text)
	if err != nil {
		return nil, fmt.Errorf("it is no YAML: %.200s", oneLine(err))
	}
	if string(content) == "null" {
		content = nil
	}
	return []document{{head: p.separator, body: p.text, json: content, yaml: true}}, nil
}

// oneLine is what the error says, without its layout.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// readJSON reads JSON values one after the other. It is not ok if there is something
// else: what begins with a brace may be YAML.
func (p part) readJSON() (docs []document, ok bool) {
	decoder := json.NewDecoder(bytes.NewReader(p.text))
	end := 0
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || raw[0] != '{' {
			return nil, false
		}
		next := int(decoder.InputOffset())
		begin := next - len(raw)
		docs = append(docs, document{head: p.text[end:begin], body: p.text[begin:next], json: raw})
		end = next
	}
	docs[0].head = append(slices.Clip(p.separator), docs[0].head...)
	docs[len(docs)-1].tail = p.text[end:]
	return docs, true
}
