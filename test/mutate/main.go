// Command mutate measures what the tests of the election notice. It changes the program in one small place, a mutant, and runs the
// tests that should fail now; it does so with every place it knows to change, or with a sample. The mutants that no test notices are
// shown: each is a test that is missing, or code that is not needed, or equivalent, which is said in equivalent.txt with the reason.
//
// The tree is never written: `go test -overlay` puts the mutant in the file's place. What a mutant is to be found by is in plan.go,
// what is not mutated in skip.go. The same seed and the same code give the same mutants in the same order; whether a mutant that only
// chance finds, or one that makes the tests slow, is killed depends on the machine, so these say what killed them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	c := config{plans: plans, skips: skips, progress: progress}
	var output string
	var check bool
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.Uint64Var(&c.seed, "seed", 1, "chooses the sample")
	flags.IntVar(&c.sample, "sample", 0, "try so many mutants alone; 0 for all")
	flags.StringVar(&c.file, "file", "", "mutate only files whose name has this in it, or matches it as a pattern")
	flags.IntVar(&c.line, "line", 0, "mutate only this line")
	flags.IntVar(&c.parallel, "j", 2, "how many mutants to try at a time")
	flags.DurationVar(&c.timeout, "timeout", 10*time.Second, "how much processor time one run of tests of one mutant may take, and a sixth of what it may take by the clock")
	flags.BoolVar(&c.doubt, "equivalent", false, "try only those that are listed as equivalent: none must be killed")
	flags.BoolVar(&check, "check", false, "fail if a target is missed, or the list of equivalent mutants is out of date")
	flags.StringVar(&output, "o", "", "write the report to this file, too")
	flags.Usage = func() {
		fmt.Fprintf(progress, "Usage: go run ./test/mutate [flags] [file pattern ...]\n\nWithout patterns: %v\n\n", defaultFiles)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if c.parallel < 1 || c.sample < 0 || c.timeout <= 0 {
		return errors.New("-j must be 1 or more, -sample not negative, -timeout above 0")
	}
	var err error
	if c.root, err = moduleRoot(); err != nil {
		return err
	}
	if c.files, err = glob(c.root, flags.Args()); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(c.root, equivalentFile))
	if err != nil {
		return err
	}
	if c.equivalents, err = parseEquivalents(string(text)); err != nil {
		return fmt.Errorf("%s: %w", equivalentFile, err)
	}
	r, err := c.measure(ctx)
	if err != nil {
		return err
	}
	page := r.page()
	if _, err := io.WriteString(out, page); err != nil {
		return err
	}
	if output != "" {
		if err := os.WriteFile(output, []byte(page), 0o644); err != nil {
			return err
		}
	}
	if check {
		return r.check()
	}
	return nil
}

// moduleRoot is the directory with go.mod, from where this runs upwards.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("there is no go.mod here")
		}
		dir = filepath.Dir(dir)
	}
}

// glob returns the files below root that the patterns fit, which are relative to it; defaultFiles without any.
func glob(root string, patterns []string) (map[string]bool, error) {
	if len(patterns) == 0 {
		patterns = defaultFiles
	}
	files := map[string]bool{}
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("no file fits %s", pattern)
		}
		for _, name := range found {
			relative, err := filepath.Rel(root, name)
			if err != nil {
				return nil, err
			}
			files[path.Clean(filepath.ToSlash(relative))] = true
		}
	}
	return files, nil
}
