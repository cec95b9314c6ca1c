package main

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/event"
	"github.com/elector-io/elector/cmd/webhook/internal/fit"
	"github.com/elector-io/elector/cmd/webhook/internal/grant"
	"github.com/elector-io/elector/cmd/webhook/internal/history"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/cmd/webhook/internal/look"
	"github.com/elector-io/elector/cmd/webhook/internal/reap"
	"github.com/elector-io/elector/cmd/webhook/internal/role"
	"github.com/elector-io/elector/cmd/webhook/internal/sweep"
)

// newReconcilers returns what the replica that leads runs: grant, reap, role, sweep
// and fit.
// The manager must not have been started yet.
func newReconcilers(ctx context.Context, mgr manager.Manager, registry prometheus.Registerer, cfg config) ([]func(context.Context) error, error) {
	// What is decided about locks and leaders is decided on what is, not on what a
	// cache has.
	live, err := client.NewWithWatch(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	pods, err := newCandidates(mgr)
	if err != nil {
		return nil, err
	}
	events := event.New(mgr.GetEventRecorder(cfg.service), mgr.GetAPIReader())
	forbid := cfg.sidecar.ForbidLeaderForLife
	selector, err := labels.Parse(cfg.namespaceSelector)
	if err != nil {
		return nil, fmt.Errorf("--namespace-selector: %w", err)
	}
	namespaces, err := locks.NewNamespaces(ctx, mgr.GetCache(), selector, pods.LocksIn)
	if err != nil {
		return nil, err
	}
	objects, err := look.New(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, err
	}
	reaper, err := reap.New(reap.Config{Locks: live, Candidates: pods, Cache: mgr.GetCache(), Events: events, Metrics: registry, Namespaces: namespaces, ForbidLeaderForLife: forbid})
	if err != nil {
		return nil, err
	}
	grants, err := grant.New(ctx, grant.Config{
		Candidates: pods, Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Objects: objects, Cache: mgr.GetCache(), Events: events, Metrics: registry,
		Adopted: reaper.Look, Namespaces: namespaces, ForbidLeaderForLife: forbid,
	})
	if err != nil {
		return nil, err
	}
	told, err := history.New(history.Config{Events: events.Anew(), Metrics: registry})
	if err != nil {
		return nil, err
	}
	roles, err := role.New(role.Config{
		Pods: live, Candidates: pods, Cache: mgr.GetCache(), Locks: live, Metrics: registry, Namespaces: namespaces, ForbidLeaderForLife: forbid,
		Became: told.Became,
	})
	if err != nil {
		return nil, err
	}
	sweeper, err := sweep.New(sweep.Config{Locks: live, Candidates: pods, Namespaces: namespaces})
	if err != nil {
		return nil, err
	}
	guide, err := fit.New(fit.Config{
		Live: live, Candidates: pods, Cache: mgr.GetCache(), Asked: events.Anew(), Events: events, Metrics: registry, Namespaces: namespaces, ForbidLeaderForLife: forbid,
	})
	if err != nil {
		return nil, err
	}
	return []func(context.Context) error{grants.Run, reaper.Run, roles.Run, sweeper.Run, guide.Run}, nil
}

// newCandidates returns the injected pods of the cluster, which the manager
// watches from its start on.
func newCandidates(mgr manager.Manager) (*candidates.Cache, error) {
	core, err := corev1client.NewForConfigAndClient(protobuf(mgr.GetConfig()), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	pods, err := candidates.New(candidates.Injected(core))
	if err != nil {
		return nil, err
	}
	return pods, mgr.Add(pods)
}

// protobuf is smaller than JSON, and cannot be made many times larger by
// characters that JSON escapes.
func protobuf(client *rest.Config) *rest.Config {
	client = rest.CopyConfig(client)
	client.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client.ContentType = runtime.ContentTypeProtobuf
	return client
}
