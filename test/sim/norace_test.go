//go:build !race

package sim

import "time"

const (
	defaultSoak = 4 * time.Second
	replays     = 8
)
