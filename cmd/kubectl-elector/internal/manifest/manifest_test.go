package manifest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gomodules.xyz/jsonpatch/v2"
)

// texts are files as people write them, and worse.
var texts = map[string]string{
	"nothing":           "",
	"comment":           "# nothing\n",
	"no line end":       "kind: A",
	"separators":        "---\n---\n# c\n---\nkind: A\n---   # of B\nkind: B\n...\n---\n",
	"on the line":       "--- {kind: A}\n--- # c\nkind: B\n",
	"line ends":         "kind: A\r\n---\r\nkind: B\r\n",
	"directive":         "%YAML 1.1\n---\nkind: A\n",
	"in a text":         "kind: A\ntext: |\n  ---\n  x\n",
	"flow":              "{kind: A, x: [1,   2]}\n---\n{kind: B}\n",
	"JSON":              "{\"kind\":\n\"A\"}  {\"kind\":\"B\"}\n\n{\"kind\":\"C\"}",
	"JSON after YAML":   "kind: A\n---\n{\"kind\": \"B\"}\n",
	"strange spellings": "kind:   'A'\nn: 0x1f\no: 0o17\nf: 1.10\nyes: no\nempty: \nnothing: ~\n? k\n: v\n",
	"list":              "kind: List\nitems:\n- kind: A\n- kind: List\n  items: [{kind: B}]\n",
	"null":              "null\n---\nkind: A\n",
	"byte order mark":   "\ufeffkind: A\n",
}

// TestUntouched holds that what nobody changes stays as it is.
func TestUntouched(t *testing.T) {
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			kinds := 0
			got, err := Each("f", []byte(text), func(o Object) ([]jsonpatch.Operation, error) {
				if o.Kind != "" {
					kinds++
				}
				return nil, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(text, string(got)); diff != "" {
				t.Errorf("it was changed:\n%s", diff)
			}
			seen := 0
			for _, kind := range []string{"A", "B", "C"} {
				for _, as := range []string{"kind: ", `kind":"`, `kind": "`, "kind\":\n\"", "kind:   '"} {
					seen += strings.Count(text, as+kind)
				}
			}
			if kinds != seen {
				t.Errorf("%d objects were found, there are %d", kinds, seen)
			}
		})
	}
}

// label is a change as inject makes them.
func label(o Object) ([]jsonpatch.Operation, error) {
	switch o.Kind {
	case "Out":
		return nil, ErrLeaveOut
	case "Bad":
		return nil, errors.New("it is bad")
	case "Pod":
		return []jsonpatch.Operation{
			jsonpatch.NewOperation("add", "/metadata/labels", map[string]any{"a/b": "true", "yes": "on"}),
			jsonpatch.NewOperation("add", "/spec/list/1", map[string]any{"name": "new", "port": int64(80)}),
			jsonpatch.NewOperation("replace", "/spec/role", "standby"),
		}, nil
	}
	return nil, nil
}

