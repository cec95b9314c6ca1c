package cert

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
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
	// Clock tells the API server's time, by which certificates go. Required.
	Clock Clock
	// Events hears what a person should know, about the Secret. Required.
	Events events.EventRecorder
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
	switch {
	case c.Client == nil || c.Informers == nil || c.Clock == nil || c.Events == nil:
		return nil, errors.New("certificates need a client, informers, a clock and an event recorder")
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
	// maxRest bounds the pauses between looks at the clock. A look that finds all
	// well asks the API server for its time and for nothing else.
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
	retry, said := time.Duration(0), ""
	for {
		err := s.sync(klog.NewContext(ctx, log))
		pause := s.lifetimes.rest()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			retry, said = 0, ""
		default:
			retry = min(maxRetry, max(100*time.Millisecond, 2*retry))
			pause = retry
			if isRace(err) {
				log.V(2).Info("another replica was quicker", "err", err)
			} else {
				log.Error(err, "cannot keep certificates right", "retryAfter", pause)
				// Of what passes, and of an API server that is away, Events are of no use.
				if retry == maxRetry && err.Error() != said && !errors.Is(err, errUntold) {
					said = err.Error()
					s.warn("CertificateNotKept", said)
				}
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
		return nil, fmt.Errorf("watching %T: %w", obj, err)
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
		return nil, fmt.Errorf("watching %T: %w", obj, err)
	}
	return func() { _ = informer.RemoveEventHandler(handler) }, nil // fails only for foreign handlers
}

// isRace reports whether err says that somebody else wrote first, or that the
// cache has not seen our own write yet.
func isRace(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
}

// maxNote is what an Event may say, in bytes.
const maxNote = 1000

// warn tells of the Secret where people look: at the Secret, or where it was.
func (s *Self) warn(reason, note string) {
	about := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Secret},
	}
	s.Events.Eventf(about, nil, corev1.EventTypeWarning, reason, "KeepCertificate", "%s", note[:min(len(note), maxNote)])
}

// sync makes one pass: Secret, caBundle, serving certificate, in this order. The
// serving certificate is looked after even when the API server is away. Nothing is
// written at a time that the API server has not told: it may be long past.
func (s *Self) sync(ctx context.Context) error {
	now, err := s.Clock.Ask(ctx)
	if err != nil {
		carried, errNow := s.Clock.Now(ctx)
		if errNow != nil || len(s.authorities) == 0 {
			return err
		}
		return errors.Join(err, s.syncLeaf(ctx, carried, nil))
	}
	errSecret := s.syncSecret(ctx, now)
	if len(s.authorities) == 0 {
		return errSecret
	}
	s.lifetimes = s.lifetimes.with(now, s.authorities)
	trusted, errBundle := s.syncBundle(ctx, now)
	return errors.Join(errSecret, errBundle, s.syncLeaf(ctx, now, trusted))
}

