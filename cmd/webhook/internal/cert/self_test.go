package cert

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const dnsName = "elector-webhook.elector-system.svc"

// api is what the replicas share: the objects and the clock. Requests of a
// replica that is cut off fail.
type api struct {
	t      *testing.T
	client client.WithWatch
	now    time.Time
	mu     sync.Mutex
	cut    map[int]bool
}

var errCut = errors.New("cut off")

// fakeClock goes right also while its replica is cut off.
type fakeClock struct {
	api    *api
	number int
}

func (c fakeClock) Ask(context.Context) (time.Time, error) {
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	if c.api.cut[c.number] {
		return time.Time{}, fmt.Errorf("%w: %w", errUntold, errCut)
	}
	return c.api.now, nil
}

func (c fakeClock) Now(context.Context) (time.Time, error) {
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	return c.api.now, nil
}

func newAPI(t *testing.T) *api {
	webhook := func(name string) admissionregistrationv1.MutatingWebhook {
		return admissionregistrationv1.MutatingWebhook{Name: name}
	}
	config := &admissionregistrationv1.MutatingWebhookConfiguration{
		Webhooks: []admissionregistrationv1.MutatingWebhook{webhook("pods.elector.io"), webhook("workloads.elector.io")},
	}
	config.Name = "elector-webhook"
	secret := &corev1.Secret{}
	secret.Namespace, secret.Name = "elector-system", "elector-webhook-ca"
	return &api{
		t:      t,
		client: fake.NewClientBuilder().WithObjects(config, secret).Build(),
		now:    time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		cut:    map[int]bool{},
	}
}

// cutOff cuts the first replica off, or lets it in again.
func (a *api) cutOff(cut bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut[0] = cut
}

// replica returns a Self that has never synced.
func (a *api) replica(number int) *Self {
	a.t.Helper()
	s, err := NewSelf(Config{ //nolint:gosec // G101: the name of a Secret gives nothing away.
		Client: interceptor.NewClient(a.client, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
				a.mu.Lock()
				cut := a.cut[number]
				a.mu.Unlock()
				if cut {
					return errCut
				}
				return c.Get(ctx, key, obj, opts...)
			},
		}),
		Informers:            &informertest.FakeInformers{},
		Namespace:            "elector-system",
		Secret:               "elector-webhook-ca",
		WebhookConfiguration: "elector-webhook",
		DNSNames:             []string{dnsName},
		CALifetime:           time.Minute,
		CertificateLifetime:  20 * time.Second,
		Clock:                fakeClock{a, number},
		Events:               &events.FakeRecorder{}, // without a channel: deaf
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *api) secret() *corev1.Secret {
	a.t.Helper()
	var s corev1.Secret
	if err := a.client.Get(a.t.Context(), client.ObjectKey{Namespace: "elector-system", Name: "elector-webhook-ca"}, &s); err != nil {
		a.t.Fatal(err)
	}
	return &s
}

func (a *api) config() *admissionregistrationv1.MutatingWebhookConfiguration {
	a.t.Helper()
	var c admissionregistrationv1.MutatingWebhookConfiguration
	if err := a.client.Get(a.t.Context(), client.ObjectKey{Name: "elector-webhook"}, &c); err != nil {
		a.t.Fatal(err)
	}
	return &c
}

// fill gives the Secret other data.
func (a *api) fill(data map[string][]byte) {
	a.t.Helper()
	s := a.secret()
	s.Data = data
	must(a.t, a.client.Update(a.t.Context(), s))
}

// remove deletes the Secret, remake makes an empty one as a person would.
func (a *api) remove() {
	a.t.Helper()
	must(a.t, a.client.Delete(a.t.Context(), a.secret()))
}

func (a *api) remake() {
	a.t.Helper()
	s := &corev1.Secret{}
	s.Namespace, s.Name = "elector-system", "elector-webhook-ca"
	must(a.t, a.client.Create(a.t.Context(), s))
}

