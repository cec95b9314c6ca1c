package kube_test

import (
	"context"
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// Contend for a Lease, as with client-go's leaderelection, and work while this
// process leads.
func Example_lease() { //nolint:testableexamples // it needs a cluster
	ctx := context.Background()
	config, err := rest.InClusterConfig()
	if err != nil {
		panic(err)
	}
	settings := elector.DefaultSettings()
	settings.Lock = "billing"
	lock, err := kube.New(config, kube.Config{Namespace: "shop", Name: settings.Lock})
	if err != nil {
		panic(err)
	}
	err = elector.Run(ctx, elector.Config{
		Settings: settings,
		Identity: elector.Identity(os.Getenv("POD_NAME"), os.Getenv("POD_UID")),
		Lock:     lock,
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
	settings := elector.DefaultSettings()
	settings.Lock = "billing"
	lock, err := kube.New(config, kube.Config{Namespace: "shop", Name: settings.Lock})
	if err != nil {
		panic(err)
	}
	e, err := elector.New(elector.Config{Settings: settings, Identity: "laptop_1", Lock: lock})
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

// Be the leader for life, as with operator-sdk's leader.Become.
func ExampleForPod() { //nolint:testableexamples // it needs a cluster
	ctx := context.Background()
	lock, err := kube.ForPod(ctx, "my-operator-lock")
	if err != nil {
		panic(err)
	}
	ctx, err = elector.Become(ctx, lock)
	if err != nil {
		panic(err)
	}
	<-ctx.Done() // run the manager with this context
}
