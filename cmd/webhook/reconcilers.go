package main

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/elector-io/elector/cmd/webhook/internal/event"
	"github.com/elector-io/elector/cmd/webhook/internal/grant"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/cmd/webhook/internal/reap"
	"github.com/elector-io/elector/cmd/webhook/internal/role"
)

// newReconcilers returns what the replica that leads runs: grant, reap and role.
// The manager must not have been started yet.
func newReconcilers(ctx context.Context, mgr manager.Manager, cfg config) ([]func(context.Context) error, error) {
	// What is decided about locks and leaders is decided on what is, not on what a
	// cache has.
	live, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if err := locks.IndexPods(ctx, mgr.GetCache()); err != nil {
		return nil, err
	}
	events := event.Recorder{EventRecorder: mgr.GetEventRecorder(cfg.service), Owners: mgr.GetAPIReader()}
	forbid := cfg.sidecar.ForbidLeaderForLife
	grants, err := grant.New(ctx, grant.Config{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Cache: mgr.GetCache(), Events: events, ForbidLeaderForLife: forbid,
	})
	if err != nil {
		return nil, err
	}
	reaper, err := reap.New(reap.Config{Locks: live, Cache: mgr.GetCache(), Events: events, ForbidLeaderForLife: forbid})
	if err != nil {
		return nil, err
	}
	roles, err := role.New(role.Config{Pods: live, Cache: mgr.GetCache(), Client: mgr.GetConfig(), ForbidLeaderForLife: forbid})
	if err != nil {
		return nil, err
	}
	return []func(context.Context) error{grants.Run, reaper.Run, roles.Run}, nil
}
