package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"
	"sigs.k8s.io/yaml"
)

// rewriteJSON writes want with the indentation of what was there.
func rewriteJSON(was, want []byte) ([]byte, error) {
	var b bytes.Buffer
	_, second, lines := bytes.Cut(was, []byte("\n"))
	if !lines {
		return want, nil
	}
	indent := second[:len(second)-len(bytes.TrimLeft(second, " \t"))]
	if err := json.Indent(&b, want, "", string(indent)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// rewriteYAML changes the text by the operations, or writes want if that makes
// something else, as when what is changed in one place is meant in another, too.
func rewriteYAML(was []byte, ops []jsonpatch.Operation, want []byte) ([]byte, error) {
	if text, err := edit(was, ops); err == nil {
		if got, err := yaml.YAMLToJSONStrict(text); err == nil && sameJSON(got, want) {
			return text, nil
		}
	}
	text, err := yaml.JSONToYAML(want)
	if err != nil {
		return nil, err
	}
	return text, nil
}

func sameJSON(a, b []byte) bool {
	read := func(raw []byte) (value any, err error) {
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber()
		return value, decoder.Decode(&value)
	}
	x, errX := read(a)
	y, errY := read(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// edit changes YAML as somebody would with an editor.
func edit(was []byte, ops []jsonpatch.Operation) ([]byte, error) {
	var doc yamlv3.Node
	if err := yamlv3.Unmarshal(was, &doc); err != nil {
		return nil, err
	}
	style := styleOf(&doc)
	for _, op := range ops {
		if err := do(doc.Content[0], op); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	encoder := yamlv3.NewEncoder(&b)
	encoder.SetIndent(style.indent)
	if style.compact {
		encoder.CompactSeqIndent()
	}
	if err := errors.Join(encoder.Encode(&doc), encoder.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// style is how the lines begin.
type style struct {
	indent  int
	compact bool // lists are as far to the left as their names
}

// styleOf looks at the first places that tell.
func styleOf(doc *yamlv3.Node) style {
	s := style{indent: 2, compact: true}
	indented, listed := false, false
	var walk func(n *yamlv3.Node)
	walk = func(n *yamlv3.Node) {
		for i, child := range n.Content {
			if n.Kind == yamlv3.MappingNode && i%2 == 1 && child.Style&yamlv3.FlowStyle == 0 && len(child.Content) > 0 {
				in := child.Column - n.Content[i-1].Column
				switch {
				case child.Kind == yamlv3.MappingNode && !indented && in >= 2 && in <= 9:
					s.indent, indented = in, true
				case child.Kind == yamlv3.SequenceNode && !listed:
					s.compact, listed = in == 0, true
				}
			}
			walk(child)
		}
	}
	walk(doc)
	return s
}

var pointer = strings.NewReplacer("~1", "/", "~0", "~")

// do changes what is below n.
func do(n *yamlv3.Node, op jsonpatch.Operation) error {
	path := strings.Split(op.Path, "/")[1:]
	for _, name := range path[:len(path)-1] {
		_, value := find(n, pointer.Replace(name))
		if value == nil {
			return fmt.Errorf("there is no %s", op.Path)
		}
		n = value
	}
	name := pointer.Replace(path[len(path)-1])
	i, there := find(n, name)
	switch {
	case op.Operation == "remove" && there != nil:
		if n.Kind == yamlv3.MappingNode {
			n.Content = slices.Delete(n.Content, i-1, i+1)
		} else {
			n.Content = slices.Delete(n.Content, i, i+1)
		}
		return nil
	case op.Operation == "remove":
		return fmt.Errorf("there is no %s", op.Path)
	}
	value, err := node(op.Value)
	if err != nil {
		return err
	}
	switch {
	case n.Kind == yamlv3.MappingNode && there != nil, op.Operation == "replace" && there != nil:
		value.HeadComment, value.LineComment, value.FootComment = there.HeadComment, there.LineComment, there.FootComment
		n.Content[i] = value
	case n.Kind == yamlv3.MappingNode:
		key, err := node(name)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, key, value)
	case n.Kind == yamlv3.SequenceNode:
		if i, err = strconv.Atoi(name); err != nil || i < 0 || i > len(n.Content) {
			return fmt.Errorf("there is no place %s", op.Path)
		}
		n.Content = slices.Insert(n.Content, i, value)
	default:
		return fmt.Errorf("there is nothing to change at %s", op.Path)
	}
	return nil
}

// find returns a field of an object, or an element of a list, and its place in
// n.Content; nil if there is none.
func find(n *yamlv3.Node, name string) (int, *yamlv3.Node) {
	if n.Kind == yamlv3.SequenceNode {
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.Content) {
			return i, n.Content[i]
		}
	}
	if n.Kind == yamlv3.MappingNode {
		for i := 1; i < len(n.Content); i += 2 {
			if n.Content[i-1].Value == name {
				return i, n.Content[i]
			}
		}
	}
	return 0, nil
}

// node is a value as Kubernetes' own tools write it.
func node(value any) (*yamlv3.Node, error) {
	text, err := yaml.Marshal(value)
	if err != nil {
		return nil, err
	}
	var doc yamlv3.Node
	if err := yamlv3.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	return doc.Content[0], nil
}
