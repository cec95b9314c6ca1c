package gate

import "time"

// Config says what a gate runs, and how it stops it.
type Config struct {
	// Command is the program and its arguments. The program is looked for in $PATH,
	// unless there is a slash in its name. Required.
	Command []string
	// StatusDir is where the elector says what its candidate is. Required.
	StatusDir string
	// StopGrace is what the child has between SIGTERM and the end of its claim. What is
	// below KillMargin leaves it none.
	StopGrace time.Duration
	// LeastClaim is what has to be left of a claim for the child to be started: at least
	// StopGrace and the time until the next renewal is surely known, or the child may be
	// stopped as soon as it is started. In lease mode that is a third of the
	// renew-deadline and a retry-period.
	LeastClaim time.Duration
	// Say is called with what went wrong, a sentence for people. Optional.
	Say func(sentence string)
}

// Exit codes of a gate whose child could not be started, as shells have them.
const (
	ExitNotExecutable = 126
	ExitNotFound      = 127
)
