package main

import (
	"math"
	"slices"
	"time"
)

// sample is how long something took, each time it was tried.
type sample []time.Duration

func (s sample) mean() time.Duration {
	if len(s) == 0 {
		return 0
	}
	var sum time.Duration
	for _, d := range s {
		sum += d
	}
	return sum / time.Duration(len(s))
}

// quantile is the smallest duration that a share q of the sample does not exceed: always one that was measured, never one in between.
func (s sample) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := s.sorted()
	rank := int(math.Ceil(q * float64(len(s))))
	return sorted[min(max(rank, 1), len(s))-1]
}

func (s sample) p50() time.Duration { return s.quantile(0.50) }
func (s sample) p95() time.Duration { return s.quantile(0.95) }
func (s sample) max() time.Duration { return s.quantile(1) }

func (s sample) sorted() sample {
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	return sorted
}
