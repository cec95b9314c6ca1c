// Package program is what elector's programs do alike: flags with environment
// twins, the log, and how a process begins and ends.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// Program describes one program, or one command of it.
type Program struct {
	// Name is how it is called, in messages.
	Name string
	// About is one sentence.
	About string
	// Version is what --version says.
	Version string
	// Prefix is before the names of environment variables.
	Prefix string
	// Flags are all flags but --help and --version. Each takes a value.
	Flags []Flag
	// Brief says of a failure one line, as of bad usage, and logs nothing: of a
	// command whose output somebody shows to people.
	Brief bool
}

// Flag is one flag, with its environment variables.
type Flag struct {
	// Name is the flag's, without dashes. Its environment twin is Program.Prefix and
	// the name in capitals.
	Name string
	// Default is the value if neither flag nor variable is given; empty for none.
	Default string
	// Help is one line.
	Help string
	// Others are further variables that are read, after the twin.
	Others []string
}

// Values are the flags' values: of the command line first, then of the
// environment, then the defaults.
type Values struct {
	program Program
	given   map[string]string
	getenv  func(string) string
}

// Lookup returns the value of a flag; ok is false if there is none.
func (v Values) Lookup(name string) (value string, ok bool) {
	if value, ok = v.given[name]; ok {
		return value, true
	}
	for _, f := range v.program.Flags {
		if f.Name != name {
			continue
		}
		for _, variable := range v.program.variables(f) {
			if value = v.getenv(variable); value != "" {
				return value, true
			}
		}
		return f.Default, f.Default != ""
	}
	return "", false
}

// Text returns the value of a flag, empty if there is none.
func (v Values) Text(name string) string {
	value, _ := v.Lookup(name)
	return value
}

// Parse reads the command line. It returns flag.ErrHelp if help is asked for;
// every other error is one line that names what is wrong.
func (p Program) Parse(args []string, getenv func(string) string) (Values, error) {
	set := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, f := range p.Flags {
		set.String(f.Name, "", "")
	}
	set.Bool(versionFlag, false, "")
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return Values{}, err
	} else if err != nil {
		return Values{}, fmt.Errorf("%w: see --help", err)
	}
	if set.NArg() > 0 {
		return Values{}, fmt.Errorf("argument %q is not allowed: only flags are, see --help", set.Arg(0))
	}
	v := Values{program: p, given: map[string]string{}, getenv: getenv}
	set.Visit(func(f *flag.Flag) { v.given[f.Name] = f.Value.String() })
	return v, nil
}

const versionFlag = "version"

// Main runs the program until it ends or is told to by SIGTERM or SIGINT, and
// returns its exit code: 0 after a clean end, 1 when run failed, 2 for bad usage.
// configure makes of the values what is run; its errors are bad usage.
func (p Program) Main(args []string, getenv func(string) string, stdout, stderr io.Writer, configure func(Values) (run func(context.Context) error, err error)) (exitCode int) {
	values, err := p.Parse(args, getenv)
	if errors.Is(err, flag.ErrHelp) {
		p.usage(stdout)
		return 0
	}
	if _, ok := values.given[versionFlag]; ok {
		fmt.Fprintln(stdout, p.Name, p.Version)
		return 0
	}
	var run func(context.Context) error
	if err == nil {
		run, err = configure(values)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	err = run(ctx)
	switch {
	case err == nil:
		return 0
	case p.Brief:
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
	default:
		klog.FromContext(ctx).Error(err, "stopping")
	}
	return 1
}

// variables are the environment variables of a flag, its twin first.
func (p Program) variables(f Flag) []string {
	return append([]string{p.Prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))}, f.Others...)
}

func (p Program) usage(w io.Writer) {
	fmt.Fprintf(w, "%s\n\nFlags, each with an environment variable:\n", p.About)
	for _, f := range p.Flags {
		fmt.Fprintf(w, "  --%s  (%s)\n      %s", f.Name, strings.Join(p.variables(f), ", "), f.Help)
		if f.Default != "" {
			fmt.Fprintf(w, " (default %s)", f.Default)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "  --version\n      print the version and exit\n")
}

// LogTo sends klog's lines to w, as JSON or as text.
func LogTo(w io.Writer, json bool, verbosity int) {
	if json {
		// logr's level n is slog's -n.
		klog.SetSlogLogger(slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.Level(-verbosity)})))
		return
	}
	text := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(w), textlogger.Verbosity(verbosity)))
	klog.SetLoggerWithOptions(text, klog.ContextualLogger(true)) // else klog asks its own verbosity, which is 0
}
