// Command gate stands before a program and runs it only while its candidate leads. It
// is in every gated container, so it is small: see package elector/gate for what it
// does.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/elector-io/elector/elector/gate"
)

// version is set by the linker.
var version = "dev"

func main() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(gcPercent)
	os.Exit(command(os.Args[1:], os.Getenv("ELECTOR_STATUS_DIR")))
}

// gcPercent makes the garbage collector begin at a heap of 0.4 MB instead of 4.
const gcPercent = 10

// exitUsage is the exit code after bad usage.
const exitUsage = 2

const usage = `gate runs a program only while its candidate leads.

  gate run [--status-dir=DIR] [--stop-grace=2s] [--least-claim=7.334s] -- COMMAND [ARG...]
      wait for a claim, run COMMAND within it, and exit as it does. DIR is the elector's
      status directory, by default $ELECTOR_STATUS_DIR
  gate probe [--startup=0s] -- COMMAND [ARG...]
      of a container whose gate is closed, or has been open for less than that, succeed;
      else become COMMAND
  gate --version
`

// command is main without the process around it.
func command(args []string, statusDir string) (exitCode int) {
	switch {
	case len(args) == 1 && (args[0] == "--version" || args[0] == "-version"):
		write(1, "gate "+version+"\n")
		return 0
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h"):
		write(1, usage)
		return 0
	case len(args) == 0:
		return refuse(errors.New("no command: use run or probe, see --help"))
	case args[0] == "run":
		return run(args[1:], statusDir)
	case args[0] == "probe":
		return probe(args[1:])
	}
	return refuse(fmt.Errorf("command %q is not allowed: use run or probe, see --help", args[0]))
}

func run(args []string, statusDir string) (exitCode int) {
	cfg := gate.Config{StatusDir: statusDir, StopGrace: 2 * time.Second, LeastClaim: 7334 * time.Millisecond, Say: say}
	program, err := parse(args, map[string]func(string) error{
		"stop-grace":  duration(&cfg.StopGrace),
		"least-claim": duration(&cfg.LeastClaim),
		"status-dir":  func(value string) error { cfg.StatusDir = value; return nil },
	})
	switch {
	case err != nil:
		return refuse(err)
	case cfg.StatusDir == "":
		return refuse(errors.New("no status directory: give --status-dir or $ELECTOR_STATUS_DIR"))
	}
	cfg.Command = program
	return gate.Run(cfg)
}

func probe(args []string) (exitCode int) {
	var startup time.Duration
	program, err := parse(args, map[string]func(string) error{"startup": duration(&startup)})
	if err != nil {
		return refuse(err)
	}
	exitCode, err = gate.RunProbe(startup, program)
	if err != nil {
		say(err.Error())
	}
	return exitCode
}

// parse reads flags until the command, which follows on "--".
func parse(args []string, flags map[string]func(string) error) (program []string, err error) {
	for len(args) > 0 && args[0] != "--" {
		name, value, given := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		set, known := flags[name]
		if !known || !strings.HasPrefix(args[0], "-") {
			return nil, fmt.Errorf("argument %q is not allowed before --: see --help", args[0])
		}
		args = args[1:]
		if !given && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		if err := set(value); err != nil {
			return nil, fmt.Errorf("--%s %q is not allowed: %w", name, value, err)
		}
	}
	if len(args) < 2 || args[1] == "" {
		return nil, errors.New("no program: give it after --")
	}
	return args[1:], nil
}

// duration reads a flag's value into d.
func duration(d *time.Duration) func(string) error {
	return func(value string) error {
		read, err := time.ParseDuration(value)
		if err != nil || read < 0 {
			return errors.New("use a duration such as 2s or 0s")
		}
		*d = read
		return nil
	}
}

func refuse(err error) (exitCode int) {
	say(err.Error())
	return exitUsage
}

// say says a sentence to whoever reads the container's log.
func say(sentence string) { write(2, "gate: "+sentence+"\n") }

// write writes to an open descriptor. With os.File the process would die when nobody
// reads that any more, and take the program along.
func write(fd int, text string) { _, _ = syscall.Write(fd, []byte(text)) }
