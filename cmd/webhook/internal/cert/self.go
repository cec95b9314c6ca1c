package cert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Config configures Self.
type Config struct {
	// Client reads (a cache is welcome) and writes the Secret and the
	// MutatingWebhookConfiguration. Required.
	Client client.Client
	// Informers tells of changes of the two objects. Required.
	Informers cache.Informers
	// Namespace and Secret name the Secret that the replicas share. Required.
	Namespace, Secret string
	// WebhookConfiguration is the name of the MutatingWebhookConfiguration whose
	// caBundles are kept right. Required.
	WebhookConfiguration string
	// DNSNames are the names API servers reach the webhook by. At least one.
	DNSNames []string
	// CALifetime is how long a CA is valid; it is replaced after two thirds.
	// At least three times CertificateLifetime, so that overlaps do not pile up.
	// Default 8760h (a year).
	CALifetime time.Duration
	// CertificateLifetime is how long a serving certificate is valid; it is
	// replaced after two thirds. At least 10s. Default 168h (a week).
	CertificateLifetime time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// The defaults of Config.
const (
	DefaultCALifetime          = 365 * 24 * time.Hour
	DefaultCertificateLifetime = 7 * 24 * time.Hour
)

// minCertificateLifetime leaves room for the overlap, whose steps are tenths of
// the lifetime, in certificates that know whole seconds.
const minCertificateLifetime = 10 * time.Second

// Self makes the serving certificate itself. It is a manager.Runnable that every
// replica runs.
type Self struct {
	Config
	lifetimes lifetimes

	served
	// authorities are those of the last sync, to survive the loss of the Secret.
	authorities []authority
	// published is nil until the configuration was read.
	published published
}

// NewSelf validates the configuration.
func NewSelf(c Config) (*Self, error) {
	if c.CALifetime == 0 {
		c.CALifetime = DefaultCALifetime
	}
	if c.CertificateLifetime == 0 {
		c.CertificateLifetime = DefaultCertificateLifetime
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.Client == nil || c.Informers == nil:
		return nil, errors.New("certificates need a client and informers")
	case c.Namespace == "" || c.Secret == "" || c.WebhookConfiguration == "" || len(c.DNSNames) == 0:
		return nil, errors.New("certificates need a namespace, the names of a secret and a webhook configuration, and a DNS name")
	}
	if err := ValidateLifetimes(c.CALifetime, c.CertificateLifetime); err != nil {
		return nil, err
	}
	return &Self{Config: c, served: newServed(), lifetimes: lifetimes{ca: c.CALifetime, leaf: c.CertificateLifetime}}, nil
}

// ValidateLifetimes checks Config's two durations.
func ValidateLifetimes(ca, certificate time.Duration) error {
	switch {
	case certificate < minCertificateLifetime:
		return fmt.Errorf("certificate lifetime %s is below %s", certificate, minCertificateLifetime)
	case ca < 3*certificate:
		return fmt.Errorf("CA lifetime %s is below three times the certificate lifetime %s", ca, certificate)
	}
	return nil
}

// NeedLeaderElection tells the manager that every replica runs this.
func (*Self) NeedLeaderElection() bool { return false }

const (
	// maxRetry bounds the pauses after failures.
	maxRetry = 10 * time.Second
	// maxRest bounds the pauses between looks at the clock; nothing is sent to
	// the API server by a look that finds all well.
	maxRest = time.Minute
)

// Start keeps Secret, caBundle and serving certificate right until ctx ends.
func (s *Self) Start(ctx context.Context) error {
	log := klog.FromContext(ctx).WithName("cert")
	changed := make(chan struct{}, 1)
	for _, obj := range []client.Object{&corev1.Secret{}, &admissionregistrationv1.MutatingWebhookConfiguration{}} {
		stop, err := s.notify(ctx, obj, changed)
		if err != nil {
			return err
		}
		defer stop()
	}
	retry := time.Duration(0)
	for {
		err := s.sync(klog.NewContext(ctx, log))
		pause := s.lifetimes.rest()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			retry = 0
		default:
			retry = min(maxRetry, max(100*time.Millisecond, 2*retry))
			pause = retry
			if isRace(err) {
				log.V(2).Info("Another replica was quicker", "err", err)
			} else {
				log.Error(err, "Cannot keep certificates right", "retryAfter", pause)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(pause):
		}
	}
}

// notify puts a token into changed whenever an object of obj's kind changes in
// the cache.
func (s *Self) notify(ctx context.Context, obj client.Object, changed chan<- struct{}) (stop func(), err error) {
	informer, err := s.Informers.GetInformer(ctx, obj)
	if err != nil {
		return nil, fmt.Errorf("watch %T: %w", obj, err)
	}
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { tell() },
		UpdateFunc: func(any, any) { tell() },
		DeleteFunc: func(any) { tell() },
	})
	if err != nil {
		return nil, fmt.Errorf("watch %T: %w", obj, err)
	}
	return func() { _ = informer.RemoveEventHandler(handler) }, nil // fails only for foreign handlers
}