func TestChanges(t *testing.T) {
	tests := map[string]struct{ reason, text, want string }{
		"comments and order": {
			"people read the difference",
			"# first\nkind: Pod # a pod\nmetadata:\n  # its name\n  name: \"web\"\nspec:\n  role: x # which?\n  list:\n  - name: one # 1\n  - {name: two}\n  other: yes\n# last\n",
			"# first\nkind: Pod # a pod\nmetadata:\n  # its name\n  name: \"web\"\n  labels:\n    a/b: \"true\"\n    \"yes\": \"on\"\nspec:\n  role: standby # which?\n  list:\n  - name: one # 1\n  - name: new\n    port: 80\n  - {name: two}\n  other: yes\n# last\n",
		},
		"indented": {
			"four spaces, and lists that stand apart from their name",
			"kind: Pod\nmetadata:\n    name: web\nspec:\n    role: x\n    list:\n        - name: one\n",
			"kind: Pod\nmetadata:\n    name: web\n    labels:\n        a/b: \"true\"\n        \"yes\": \"on\"\nspec:\n    role: standby\n    list:\n        - name: one\n        - name: new\n          port: 80\n",
		},
		"aliases": {
			"what is changed in one place must not change in another",
			"kind: Pod\nmetadata: &m {name: web}\nspec:\n  role: &r x\n  list: [{name: *r}]\nother: *m # c\n",
			"kind: Pod\nmetadata:\n  labels:\n    a/b: \"true\"\n    \"yes\": \"on\"\n  name: web\nother:\n  name: web\nspec:\n  list:\n  - name: x\n  - name: new\n    port: 80\n  role: standby\n",
		},
		"shared": {
			"what is changed in one place must not change in another",
			"kind: List\nitems:\n- kind: Pod\n  metadata: &m # shared\n    name: web\n  spec: {role: x, list: [1]}\n- kind: A\n  metadata: *m\n",
			"items:\n- kind: Pod\n  metadata:\n    labels:\n      a/b: \"true\"\n      \"yes\": \"on\"\n    name: web\n  spec:\n    list:\n    - 1\n    - name: new\n      port: 80\n    role: standby\n- kind: A\n  metadata:\n    name: web\nkind: List\n",
		},
		"null": {
			"what is written as nothing is nothing",
			"kind: Pod\nmetadata:\n  labels:\nspec: {role: , list: [1]}\n",
			"kind: Pod\nmetadata:\n  labels:\n    a/b: \"true\"\n    \"yes\": \"on\"\nspec: {role: standby, list: [1, {name: new, port: 80}]}\n",
		},
		"JSON": {
			"in lines, and with big numbers as they are",
			"{\n    \"kind\": \"Pod\",\n    \"metadata\": {},\n    \"spec\": {\"role\": \"x\", \"list\": [12345678901234567890], \"f\": 1.10}\n}\n",
			"{\n    \"kind\": \"Pod\",\n    \"metadata\": {\n        \"labels\": {\n            \"a/b\": \"true\",\n            \"yes\": \"on\"\n        }\n    },\n    \"spec\": {\n        \"role\": \"standby\",\n        \"list\": [\n            12345678901234567890,\n            {\n                \"name\": \"new\",\n                \"port\": 80\n            }\n        ],\n        \"f\": 1.10\n    }\n}\n",
		},
		"between others": {
			"only the one is written anew",
			"kind:  A\n--- # pod\nkind: Pod\nmetadata: {}\nspec: {role: x, list: [1]}\n---\n{\"kind\":  \"B\"}\n",
			"kind:  A\n--- # pod\nkind: Pod\nmetadata: {labels: {a/b: \"true\", \"yes\": \"on\"}}\nspec: {role: standby, list: [1, {name: new, port: 80}]}\n---\n{\"kind\":  \"B\"}\n",
		},
		"left out": {
			"documents and items",
			"kind: Out\n---\nkind: A\n---\nkind: List\nitems:\n- kind: Out\n- kind: A # kept\n- kind: Out\n",
			"---\nkind: A\n---\nkind: List\nitems:\n- kind: A # kept\n",
		},
		"list of a kind": {
			"the API server writes the kind of its items once",
			"kind: PodList\nitems:\n- metadata: {}\n  spec: {role: x, list: [1]}\n",
			"kind: PodList\nitems:\n- metadata: {labels: {a/b: \"true\", \"yes\": \"on\"}}\n  spec: {role: standby, list: [1, {name: new, port: 80}]}\n",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Each("f", []byte(tc.text), label)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"where": {
			"# c\n---\nkind: A\n---\nkind: Bad\nmetadata: {name: x, namespace: shop}\n---\nkind: List\nitems:\n- kind: A\n- kind: Bad\n  metadata: {name: z}\n- kind: Bad\n",
			"f, document 2, Bad shop/x: it is bad\nf, document 3, item 2, Bad z: it is bad\nf, document 3, item 3, Bad: it is bad",
		},
		"no YAML":     {"kind: [\n", "f, document 1: it is no YAML: yaml: line 1: did not find expected node content"},
		"a template":  {"kind: A\n---\nkind: {{ .Kind }}\n", `f, document 2: it is no YAML: yaml: invalid map key: map[interface {}]interface {}{".Kind":interface {}(nil)}`},
		"twice":       {"kind: A\nkind: B\n", "f, document 1: it is no YAML: yaml: unmarshal errors: line 2: key \"kind\" already set in map"},
		"not the end": {"kind: A\n...\nkind: B\n", `f, document 1: something follows its end "...", begin another document with "---"`},
		"no object":   {"- kind: A\n", "f, document 1: it is no object of Kubernetes: json: cannot unmarshal array into Go value of type manifest.header"},
		"lists for ever": {
			strings.Repeat(`{"kind":"List","items":[`, 20) + strings.Repeat("]}", 20),
			"f, document 1" + strings.Repeat(", item 1", 8) + ": it has lists in lists, more than 8 deep",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := Each("f", []byte(tc.text), label)
			if err == nil || out != nil {
				t.Fatalf("not refused: %s", out)
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAliasBomb is a kilobyte that would be gigabytes.
func TestAliasBomb(t *testing.T) {
	var text strings.Builder
	text.WriteString("a: &a [" + strings.Repeat("x, ", 9) + "x]\n")
	for name := 'b'; name < 'k'; name++ {
		fmt.Fprintf(&text, "%c: &%c [%s]\n", name, name, strings.Repeat(fmt.Sprintf("*%c, ", name-1), 9))
	}
	if _, err := Each("f", []byte(text.String()+"kind: Pod\n"), label); err == nil {
		t.Error("it is taken")
	}
}

// FuzzEach: a file is refused, or stays as it is if nobody changes it.
func FuzzEach(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := Each("f", text, func(Object) ([]jsonpatch.Operation, error) { return nil, nil })
		if err == nil && string(got) != string(text) {
			t.Errorf("%q became %q", text, got)
		}
		got, err = Each("f", text, label)
		if err != nil {
			return
		}
		if _, err := Each("f", got, func(Object) ([]jsonpatch.Operation, error) { return nil, nil }); err != nil {
			t.Errorf("%q became %q, which is refused: %v", text, got, err)
		}
	})
}