// syncSecret makes the Secret hold what it should, and sets s.authorities to that.
// What the Secret holds of use is good even if it cannot be written.
func (s *Self) syncSecret(ctx context.Context, now time.Time) error {
	log := klog.FromContext(ctx)
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Secret}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("the Secret %[1]s/%[2]s is missing, make it anew with: kubectl -n %[1]s create secret generic %[2]s", s.Namespace, s.Secret)
	case err != nil:
		return fmt.Errorf("reading the Secret: %w", err)
	}
	stored, flaw := decode(secret.Data, s.authorities, s.DNSNames)
	keep, renew := s.lifetimes.plan(now, stored, s.authorities, s.published)
	if flaw == nil && !renew && slices.EqualFunc(keep, newestFirst(stored), func(a, b authority) bool { return a.cert.Equal(b.cert) }) {
		s.authorities = keep
		return nil
	}

	if flaw != nil && len(secret.Data) > 0 { // the chart's begins empty
		log.Error(flaw, "the Secret is not as it should be and will be mended", "secret", klog.KObj(&secret), "usable", len(stored))
		s.warn("CASecretMended", "It was not as it should be: "+flaw.Error())
	}
	for _, a := range stored {
		if fromFuture(now, a.cert) {
			log.Error(nil, "a CA is from the future and will be dropped", "secret", klog.KObj(&secret), "from", a.cert.NotBefore, "now", now)
			s.warn("CASecretMended", "It held a CA that is not valid before "+a.cert.NotBefore.UTC().Format(time.RFC3339)+", a clock is wrong")
		}
	}
	if len(validOnes(now, keep)) > 0 {
		s.authorities = keep
	}
	if renew {
		fresh, err := newAuthority(now, s.CALifetime)
		if err != nil {
			return err
		}
		keep = newestFirst(append(keep, fresh))
	}
	if secret.Data, err = encode(keep); err != nil {
		return err
	}
	if err := s.Client.Update(ctx, &secret); err != nil { // with the resourceVersion that was read
		return fmt.Errorf("writing the Secret: %w", err)
	}
	log.Info("wrote the CAs", "secret", klog.KObj(&secret), "count", len(keep), "newest", keep[0].cert.NotAfter)
	s.authorities = keep
	return nil
}

// syncBundle writes the caBundle where it is not right and returns what is in the
// one that is live then: nil if that is not known.
func (s *Self) syncBundle(ctx context.Context, now time.Time) (live []*x509.Certificate, err error) {
	var config admissionregistrationv1.MutatingWebhookConfiguration
	if err := s.Client.Get(ctx, client.ObjectKey{Name: s.WebhookConfiguration}, &config); err != nil {
		return nil, fmt.Errorf("reading the webhook configuration: %w", err)
	}
	live = []*x509.Certificate{}
	for _, w := range config.Webhooks {
		live = append(live, parseCerts(w.ClientConfig.CABundle)...)
	}
	s.published = s.published.update(live, now)
	var leaf *x509.Certificate
	if served := s.leaf.Load(); served != nil && valid(now, served.Leaf) {
		leaf = served.Leaf
	}
	certs := s.lifetimes.bundle(now, s.authorities, s.published, live, leaf)
	var want []byte
	for _, c := range certs {
		want = append(want, encodeCert(c)...)
	}
	before := config.DeepCopy()
	dirty := false
	for i := range config.Webhooks {
		c := &config.Webhooks[i].ClientConfig
		dirty = dirty || !bytes.Equal(c.CABundle, want)
		c.CABundle = want
	}
	if !dirty {
		return certs, nil
	}
	// A strategic merge patch touches the caBundles alone and carries the
	// resourceVersion, so two replicas cannot undo each other's work unseen.
	begun := time.Now()
	if err := s.Client.Patch(ctx, &config, client.StrategicMergeFrom(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return live, fmt.Errorf("writing the caBundle: %w", err)
	}
	s.published = s.published.update(certs, now.Add(time.Since(begun)))
	klog.FromContext(ctx).Info("wrote the caBundle", "webhookConfiguration", s.WebhookConfiguration, "certificates", len(certs))
	return certs, nil
}

// syncLeaf replaces the serving certificate when it is due. trusted is what API
// servers trust, nil when that could not be read.
func (s *Self) syncLeaf(ctx context.Context, now time.Time, trusted []*x509.Certificate) error {
	var served *x509.Certificate
	if old := s.leaf.Load(); old != nil {
		served = old.Leaf
	}
	signer, ok := s.lifetimes.signer(now, s.authorities, s.published)
	if !ok {
		return errors.New("no CA is valid")
	}
	if !s.lifetimes.replace(now, served, signer, s.published, trusted, s.DNSNames) {
		return nil
	}
	leaf, err := signer.sign(now, s.CertificateLifetime, s.DNSNames)
	if err != nil {
		return err
	}
	s.store(leaf)
	klog.FromContext(ctx).Info("serving a new certificate", "until", leaf.Leaf.NotAfter, "serial", leaf.Leaf.SerialNumber.Text(16))
	return nil
}
