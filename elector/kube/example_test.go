package kube_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// Contend for a Lease in a Pod, as with client-go's leaderelection, and work while
// this Pod leads. The downward API has to set POD_NAME and POD_UID.
func ExampleForPod() { //nolint:testableexamples // it needs a cluster
	ctx := context.Background()
	lock, err := kube.ForPod(ctx, elector.Settings{Lock: "billing"})
	if err != nil {
		panic(err)
	}
	if lock == nil {
		panic(errors.New("this is no Pod"))
	}
	err = elector.Run(ctx, elector.Config{
		Lock: lock,
		Callbacks: elector.Callbacks{
			OnStartedLeading: func(ctx context.Context) {
				fmt.Println("working")
				<-ctx.Done() // the claim is over: return, and the lock is released
			},
			OnNewLeader: func(identity string) { fmt.Println("led by", elector.NameOf(identity)) },
		},
	})
	if err != nil {
		panic(err)
	}
}

// Ask whether this process leads, wherever it matters.
func ExampleNew() { //nolint:testableexamples // it needs a cluster
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		panic(err)
	}
	lock, err := kube.New(config, kube.Config{Candidate: elector.Description{
		Settings: elector.Settings{Lock: "billing"}, Namespace: "shop", Identity: elector.Identity("laptop", "1"),
	}})
	if err != nil {
		panic(err)
	}
	e, err := elector.New(elector.Config{Lock: lock})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	if s := e.Status(); s.Role == elector.RoleLeader {
		fmt.Println("write with fencing token", s.FencingToken)
	}
	cancel() // demote, then release
	if err := <-done; err != nil {
		panic(err)
	}
}

// Be the leader for life, as with operator-sdk's leader.Become; without the mode,
// by a Lease.
func Example_become() { //nolint:testableexamples // it needs a cluster
	ctx := context.Background()
	lock, err := kube.ForPod(ctx, elector.Settings{Lock: "my-operator-lock", Mode: elector.ModeLeaderForLife})
	if err != nil {
		panic(err)
	}
	ctx, err = elector.Become(ctx, lock)
	if err != nil {
		panic(err)
	}
	<-ctx.Done() // run the manager with this context
}
