//go:build race

package sim

import "time"

// defaultSoak is short: the race detector takes most of the time.
const defaultSoak = 2 * time.Second
