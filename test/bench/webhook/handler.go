package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// handler is what a review takes without TLS and a network.
type handler struct {
	bytes          int // of the review
	p50, p99       time.Duration
	cpu50, cpu99   time.Duration // CPU time
	allocations    int
	allocatedBytes int
}

const (
	handlerPackage   = "./cmd/webhook/internal/admit"
	handlerBenchmark = "BenchmarkReview"
)

// measureHandler runs the benchmark beside the handler, which cannot be imported from here, with the same review.
func (l *lab) measureHandler(ctx context.Context, review []byte) (h handler, err error) {
	dir, err := os.MkdirTemp("", "elector-bench-")
	if err != nil {
		return h, fmt.Errorf("making a directory for a review: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "review.json")
	if err := os.WriteFile(file, review, 0o600); err != nil {
		return h, fmt.Errorf("writing a review: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+handlerBenchmark+"$", handlerPackage, "-review", file)
	cmd.Dir = l.root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return h, fmt.Errorf("running %s: %w\n%s", handlerBenchmark, err, out)
	}
	h, err = parseHandler(out)
	h.bytes = len(review)
	return h, err
}

// parseHandler reads the benchmark's line: its name, how often it ran, and values with their units.
func parseHandler(output []byte) (h handler, err error) {
	for lines := bufio.NewScanner(bytes.NewReader(output)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || !strings.HasPrefix(fields[0], handlerBenchmark) {
			continue
		}
		units := map[string]float64{}
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return h, fmt.Errorf("reading the line of %s: %w", handlerBenchmark, err)
			}
			units[fields[i+1]] = value
		}
		for unit, to := range map[string]*time.Duration{"p50-ns": &h.p50, "p99-ns": &h.p99, "cpu-p50-ns": &h.cpu50, "cpu-p99-ns": &h.cpu99} {
			value, ok := units[unit]
			if !ok {
				return h, fmt.Errorf("the line of %s has no %s", handlerBenchmark, unit)
			}
			*to = time.Duration(value)
		}
		h.allocations, h.allocatedBytes = int(units["allocs/op"]), int(units["B/op"])
		return h, nil
	}
	return h, fmt.Errorf("%s has no result in\n%s", handlerBenchmark, output)
}
