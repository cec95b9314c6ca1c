package main

import (
	"testing"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
)

// TestNameOfLeader has what whoever may write a lock may write as its holder.
func TestNameOfLeader(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ leader, want, err string }{
		"pod":           {leader: "web-0", want: "web-0"},
		"node":          {leader: "node-1.example.com", want: "node-1.example.com"},
		"nobody":        {err: "nobody leads web"},
		"flag":          {leader: "--server=https://evil", err: `"--server=https://evil" leads web, and is no name of a pod: look who wrote it into the lock`},
		"several words": {leader: "web-0 -- rm", err: `"web-0 -- rm" leads web, and is no name of a pod: look who wrote it into the lock`},
		"several lines": {leader: `web-0\nweb-1`, err: `"web-0\\nweb-1" leads web, and is no name of a pod: look who wrote it into the lock`},
		"pattern":       {leader: "*", err: `"*" leads web, and is no name of a pod: look who wrote it into the lock`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := nameOfLeader(&survey.Lock{Name: "web", Leader: test.leader})
			text := ""
			if err != nil {
				text = err.Error()
			}
			if got != test.want || text != test.err {
				t.Errorf("%q, %q, want %q, %q", got, text, test.want, test.err)
			}
		})
	}
}
