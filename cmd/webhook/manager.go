package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/elector-io/elector/cmd/webhook/internal/admit"
	"github.com/elector-io/elector/cmd/webhook/internal/cert"
	"github.com/elector-io/elector/cmd/webhook/internal/grant"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector/kube"
)

// shutdownTimeout is what requests in flight get after the drain. Together with
// the drain it is below the chart's termination grace period.
const shutdownTimeout = 15 * time.Second

// newManager returns a manager that holds caches, servers and their certificate,
// to be started with the same context, and the check whether API servers trust
// that certificate. Its leader election is off: elector has its own.
func newManager(ctx context.Context, restConfig *rest.Config, registry prometheus.Registerer, cfg config) (mgr manager.Manager, trusted healthz.Checker, err error) {
	var source certificates
	server := newServer(cfg.webhookAddress, func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return source.GetCertificate(hello) })
	mgr, err = manager.New(restConfig, manager.Options{
		MapperProvider:          func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return kinds(), nil },
		Logger:                  libraryLog(),
		Cache:                   cacheOptions(cfg),
		NewCache:                newStoppableCache,
		BaseContext:             func() context.Context { return ctx },
		WebhookServer:           server,
		Metrics:                 metricsserver.Options{BindAddress: "0"}, // serveProbes does
		GracefulShutdownTimeout: new(shutdownTimeout),
	})
	if err != nil {
		return nil, nil, err
	}
	clock, err := cert.NewServerClock(restConfig, mgr.GetHTTPClient())
	if err != nil {
		return nil, nil, err
	}
	if source, err = newCertificates(mgr, clock, cfg); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(registry.Register(admit.Metrics()), registry.Register(cert.Expiry(source.GetCertificate)), registry.Register(clock.Ahead())); err != nil {
		return nil, nil, fmt.Errorf("registering metrics: %w", err)
	}
	// The readiness check reads it, whatever the certificate mode.
	if _, err := mgr.GetCache().GetInformer(ctx, &admissionregistrationv1.MutatingWebhookConfiguration{}); err != nil {
		return nil, nil, fmt.Errorf("watching the webhook configuration: %w", err)
	}
	trusted = cert.Check(mgr.GetClient(), clock, cfg.webhookConfiguration, cfg.webhookAddress, cfg.dnsNames()[0])
	return mgr, trusted, mgr.Add(source)
}

// lastCalls makes each answer the last one on its connection once ctx has ended.
// API servers keep connections open: one that the server closes in the moment a
// request comes in on it fails that request.
func lastCalls(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// stoppableCache, with Options.BaseContext, lets a manager be stopped that waits
// for its caches because the API server is away: controller-runtime (v0.25.2)
// would go on waiting, in a busy loop, until the caches say that they are in sync.
type stoppableCache struct{ cache.Cache }

func newStoppableCache(restConfig *rest.Config, options cache.Options) (cache.Cache, error) {
	c, err := cache.New(restConfig, options)
	return stoppableCache{c}, err
}

// WaitForCacheSync implements cache.Cache.
func (c stoppableCache) WaitForCacheSync(ctx context.Context) bool {
	return c.Cache.WaitForCacheSync(ctx) || ctx.Err() != nil
}

// kinds knows the few kinds the manager deals with, so that it can start, and
// wait, while the API server is away, and asks for no discovery.
func kinds() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, gvk := range []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Pod"),
		corev1.SchemeGroupVersion.WithKind("Secret"),
		corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		coordinationv1.SchemeGroupVersion.WithKind("Lease"),
		rbacv1.SchemeGroupVersion.WithKind("Role"),
		rbacv1.SchemeGroupVersion.WithKind("RoleBinding"),
		appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		batchv1.SchemeGroupVersion.WithKind("Job"),
	} {
		mapper.Add(gvk, meta.RESTScopeNamespace)
	}
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	mapper.Add(admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"), meta.RESTScopeRoot)
	return mapper
}

// cacheOptions keeps memory and permissions small: of what the cluster has, only
// what elector made is held, and nothing at all of a kind that is not listed. Pods
// are package candidates' business.
func cacheOptions(cfg config) cache.Options {
	managed := labels.SelectorFromSet(labels.Set{kube.ManagedByLabel: kube.ManagedBy})
	objects := map[client.Object]cache.ByObject{
		&rbacv1.Role{}:        {Label: managed, Transform: grant.Trim},
		&rbacv1.RoleBinding{}: {Label: managed, Transform: grant.Trim},
		// Watched from the first claim on, by the replica that leads.
		&coordinationv1.Lease{}: {Label: managed, Transform: locks.Trim},
		&corev1.ConfigMap{}:     {Label: managed, Transform: locks.Trim},
		&corev1.Namespace{}:     {Transform: locks.TrimNamespace}, // watched if there is a selector
		&admissionregistrationv1.MutatingWebhookConfiguration{}: {
			Field: fields.OneTermEqualSelector("metadata.name", cfg.webhookConfiguration),
		},
	}
	if cfg.certificateMode == certificateSelf {
		objects[&corev1.Secret{}] = cache.ByObject{Namespaces: map[string]cache.Config{
			cfg.namespace: {FieldSelector: fields.OneTermEqualSelector("metadata.name", cfg.certificateSecret)},
		}}
	}
	return cache.Options{ByObject: objects, ReaderFailOnMissingInformer: true}
}

// certificates is where the serving certificate comes from.
type certificates interface {
	manager.Runnable
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

func newCertificates(mgr manager.Manager, clock cert.Clock, cfg config) (certificates, error) {
	if cfg.certificateMode == certificateFiles {
		return cert.NewFiles(cfg.certificateDir), nil
	}
	return cert.NewSelf(cert.Config{
		Client: mgr.GetClient(), Informers: mgr.GetCache(),
		Namespace: cfg.namespace, Secret: cfg.certificateSecret,
		WebhookConfiguration: cfg.webhookConfiguration, DNSNames: cfg.dnsNames(),
		CALifetime: cfg.caLifetime, CertificateLifetime: cfg.certificateLifetime,
		Clock: clock, Events: mgr.GetEventRecorder(cfg.service),
	})
}
