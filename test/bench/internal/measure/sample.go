// Package measure is what the benchmarks share: samples and how to show them, the machine, what processes of the embedded cluster use, and pages.
// Its objects are what every benchmark makes first.
package measure

import (
	"math"
	"slices"
	"time"
)

// Sample is how long something took, each time it was tried.
type Sample []time.Duration

// Mean is 0 of an empty sample, as are the quantiles.
func (s Sample) Mean() time.Duration {
	if len(s) == 0 {
		return 0
	}
	var sum time.Duration
	for _, d := range s {
		sum += d
	}
	return sum / time.Duration(len(s))
}

// Quantile is the smallest duration that a share q of the sample does not exceed: always one that was measured, never one in between.
func (s Sample) Quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := s.Sorted()
	rank := int(math.Ceil(q * float64(len(s))))
	return sorted[min(max(rank, 1), len(s))-1]
}

// P50 is the median.
func (s Sample) P50() time.Duration { return s.Quantile(0.50) }

// P95 is the 95th percentile.
func (s Sample) P95() time.Duration { return s.Quantile(0.95) }

// P99 is the 99th percentile.
func (s Sample) P99() time.Duration { return s.Quantile(0.99) }

// Max is the longest.
func (s Sample) Max() time.Duration { return s.Quantile(1) }

// Sorted is a copy, the shortest first.
func (s Sample) Sorted() Sample {
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	return sorted
}
