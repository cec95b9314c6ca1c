package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseHistogram(t *testing.T) {
	const text = `# TYPE wait histogram
wait_bucket{group="a",resource="x",le="+Inf"} 3
wait_sum{group="a",resource="x"} 0.5
wait_count{group="a",resource="x"} 3
wait_bucket{group="a",resource="y",le="+Inf"} 1
wait_sum{group="a",resource="y"} 0.25
wait_count{group="a",resource="y"} 1
wait_bucket{group="b",resource="x",le="+Inf"} 7
wait_sum{group="b",resource="x"} 4
wait_count{group="b",resource="x"} 7
`
	count, sum, err := parseHistogram(strings.NewReader(text), "wait", "group", "a")
	if err != nil || count != 4 || sum != 750*time.Millisecond {
		t.Errorf("got %d in %s, %v; want all of group a: 4 in 750ms", count, sum, err)
	}
	if count, _, err := parseHistogram(strings.NewReader(text), "wait", "group", "c"); err != nil || count != 0 {
		t.Errorf("got %d, %v of a group that nothing was observed of", count, err)
	}
	if _, _, err := parseHistogram(strings.NewReader(text), "weight", "group", "a"); err == nil {
		t.Error("a metric that is not there must not count as 0")
	}
}
