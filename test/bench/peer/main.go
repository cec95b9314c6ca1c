// Command peer is the sidecar that one would write with client-go alone: a clientset, a LeaderElector, and a file that exists while this
// pod leads. The benchmark runs it beside elector.
//
// It has less to do than elector: no HTTP, no status.json, no metrics. It also has client-go's faults: the lease is released before the
// file is removed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// client-go's defaults, which are elector's too.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

func main() { os.Exit(command()) }

// command is main without the process around it.
func command() (exitCode int) {
	lease := flag.String("lease", "", "name of the Lease")
	file := flag.String("file", "", "file that exists while this pod leads")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := run(ctx, *lease, *file); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		return 1
	}
	return 0
}

// run contends until ctx ends.
func run(ctx context.Context, lease, file string) error {
	if err := withdraw(file); err != nil {
		return err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("using the pod's service account: %w", err)
	}
	config.Timeout = renewDeadline / 2 // as controller-runtime sets it
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	election := leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: os.Getenv("POD_NAMESPACE"), Name: lease},
			Client:     clients.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: os.Getenv("POD_NAME") + "_" + os.Getenv("POD_UID")},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				if err := announce(file); err != nil {
					klog.ErrorS(err, "Writing the leader file")
				}
			},
			OnStoppedLeading: func() {
				if err := withdraw(file); err != nil {
					klog.ErrorS(err, "Removing the leader file")
				}
			},
		},
	}
	for ctx.Err() == nil { // Run returns when the lease is lost
		elector, err := leaderelection.NewLeaderElector(election)
		if err != nil {
			return fmt.Errorf("making a LeaderElector: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}

// announce writes the file at once, whole.
func announce(file string) error {
	if err := os.WriteFile(file+".new", []byte(os.Getenv("POD_NAME")+"\n"), 0o644); err != nil {
		return fmt.Errorf("writing the leader file: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("writing the leader file: %w", err)
	}
	return nil
}

func withdraw(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the leader file: %w", err)
	}
	return nil
}
