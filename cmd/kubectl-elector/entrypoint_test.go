package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestCommandLine puts words into an annotation that end quotes and lines, and reads them again.
func TestCommandLine(t *testing.T) {
	tests := map[string][]string{
		"plain":     {"/docker-entrypoint.sh", "redis-server"},
		"shell":     {"/bin/sh", "-c", `exec app --name "it's <me> & you" $X`},
		"empty":     {"", "a"},
		"lines":     {"a\nelector.io/mode: leader-for-life\n", "\r\t"},
		"controls":  {"\x1b[31m", "\x7f\u009b", "\u202e\ufeff", "\U000e0041"},
		"backslash": {`\`, `\u0041`, "'", `''`},
		"others":    {"grüße", "日本", "🙂"},
	}
	for name, command := range tests {
		t.Run(name, func(t *testing.T) {
			line, err := commandLine("app", command)
			if err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(line, "\n\r\x1b\x7f\u009b\u202e\ufeff\U000e0041") {
				t.Errorf("a terminal would obey %q", line)
			}
			var annotations map[string]string
			if err := yaml.UnmarshalStrict([]byte(line), &annotations); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			var got map[string][]string
			if err := json.Unmarshal([]byte(annotations["elector.io/command"]), &got); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if !slices.Equal(got["app"], command) {
				t.Errorf("%q became %q", command, got["app"])
			}
		})
	}
	if _, err := commandLine("app", []string{strings.Repeat("x", maxCommand)}); err == nil {
		t.Error("it is longer than an annotation may be")
	}
}
