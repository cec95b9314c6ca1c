//go:build !linux

package gate

import (
	"errors"
	"time"
)

// errNotLinux is what a gate says elsewhere: there is no such proof that a child is
// dead.
var errNotLinux = errors.New("a gate works on Linux alone")

// Run says that it can't.
func Run(cfg Config) (exitCode int) {
	if cfg.Say != nil {
		cfg.Say(errNotLinux.Error())
	}
	return ExitNotExecutable
}

// Probe says that it can't.
func RunProbe(time.Duration, []string) (exitCode int, err error) {
	return ExitNotExecutable, errNotLinux
}