// admit does what an API server does that knows the given bundle.
func (a *api) admit(s *Self, bundle []byte) error {
	leaf, err := s.GetCertificate(nil)
	if err != nil {
		return err
	}
	return accepts(parseCerts(bundle), leaf.Leaf, a.now, []string{dnsName})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRotationFailsNoAdmission lets two replicas live through ten lifetimes of
// CAs. At every second every bundle that an API server may know (the live one
// and those it replaced within the settle time) must accept both of them, also
// while one is cut off from the API and restarted, and when the Secret is lost.
func TestRotationFailsNoAdmission(t *testing.T) {
	seed := time.Now().UnixNano()
	random := rand.New(rand.NewSource(seed))
	t.Logf("seed %d", seed)
	a := newAPI(t)
	replicas := []*Self{a.replica(0), a.replica(1)}
	known := map[string]time.Time{} // bundle -> when it was last live
	cas := map[string]bool{}
	excused := [2]time.Time{} // until when a replica may not be trusted by everybody
	lost := 0
	cutSince, missingSince := 0, 0
	for second := range 600 {
		a.now = a.now.Add(time.Second)
		if missingSince > 0 && second-missingSince >= 5 {
			a.remake()
			missingSince = 0
		}
		fault := random.Intn(80)
		if second < 5 || missingSince > 0 {
			fault = -1 // the first start has a test of its own; one fault at a time
		}
		switch fault {
		case 0:
			a.cut[random.Intn(2)] = true
			cutSince = second
		case 1, 2, 3, 4, 5, 6, 7:
			clear(a.cut)
		case 8:
			a.remove()
			missingSince = second
			lost++
		case 9:
			a.fill(map[string][]byte{dataCerts: a.secret().Data[dataCerts], dataKeys: []byte("garbage")})
			lost++
		case 10:
			i := random.Intn(2)
			if !a.cut[i] && !a.cut[1-i] {
				must(t, replicas[1-i].sync(quiet(t)))
				replicas[i] = a.replica(i) // not asked before it has synced, as readiness ensures
				if known, flaw := decode(a.secret().Data, nil, []string{dnsName}); flaw != nil || len(known) == 1 {
					excused[i] = a.now.Add(replicas[i].lifetimes.settle()) // the Secret was lost a moment ago
				}
			}
		case 11:
			a.fill(expired(t, a.now))
			lost++
		case 12:
			if i := random.Intn(2); !a.cut[i] && !a.cut[1-i] {
				a.fill(nil)
				replicas[i] = a.replica(i) // it remembers no CA, and may be the first to make one
				excused[i] = a.now.Add(replicas[i].lifetimes.settle())
				lost++
			}
		}
		// Nobody can save two at a time, or one for longer than its certificate has
		// to go at least: a third of its life.
		if a.cut[0] && a.cut[1] || second-cutSince >= 6 {
			clear(a.cut)
		}
		for _, i := range random.Perm(2) {
			if err := replicas[i].sync(quiet(t)); err != nil && !errors.Is(err, errCut) && !isRace(err) && missingSince == 0 {
				t.Fatalf("second %d, replica %d: %v", second, i, err)
			}
		}
		live := string(a.config().Webhooks[0].ClientConfig.CABundle)
		known[live] = a.now
		for _, c := range parseCerts([]byte(live)) {
			cas[string(c.Raw)] = true
		}
		for bundle, last := range known {
			if a.now.Sub(last) >= replicas[0].lifetimes.settle() {
				delete(known, bundle)
				continue
			}
			for i, r := range replicas {
				if err := a.admit(r, []byte(bundle)); err != nil && second > 2 && !a.now.Before(excused[i]) && (!a.cut[i] || r.leaf.Load() != nil) {
					t.Fatalf("second %d, replica %d (cut off %v), bundle last live %s ago: %v", second, i, a.cut[i], a.now.Sub(last), err)
				}
			}
		}
	}
	// A CA is replaced after 40 seconds, or earlier when the Secret is lost.
	if len(cas) < 12 {
		t.Errorf("only %d CAs were used, the Secret was lost %d times: nothing rotated", len(cas), lost)
	}
	if n := len(parseCerts(a.config().Webhooks[0].ClientConfig.CABundle)); n > maxBundle {
		t.Errorf("%d certificates in the bundle: old ones pile up", n)
	}
}

// TestLongerLifetimes lets replicas with longer lifetimes take over at moments
// all over the life of a short-lived CA: nobody serves what has expired, though
// they look at the clock no more often than they say.
func TestLongerLifetimes(t *testing.T) {
	for second := 0; second < 60; second += 7 {
		a := newAPI(t)
		before := a.replica(0)
		for range 120 + second {
			a.now = a.now.Add(time.Second)
			must(t, before.sync(quiet(t)))
		}
		after := a.replica(1)
		after.CALifetime, after.CertificateLifetime = DefaultCALifetime, DefaultCertificateLifetime
		after.lifetimes = lifetimes{ca: DefaultCALifetime, leaf: DefaultCertificateLifetime}
		due := a.now
		for range 180 {
			if !a.now.Before(due) {
				must(t, after.sync(quiet(t)))
				due = a.now.Add(after.lifetimes.rest())
			}
			if err := a.admit(after, a.config().Webhooks[0].ClientConfig.CABundle); err != nil {
				t.Fatalf("taken over after %d s, now %s: %v", 120+second, a.now.Format(time.TimeOnly), err)
			}
			a.now = a.now.Add(time.Second)
		}
	}
}

// expired is the data of a Secret that was good once.
func expired(t *testing.T, now time.Time) map[string][]byte {
	t.Helper()
	return authorityAt(t, now.Add(-time.Hour), time.Minute)
}

// authorityAt is the data of a Secret with a CA that was made at a time.
func authorityAt(t *testing.T, at time.Time, lifetime time.Duration) map[string][]byte {
	t.Helper()
	made, err := newAuthority(at, lifetime)
	must(t, err)
	data, err := encode([]authority{made})
	must(t, err)
	return data
}

func TestSync(t *testing.T) {
	const always, remembered = "always", "same process"
	tests := map[string]struct {
		reason string
		// change is done to what a synced replica left behind, which then syncs.
		change func(t *testing.T, a *api)
		// keeps says that the CA must be the same as before: always, or in the same
		// process, which remembers it.
		keeps string
	}{
		"nothing": {
			reason: "a second pass changes nothing",
			change: func(*testing.T, *api) {},
			keeps:  always,
		},
		"caBundle wiped": {
			reason: "kubectl replace or a GitOps tool may drop it",
			change: func(t *testing.T, a *api) {
				c := a.config()
				for i := range c.Webhooks {
					c.Webhooks[i].ClientConfig.CABundle = nil
				}
				must(t, a.client.Update(t.Context(), c))
			},
			keeps: always,
		},
		"one caBundle edited": {
			reason: "every webhook's bundle counts",
			change: func(t *testing.T, a *api) {
				c := a.config()
				c.Webhooks[1].ClientConfig.CABundle = []byte("garbage")
				must(t, a.client.Update(t.Context(), c))
			},
			keeps: always,
		},
		"Secret made anew": {
			reason: "deleting the Secret rotates the CA, once there is another",
			change: func(_ *testing.T, a *api) {
				a.now = a.now.Add(2 * time.Second) // the settle time
				a.remove()
				a.remake()
			},
		},
		"Secret emptied": {
			reason: "an empty Secret is as good as a new one",
			change: func(_ *testing.T, a *api) {
				a.now = a.now.Add(2 * time.Second)
				a.fill(nil)
			},
		},
		"certificate and key exchanged": {
			reason: "a Secret that does not fit together is replaced",
			change: func(t *testing.T, a *api) {
				a.now = a.now.Add(2 * time.Second)
				other, err := newAuthority(a.now, time.Minute)
				must(t, err)
				data, err := encode([]authority{other})
				must(t, err)
				s := a.secret()
				s.Data[dataKeys] = data[dataKeys]
				must(t, a.client.Update(t.Context(), s))
			},
		},
		"Secret expired": {
			reason: "a Secret from an old backup is replaced",
			change: func(t *testing.T, a *api) { a.fill(expired(t, a.now)) },
		},
		"CA from the future": {
			reason: "a replica whose clock was ahead put it in, the right one is remembered or made",
			change: func(t *testing.T, a *api) { a.fill(authorityAt(t, a.now.Add(1000*time.Hour), 10000*time.Hour)) },
			keeps:  remembered,
		},
		"100 CAs": {
			reason: "a hand that does not know what it does",
			change: func(t *testing.T, a *api) {
				data := map[string][]byte{}
				for range 100 {
					for key, value := range authorityAt(t, a.now, time.Hour) {
						data[key] = append(data[key], value...)
					}
				}
				a.fill(data)
			},
		},
		"everything expired": {
			reason: "a cluster that was switched off for long comes back by itself",
			change: func(_ *testing.T, a *api) { a.now = a.now.Add(1000 * time.Hour) },
		},
	}
	for name, tc := range tests {
		for _, kind := range []string{remembered, "restarted"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				a := newAPI(t)
				s := a.replica(0)
				must(t, s.sync(quiet(t)))
				before := string(a.secret().Data[dataCerts])
				tc.change(t, a)
				if kind == "restarted" {
					s = a.replica(0)
				}
				must(t, s.sync(quiet(t)))
				config := a.config()
				for _, w := range config.Webhooks {
					if err := a.admit(s, w.ClientConfig.CABundle); err != nil {
						t.Errorf("%s: webhook %s: %v", tc.reason, w.Name, err)
					}
				}
				if same := string(a.secret().Data[dataCerts]) == before; same != (tc.keeps == always || tc.keeps == kind) {
					t.Errorf("%s: same CA: %v, want it %q", tc.reason, same, tc.keeps)
				}
				version := config.ResourceVersion
				must(t, s.sync(quiet(t)))
				if got := a.config().ResourceVersion; got != version {
					t.Errorf("%s: a pass with nothing to do wrote the configuration", tc.reason)
				}
			})
		}
	}
}

// TestSettlesOncePublished holds that a new CA signs a settle time after it came
// into the caBundle, however long that took.
func TestSettlesOncePublished(t *testing.T) {
	a := newAPI(t)
	s := a.replica(0)
	must(t, s.sync(quiet(t)))
	before := a.config().Webhooks[0].ClientConfig.CABundle
	refused := true
	reads := s.Client
	s.Client = interceptor.NewClient(a.client, interceptor.Funcs{
		Patch: func(ctx context.Context, _ client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if refused {
				return errCut
			}
			return reads.Patch(ctx, obj, patch, opts...)
		},
	})
	for range 45 { // the CA is renewed after 40 s
		a.now = a.now.Add(time.Second)
		if err := s.sync(quiet(t)); err != nil && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
	if len(s.authorities) != 2 {
		t.Fatalf("%d CAs, want 2", len(s.authorities))
	}
	refused = false
	for range 2 { // the settle time
		must(t, s.sync(quiet(t)))
		if err := a.admit(s, before); err != nil {
			t.Errorf("an API server that does not know the new CA yet: %v", err)
		}
		a.now = a.now.Add(time.Second)
	}
	a.now = a.now.Add(time.Second) // writing the caBundle took a moment
	must(t, s.sync(quiet(t)))
	if err := a.admit(s, before); err == nil {
		t.Error("the new CA does not sign")
	}
}

// TestSays holds what a person is told, where people look, and how often.
func TestSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		s := a.replica(0)
		told := events.NewFakeRecorder(10)
		s.Events = told
		ctx, cancel := context.WithCancel(quiet(t))
		done := make(chan error)
		step := func(change func()) (said []string) {
			change()
			time.Sleep(3 * maxRetry)
			synctest.Wait()
			for len(told.Events) > 0 {
				said = append(said, <-told.Events)
			}
			return said
		}
		check := func(what string, got []string, want ...string) {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		check("the first start", step(func() { go func() { done <- s.Start(ctx) }() }))
		check("a CA from the future", step(func() { a.fill(authorityAt(t, a.now.Add(1000*time.Hour), time.Hour)) }),
			"Warning CASecretMended It held a CA that is not valid before 2027-01-01T03:00:00Z, a clock is wrong")
		check("garbage", step(func() { a.fill(map[string][]byte{dataKeys: []byte("x")}) }),
			"Warning CASecretMended It was not as it should be: ca.crt and ca.key do not hold the same number of certificates and keys, or none")
		check("missing", step(a.remove),
			"Warning CertificateNotKept the Secret elector-system/elector-webhook-ca is missing, make it anew with: kubectl -n elector-system create secret generic elector-webhook-ca")
		if err := a.admit(s, a.config().Webhooks[0].ClientConfig.CABundle); err != nil {
			t.Errorf("without the Secret: %v", err)
		}
		check("made anew", step(a.remake))
		check("the API server is away", step(func() { a.cutOff(true) }))
		check("it is back", step(func() { a.cutOff(false) }))
		check("missing for a moment", step(func() {
			a.remove()
			time.Sleep(2 * time.Second)
			a.remake()
		}))
		if got, flaw := decode(a.secret().Data, nil, []string{dnsName}); flaw != nil || len(got) == 0 {
			t.Errorf("the Secret was not filled: %v", flaw)
		}
		cancel()
		must(t, <-done)
	})
}

// deafClock goes on, but the API server tells no time.
type deafClock struct{ fakeClock }

func (deafClock) Ask(context.Context) (time.Time, error) { return time.Time{}, errCut }

// TestUntold holds that nothing is written at a time that the API server has not
// told, while the certificate is looked after.
func TestUntold(t *testing.T) {
	a := newAPI(t)
	s := a.replica(0)
	must(t, s.sync(quiet(t)))
	before := s.leaf.Load()
	c := a.config()
	c.Webhooks[0].ClientConfig.CABundle = nil
	must(t, a.client.Update(t.Context(), c))
	secret, config := a.secret().ResourceVersion, a.config().ResourceVersion
	a.now = a.now.Add(45 * time.Second) // everything is due
	s.Clock = deafClock{fakeClock{a, 0}}
	if err := s.sync(quiet(t)); !errors.Is(err, errCut) {
		t.Errorf("got %v, want %v", err, errCut)
	}
	if a.secret().ResourceVersion != secret || a.config().ResourceVersion != config {
		t.Error("something was written")
	}
	if leaf := s.leaf.Load(); leaf == before || !valid(a.now, leaf.Leaf) {
		t.Error("the certificate was not renewed")
	}
}

// TestUnwritten holds that what is good in a Secret serves, even if the rest of it
// cannot be taken out.
func TestUnwritten(t *testing.T) {
	a := newAPI(t)
	must(t, a.replica(0).sync(quiet(t)))
	data := a.secret().Data
	for key, value := range authorityAt(t, a.now.Add(1000*time.Hour), time.Hour) {
		data[key] = append(data[key], value...)
	}
	a.fill(data)
	s := a.replica(1)
	s.Client = interceptor.NewClient(a.client, interceptor.Funcs{
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error { return errCut },
	})
	if err := s.sync(quiet(t)); !errors.Is(err, errCut) {
		t.Errorf("got %v, want %v", err, errCut)
	}
	if err := a.admit(s, a.config().Webhooks[0].ClientConfig.CABundle); err != nil {
		t.Error(err)
	}
}

