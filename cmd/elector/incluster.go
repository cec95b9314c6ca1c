//go:build incluster

package main

import (
	"fmt"

	"github.com/elector-io/elector/elector/kube/lock"
)

const readsKubeconfig = false

// outside refuses.
func outside(string) (lock.Server, string, error) {
	return lock.Server{}, "", fmt.Errorf("%w: %s", lock.ErrNotInPod, onlyInPods)
}
