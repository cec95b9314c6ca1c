package main

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/inject"
)

// injection is what inject.Add costs for one pod.
type injection struct {
	took                time.Duration
	allocations, memory int64 // memory is in bytes
}

// measureInjection decides on the pod that the reviews are about.
func measureInjection(pod *corev1.Pod) (injection, error) {
	options := inject.Options{Image: "registry.example.com/elector:v1", Version: "v1"}
	var failed error
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := inject.Add(pod, options); err != nil {
				failed = err
				b.FailNow()
			}
		}
	})
	if failed != nil {
		return injection{}, fmt.Errorf("deciding on a pod: %w", failed)
	}
	return injection{took: time.Duration(r.NsPerOp()), allocations: r.AllocsPerOp(), memory: r.AllocedBytesPerOp()}, nil
}