// TestRace has two new replicas meet: both must end up with one CA.
func TestRace(t *testing.T) {
	a := newAPI(t)
	first, second := a.replica(0), a.replica(1)
	// The second one decided before the first one wrote: its cache is behind.
	second.Client = interceptor.NewClient(a.client, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			must(t, first.sync(ctx))
			return c.Update(ctx, obj, opts...)
		},
	})
	if err := second.sync(quiet(t)); !isRace(err) {
		t.Fatalf("got %v, want the refusal of the second write", err)
	}
	must(t, second.sync(quiet(t)))
	for i, s := range []*Self{first, second} {
		if err := a.admit(s, a.config().Webhooks[0].ClientConfig.CABundle); err != nil {
			t.Errorf("replica %d: %v", i, err)
		}
	}
	if n := len(parseCerts(a.secret().Data[dataCerts])); n != 1 {
		t.Errorf("%d CAs, want 1", n)
	}
}

// TestStart runs the loop: it bootstraps, retries after failures and ends.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		s := a.replica(0)
		a.cut[0] = true
		ctx, cancel := context.WithCancel(quiet(t))
		done := make(chan error)
		go func() { done <- s.Start(ctx) }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, err := s.GetCertificate(nil); err == nil {
			t.Error("a certificate without an API server")
		}
		a.cutOff(false)
		time.Sleep(maxRetry)
		synctest.Wait()
		if err := a.admit(s, a.config().Webhooks[0].ClientConfig.CABundle); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestNewSelfRefuses(t *testing.T) {
	good := newAPI(t).replica(0).Config
	tests := map[string]struct {
		spoil func(*Config)
		err   string
	}{
		"no client":      {func(c *Config) { c.Client = nil }, "certificates need a client, informers, a clock and an event recorder"},
		"no clock":       {func(c *Config) { c.Clock = nil }, "certificates need a client, informers, a clock and an event recorder"},
		"no name":        {func(c *Config) { c.DNSNames = nil }, "certificates need a namespace, the names of a secret and a webhook configuration, and a DNS name"},
		"short lifetime": {func(c *Config) { c.CertificateLifetime = time.Second }, "certificate lifetime 1s is below 10s"},
		"short CA":       {func(c *Config) { c.CALifetime = 40 * time.Second }, "CA lifetime 40s is below three times the certificate lifetime 20s"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := good
			tc.spoil(&c)
			if _, err := NewSelf(c); fmt.Sprint(err) != tc.err {
				t.Errorf("got %v, want %s", err, tc.err)
			}
		})
	}
}

// quiet keeps expected errors out of the output, and klog's flush goroutine out
// of synctest's bubbles.
func quiet(t *testing.T) context.Context {
	return klog.NewContext(t.Context(), logr.Discard())
}