// isRace reports whether err says that somebody else wrote first, or that the
// cache has not seen our own write yet.
func isRace(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
}

// sync makes one pass: Secret, caBundle, serving certificate, in this order. The
// serving certificate is looked after even when the API server is away.
func (s *Self) sync(ctx context.Context) error {
	now := s.Now()
	errSecret := s.syncSecret(ctx, now)
	if len(s.authorities) == 0 {
		return errSecret
	}
	s.lifetimes = s.lifetimes.with(s.authorities)
	bundle, errBundle := s.syncBundle(ctx, now)
	return errors.Join(errSecret, errBundle, s.syncLeaf(ctx, now, bundle))
}

// syncSecret sets s.authorities to what the Secret holds, after making the
// Secret hold what it should.
func (s *Self) syncSecret(ctx context.Context, now time.Time) error {
	log := klog.FromContext(ctx)
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Secret}, &secret)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("read secret: %w", err)
	}
	have, err := decode(secret.Data)
	lost := err != nil
	if lost {
		if len(secret.Data) > 0 { // the chart's begins empty
			log.Error(err, "Secret is unusable and will be replaced", "secret", klog.KObj(&secret))
		}
		have = s.authorities
	}
	keep, renew := s.lifetimes.plan(now, have)
	if lost || renew {
		fresh, err := newAuthority(now, s.CALifetime)
		if err != nil {
			return err
		}
		keep = newestFirst(append(keep, fresh))
	}
	if !lost && !renew && len(keep) == len(have) {
		s.authorities = keep
		return nil
	}

	if secret.Data, err = encode(keep); err != nil {
		return err
	}
	if missing {
		// No labels: Helm, whose chart has this Secret, would find its own taken by somebody else and refuse to upgrade.
		secret.ObjectMeta = metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Secret}
		err = s.Client.Create(ctx, &secret)
	} else {
		err = s.Client.Update(ctx, &secret) // with the resourceVersion that was read
	}
	if err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	log.Info("Wrote the CAs", "secret", klog.KObj(&secret), "count", len(keep), "newest", keep[0].cert.NotAfter)
	s.authorities = keep
	return nil
}

// syncBundle writes the caBundle where it is not right and returns the one that
// is live then.
func (s *Self) syncBundle(ctx context.Context, now time.Time) (live []byte, err error) {
	var config admissionregistrationv1.MutatingWebhookConfiguration
	if err := s.Client.Get(ctx, client.ObjectKey{Name: s.WebhookConfiguration}, &config); err != nil {
		return nil, fmt.Errorf("read webhook configuration: %w", err)
	}
	for _, w := range config.Webhooks {
		live = append(live, w.ClientConfig.CABundle...)
		live = append(live, '\n')
	}
	s.published = s.published.update(parseCerts(live), now)
	want := s.lifetimes.bundle(now, s.authorities, parseCerts(live))
	before := config.DeepCopy()
	dirty := false
	for i := range config.Webhooks {
		c := &config.Webhooks[i].ClientConfig
		dirty = dirty || !bytes.Equal(c.CABundle, want)
		c.CABundle = want
	}
	if !dirty {
		return want, nil
	}
	// A strategic merge patch touches the caBundles alone and carries the
	// resourceVersion, so two replicas cannot undo each other's work unseen.
	if err := s.Client.Patch(ctx, &config, client.StrategicMergeFrom(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return live, fmt.Errorf("write caBundle: %w", err)
	}
	s.published = s.published.update(parseCerts(want), s.Now()) // the write may have taken long
	klog.FromContext(ctx).Info("Wrote the caBundle", "webhookConfiguration", s.WebhookConfiguration, "certificates", len(parseCerts(want)))
	return want, nil
}

// syncLeaf replaces the serving certificate when it is due. live is the bundle
// that API servers use; it is empty when it could not be read.
func (s *Self) syncLeaf(ctx context.Context, now time.Time, live []byte) error {
	signer := s.lifetimes.signer(now, s.authorities, s.published)
	old := s.leaf.Load()
	if !needsLeaf(now, old, signer) {
		return nil
	}
	if old != nil && now.Before(old.Leaf.NotAfter) && (live == nil || !s.lifetimes.settled(now, signer, s.published) && vouched(now, old, live)) {
		return nil // cannot know which CA is trusted, or not by everybody yet: better not change it now
	}
	leaf, err := signer.sign(now, s.CertificateLifetime, s.DNSNames)
	if err != nil {
		return err
	}
	s.store(leaf)
	klog.FromContext(ctx).Info("Serving a new certificate", "until", leaf.Leaf.NotAfter, "serial", leaf.Leaf.SerialNumber.Text(16))
	return nil
}
