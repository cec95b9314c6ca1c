// Command kubectl-elector is a plugin of kubectl for people: who leads and why,
// handing over, and what is wrong with an installation. It has no rights but its
// user's, and no server but the API server.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/terminal"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})
	stop()
	os.Exit(code)
}

// The exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

// command is main without the process around it.
func command(ctx context.Context, args []string, streams genericiooptions.IOStreams) (exitCode int) {
	p := &plugin{IOStreams: streams, flags: genericclioptions.NewConfigFlags(true)}
	root := newRoot(p)  //nolint:contextcheck // its commands get theirs from cobra
	understood := false // flags and arguments, when a command begins
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(streams.ErrOut, "error:", terminal.Lines(err.Error()))
	if usage := (usageError{}); errors.As(err, &usage) || !understood {
		return exitUsage
	}
	return exitFailure
}

// plugin is what all commands share.
type plugin struct {
	genericiooptions.IOStreams
	// flags are kubectl's own: --context, --namespace, --kubeconfig, --as and so on.
	flags *genericclioptions.ConfigFlags
}

// warn says one line beside the output.
func (p *plugin) warn(format string, args ...any) {
	fmt.Fprintln(p.ErrOut, "warning:", terminal.Line(fmt.Sprintf(format, args...)))
}

// usageError is a command line that cannot be meant.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }
