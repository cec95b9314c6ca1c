// Command cluster runs an embedded Kubernetes cluster for demo, tests and benchmarks: a real control plane, and pods as plain processes.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/elector-io/elector/test/cluster/internal/control"
	"github.com/elector-io/elector/test/cluster/internal/toolchain"
)

// The files that pin every version: the cluster's programs are built from these, wherever this program runs.
var (
	//go:embed go.mod
	goMod []byte
	//go:embed go.sum
	goSum []byte
)

const usage = `usage:
  cluster up --dir DIR [--detach] [--nodes N] [--install] [--chart DIR] [--bin DIR] [--set KEY=VALUE ...] [--audit]
        start a cluster; DIR/kubeconfig appears when it is ready; stops on SIGINT, SIGTERM or its parent's death
  cluster down --dir DIR
        stop it and remove everything below DIR
  cluster ctl --dir DIR ACTION NAMESPACE/POD
        crash, freeze, thaw, partition, stall, heal or evict a pod
  cluster bin-path NAME
        print where a program is, after compiling it if needed, with others of its kind: etcd, helm, kube-apiserver,
        kube-controller-manager, kubectl; or what only a cluster with kubelets needs: kube-proxy, kube-scheduler, kubeadm, kubelet
`

// errUsage is bad usage.
var errUsage = errors.New("bad usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(exitCode(err))
}

// exitCode says what is wrong and how the process ends: 2 for bad usage, 1 for everything else.
func exitCode(err error) int {
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "cluster: %v\n%s", err, usage)
		return 2
	case err != nil:
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	flags := flag.NewFlagSet("cluster "+args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	dir := flags.String("dir", "", "")
	switch args[0] {
	case "up":
		return runUp(ctx, flags, dir, args[1:], out)
	case "down":
		if err := parse(flags, dir, args[1:], 0); err != nil {
			return err
		}
		return down(ctx, *dir, out)
	case "ctl":
		if err := parse(flags, dir, args[1:], 2); err != nil {
			return err
		}
		namespace, pod, ok := strings.Cut(flags.Arg(1), "/")
		if !ok {
			return fmt.Errorf("%w: %q is not NAMESPACE/POD", errUsage, flags.Arg(1))
		}
		return control.Post(ctx, socketPath(*dir), "pods/"+namespace+"/"+pod+"/"+flags.Arg(0))
	case "bin-path":
		if len(args) != 2 {
			return fmt.Errorf("%w: bin-path needs the name of one program", errUsage)
		}
		return binPath(ctx, args[1], out)
	case janitorCommand:
		return clean(os.Stdin, args[1:])
	}
	return fmt.Errorf("%w: no command %q", errUsage, args[0])
}

func parse(flags *flag.FlagSet, dir *string, args []string, want int) error {
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *dir == "" {
		return fmt.Errorf("%w: --dir is required", errUsage)
	}
	if flags.NArg() != want {
		return fmt.Errorf("%w: %d arguments expected, got %q", errUsage, want, flags.Args())
	}
	return nil
}

func binPath(ctx context.Context, name string, out io.Writer) error {
	set, err := toolchain.SetOf(name)
	if err != nil {
		return err
	}
	bin, err := toolchain.Build(ctx, toolchain.Config{GoMod: goMod, GoSum: goSum, Progress: os.Stderr}, set)
	if err != nil {
		return err
	}
	path, err := toolchain.Path(bin, name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, path)
	return err
}
