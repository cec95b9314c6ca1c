//go:build race

package sim

import "time"

// They are few: the race detector takes most of the time.
const (
	defaultSoak = 2 * time.Second
	replays     = 2
)
