package inject

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// expand is what the kubelet does with each word of a pod's command
// (k8s.io/kubernetes/third_party/forked/golang/expansion).
func expand(s string, vars map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '$' || i+1 == len(s):
			b.WriteByte(s[i])
		case s[i+1] == '$':
			b.WriteByte('$')
			i++
		case s[i+1] == '(' && strings.Contains(s[i:], ")"):
			name := s[i+2 : i+strings.Index(s[i:], ")")]
			if v, ok := vars[name]; ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += len(name) + 2
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// FuzzLiterally holds that the kubelet makes of an image's words what they were.
func FuzzLiterally(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "$$$", "$(A)", "$$(A)", "$(", "$(A", "$x", "a$b$(A)$(B)$", "$é", "$\xff", "$(A)$$(A)$$$(A)", "${A}", "$($(A))"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := expand(literally([]string{s})[0], map[string]string{"A": "expanded", "": "nothing"}); got != s {
			t.Errorf("of the image's word %q the kubelet makes %q", s, got)
		}
	})
}

func TestImageWords(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		words, args, want []string
		ok                bool
	}{
		"no args":         {[]string{"a", "b"}, nil, []string{"a", "b"}, true},
		"its args":        {[]string{"a", "b"}, []string{"b"}, []string{"a"}, true},
		"args alone":      {[]string{"b"}, []string{"b"}, nil, false},
		"others":          {[]string{"a", "b"}, []string{"c"}, nil, false},
		"more of them":    {[]string{"a"}, []string{"b", "a"}, nil, false},
		"twice":           {[]string{"a", "b", "b"}, []string{"b"}, []string{"a", "b"}, true},
		"nothing":         {nil, nil, nil, false},
		"an empty string": {[]string{"a", ""}, []string{""}, []string{"a"}, true},
	}
	for name, test := range tests {
		if got, ok := imageWords(test.words, test.args); ok != test.ok || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, ok, test.want)
		}
	}
}

func TestAfterWrapper(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		command, want []string
		ok            bool
	}{
		"its own":        {[]string{wrapper, "run", "--stop-grace=2s", "--", "a", "--", "b"}, []string{"a", "--", "b"}, true},
		"nothing":        {[]string{wrapper, "run", "--"}, nil, true},
		"no end":         {[]string{wrapper, "run", "a"}, nil, false},
		"a probe":        {[]string{wrapper, "probe", "--", "a"}, nil, false},
		"after another":  {[]string{"/vault/vault-env", wrapper, "run", "--", "a"}, nil, false},
		"none":           {nil, nil, false},
		"wrapper alone":  {[]string{wrapper}, nil, false},
		"its name alone": {[]string{"gate", "run", "--", "a"}, nil, false},
	}
	for name, test := range tests {
		got, ok := afterWrapper(test.command, "run")
		if ok != test.ok || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, ok, test.want)
		}
	}
	for reason, c := range map[string]corev1.Container{
		"as it was made":          {Command: []string{wrapper, "run", "--", "a"}},
		"a mutator stands before": {Command: []string{"/vault/vault-env", wrapper, "run", "--", "a"}},
		"with the rest as args":   {Command: []string{"/vault/vault-env"}, Args: []string{wrapper, "run", "--", "a"}},
	} {
		if !runsWrapper(&c) {
			t.Errorf("%s: it would be wrapped twice", reason)
		}
	}
	if runsWrapper(&corev1.Container{Command: []string{"a"}, Args: []string{"b"}}) {
		t.Error("it does not run the wrapper")
	}
}
