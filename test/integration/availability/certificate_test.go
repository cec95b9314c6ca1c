//go:build integration

package availability

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Certificates and CAs are renewed, again and again, and no admission fails: neither those of the API server, whose connections outlive
// a certificate, nor those of one that connects anew each time.
func TestRotation(t *testing.T) {
	t.Parallel()
	i := install(t, "certificate.lifetime=15s", "certificate.caLifetime=45s")
	bundles := i.watchBundles()
	first := bundles.latest()
	created := i.create()
	anew, served := i.call(bundles)
	eventually(t, "a rotation of the CA", func(context.Context) error {
		for _, now := range parse(bundles.latest()) {
			if slices.ContainsFunc(parse(first), now.Equal) {
				return errors.New("the first CA is still trusted")
			}
		}
		return nil
	})
	created.more()
	anew.more()
	created.stopSound("through the API server")
	anew.stopSound("over new connections")
	t.Logf("%d CAs published, %d certificates served", bundles.authorities(), served.count())
	// The first certificates of both replicas, and at least one more of each.
	if served.count() < 4 || bundles.authorities() < 2 {
		t.Error("there was nothing to survive")
	}
}

// lag is how late an API server is that hears of a changed configuration late. What Self promises allows a tenth of the certificate's
// lifetime, which is more than a second here.
const lag = 300 * time.Millisecond

// bundles follows the caBundle, as an API server does.
type bundles struct {
	mu   sync.Mutex
	all  []published // one after the other
	seen map[string]bool
}

type published struct {
	at     time.Time
	bundle []byte
}

func (b *bundles) latest() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all[len(b.all)-1].bundle
}

// late is what an API server knows that is behind.
func (b *bundles) late() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.all) - 1
	for n > 0 && time.Since(b.all[n].at) < lag {
		n--
	}
	return b.all[n].bundle
}

func (b *bundles) authorities() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

func (b *bundles) see(config *admissionregistrationv1.MutatingWebhookConfiguration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bundle := config.Webhooks[0].ClientConfig.CABundle
	b.all = append(b.all, published{time.Now(), bundle})
	for _, c := range parse(bundle) {
		b.seen[string(c.Raw)] = true
	}
}

// watchBundles follows until the test ends.
func (i *installation) watchBundles() *bundles {
	i.t.Helper()
	config, err := i.configuration(i.t.Context())
	if err != nil {
		i.t.Fatal(err)
	}
	b := &bundles{seen: map[string]bool{}}
	b.see(config)
	watch, err := cluster.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Watch(i.t.Context(),
		metav1.ListOptions{FieldSelector: "metadata.name=" + i.name, ResourceVersion: config.ResourceVersion})
	if err != nil {
		i.t.Fatal(err)
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for event := range watch.ResultChan() {
			if config, ok := event.Object.(*admissionregistrationv1.MutatingWebhookConfiguration); ok {
				b.see(config)
			}
		}
	})
	i.t.Cleanup(func() {
		watch.Stop()
		watching.Wait()
	})
	return b
}

// call sends reviews to the replicas that there are now, each over a connection of its own, as API servers do that hear of a changed
// caBundle at once or late.
func (i *installation) call(trusted *bundles) (tr *traffic, served *serials) {
	i.t.Helper()
	replicas := i.awaitReplicas(2)
	host := i.name + "." + i.name + ".svc"
	object, err := json.Marshal(i.gated(asking()))
	if err != nil {
		i.t.Fatal(err)
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Operation: admissionv1.Create, Namespace: i.apps, Object: runtime.RawExtension{Raw: object},
			Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		},
	})
	if err != nil {
		i.t.Fatal(err)
	}
	served = &serials{seen: map[string]bool{}, last: map[string]string{}}
	tr = start(i.t, 2, func(ctx context.Context, n int) error {
		roots, bundle := x509.NewCertPool(), trusted.latest()
		replica := &replicas[n%len(replicas)]
		if n/len(replicas)%2 == 1 {
			bundle = trusted.late()
		}
		roots.AppendCertsFromPEM(bundle)
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, net.JoinHostPort(wire(replica), "9443"))
			},
			DisableKeepAlives: true,
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/mutate-pod", bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(response.Body).Decode(&review); err != nil {
			return err
		}
		if review.Response == nil || !review.Response.Allowed || len(review.Response.Patch) == 0 {
			return fmt.Errorf("answered %s with %v", response.Status, review.Response)
		}
		served.add(replica.Name, response.TLS.PeerCertificates[0].SerialNumber.String())
		return nil
	})
	return tr, served
}

// serials are the numbers of the certificates that were served.
type serials struct {
	mu   sync.Mutex
	seen map[string]bool
	last map[string]string // by replica
}

func (s *serials) add(replica, serial string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[serial], s.last[replica] = true, serial
}

func (s *serials) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// everywhere tells whether that one is what every replica serves now.
func (s *serials) everywhere(serial string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, last := range s.last {
		if last != serial {
			return false
		}
	}
	return len(s.last) > 1
}

// The manager gets over the loss of its CA, and over whatever somebody does to its Secret or to the caBundle.
func TestRecovery(t *testing.T) {
	t.Parallel()
	i := install(t)
	ca := i.name + "-ca"
	now := time.Now()
	expired, stranger, newer := makeCA(t, now.Add(-time.Hour)), makeCA(t, now.Add(time.Hour)), makeCA(t, now.Add(23*time.Hour))
	future, soon := makeCA(t, now.AddDate(2, 0, 0)), makeCA(t, now.Add(25*time.Hour))
	many := stranger
	for range 99 {
		many.others = append(many.others, makeCA(t, now.Add(23*time.Hour)))
	}
	const written, mended = "wrote the CAs", "the Secret is not as it should be and will be mended"
	tests := []struct {
		what string
		// harm is what somebody does.
		harm func()
		// says is what a replica then logs.
		says string
		// sound means that no admission fails.
		sound bool
	}{
		{"Secret deleted", func() { i.changeSecret(ca, nil) }, "kubectl -n " + i.name + " create secret generic " + ca, true},
		{"Secret made anew", func() { i.kubectl("create", "secret", "generic", ca) }, written, true},
		{"Secret filled with garbage", func() { i.changeSecret(ca, map[string][]byte{"ca.crt": []byte("gar"), "ca.key": []byte("bage")}) }, mended, true},
		{"Secret filled with much garbage", func() { i.changeSecret(ca, map[string][]byte{"ca.crt": bytes.Repeat(stranger.bundle()[:100], 5000)}) }, mended, true},
		{"Secret emptied", func() { i.changeSecret(ca, map[string][]byte{}) }, written, true},
		{"Secret filled with an expired CA", func() { i.changeSecret(ca, expired.secret(t)) }, written, true},
		{"Secret filled with a CA from the future", func() { i.changeSecret(ca, future.secret(t)) }, "a CA is from the future and will be dropped", true},
		{"Secret filled with a CA that is valid in an hour", func() { i.changeSecret(ca, soon.secret(t)) }, "a CA is from the future and will be dropped", true},
		{"Secret filled with another CA", func() { i.changeSecret(ca, stranger.secret(t)) }, written, true},
		{"Secret filled with another CA that is newer", func() { i.changeSecret(ca, newer.secret(t)) }, written, true},
		{"Secret filled with another's key", func() { i.changeSecret(ca, authority{cert: stranger.cert, key: newer.key}.secret(t)) }, mended, true},
		{"Secret filled with 100 CAs", func() { i.changeSecret(ca, many.secret(t)) }, mended, true},
		{"caBundle wiped", func() { i.setBundle(nil) }, "wrote the caBundle", false},
		{"caBundle replaced", func() { i.setBundle(stranger.bundle()) }, "wrote the caBundle", false},
	}
	for _, test := range tests {
		said, err := i.logged(t.Context(), test.says)
		if err != nil {
			t.Fatal(err)
		}
		bundles := i.watchBundles()
		created := i.create()
		anew, _ := i.call(bundles)
		created.more()
		anew.more()
		begun := time.Now()
		test.harm()
		i.awaitLogged(test.says, said, 1)
		if test.what != "Secret deleted" { // which the manager leaves to a person
			eventually(t, test.what+": a usable CA", i.consistent)
		}
		created.more()
		anew.more()
		if test.sound {
			created.stopSound(test.what)
			anew.stopSound(test.what + ", over new connections")
			continue
		}
		failures := created.stop(test.what)
		outage := time.Duration(0)
		for _, f := range failures {
			outage = max(outage, f.ended.Sub(begun))
		}
		t.Logf("%s: the last failed creation ended %s after", test.what, outage.Round(time.Millisecond))
		for _, f := range append(failures, anew.stop(test.what+", over new connections")...) {
			if !strings.Contains(f.err.Error(), "x509: ") && !strings.Contains(f.err.Error(), "tls: ") {
				t.Errorf("%s: %v", test.what, f.err)
			}
		}
	}
}

// changeSecret gives a Secret other data, or deletes it.
func (i *installation) changeSecret(name string, data map[string][]byte) {
	i.t.Helper()
	secrets := cluster.Client().CoreV1().Secrets(i.name)
	if data == nil {
		if err := secrets.Delete(i.t.Context(), name, metav1.DeleteOptions{}); err != nil {
			i.t.Fatal(err)
		}
		return
	}
	patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/data", "value": data}})
	if err != nil {
		i.t.Fatal(err)
	}
	if _, err := secrets.Patch(i.t.Context(), name, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		i.t.Fatal(err)
	}
}

// consistent returns an error unless the caBundle has the CA that the Secret has.
func (i *installation) consistent(ctx context.Context) error {
	secret, err := cluster.Client().CoreV1().Secrets(i.name).Get(ctx, i.name+"-ca", metav1.GetOptions{})
	if err != nil {
		return err
	}
	config, err := i.configuration(ctx)
	if err != nil {
		return err
	}
	authorities := parse(secret.Data["ca.crt"])
	if len(authorities) == 0 || time.Now().After(authorities[0].NotAfter) || time.Now().Before(authorities[0].NotBefore) {
		return errors.New("the Secret holds no valid CA")
	}
	for _, w := range config.Webhooks {
		trusted := false
		for _, c := range parse(w.ClientConfig.CABundle) {
			trusted = trusted || c.Equal(authorities[0])
		}
		if !trusted {
			return fmt.Errorf("webhook %s does not trust the newest CA", w.Name)
		}
	}
	return nil
}

func parse(bundle []byte) (out []*x509.Certificate) {
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return out
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
}

// authority is a CA that has nothing to do with the manager's own.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	others []authority // in the same Secret
}

func makeCA(t *testing.T, until time.Time) authority {
	t.Helper()
	key := makeKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(until.UnixNano()), Subject: pkix.Name{CommonName: "stranger"}, NotBefore: until.Add(-24 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	return authority{cert: sign(t, template, template, key, key), key: key}
}

func makeKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a authority) bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func encodeKey(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// secret is the CA in the form of the manager's Secret.
func (a authority) secret(t *testing.T) map[string][]byte {
	t.Helper()
	data := map[string][]byte{"ca.crt": a.bundle(), "ca.key": encodeKey(t, a.key)}
	for _, other := range a.others {
		data["ca.crt"], data["ca.key"] = append(data["ca.crt"], other.bundle()...), append(data["ca.key"], encodeKey(t, other.key)...)
	}
	return data
}

// issue makes a serving certificate, in the form of a Secret.
func (a authority) issue(t *testing.T, host string, number int64) map[string][]byte {
	t.Helper()
	key := makeKey(t)
	leaf := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(number), DNSNames: []string{host}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key, a.key)
	return map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}),
		corev1.TLSPrivateKeyKey: encodeKey(t, key),
	}
}

// Certificates that somebody else makes are renewed in their Secret, and so is their CA, and no admission fails. A Secret that is spoilt
// does no harm while its last good certificate is valid.
func TestFiles(t *testing.T) {
	t.Parallel()
	i := prepare(t)
	host, name := i.name+"."+i.name+".svc", i.name+"-tls"
	old, next := makeCA(t, time.Now().Add(time.Hour)), makeCA(t, time.Now().Add(2*time.Hour))
	if _, err := cluster.Client().CoreV1().Secrets(i.name).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: old.issue(t, host, 1),
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	i.helm("install", "certificate.mode=secret", "certificate.caBundle="+string(old.bundle()))
	replicas := i.awaitReplicas(2)
	created := i.create()
	bundles := i.watchBundles()
	anew, served := i.call(bundles)
	for _, step := range []struct {
		what   string
		change func()
		serial string // then served by both
		logged string // then, by both
	}{
		{"the certificate is renewed", func() { i.changeSecret(name, old.issue(t, host, 2)) }, "2", "serving a new certificate"},
		{"the next CA is published", func() { i.setBundle(append(old.bundle(), next.bundle()...)) }, "2", ""},
		{"the next CA has signed", func() { i.changeSecret(name, next.issue(t, host, 3)) }, "3", "serving a new certificate"},
		{"the old CA is gone", func() { i.setBundle(next.bundle()) }, "3", ""},
		{"the Secret is spoilt", func() { i.changeSecret(name, map[string][]byte{corev1.TLSCertKey: nil}) }, "3", "cannot read the serving certificate"},
		{"the Secret is good again", func() { i.changeSecret(name, next.issue(t, host, 4)) }, "4", "serving a new certificate"},
	} {
		said, err := i.logged(t.Context(), step.logged)
		if err != nil {
			t.Fatal(err)
		}
		anew.more()
		begun := time.Now()
		step.change()
		if step.logged != "" {
			i.awaitLogged(step.logged, said, len(replicas))
		}
		t.Logf("%s: noticed %s after", step.what, time.Since(begun).Round(time.Millisecond))
		anew.more()
		if !served.everywhere(step.serial) {
			t.Errorf("%s: certificate %s is not served everywhere", step.what, step.serial)
		}
	}
	created.more()
	created.stopSound("through the API server")
	anew.stopSound("over new connections")
	i.awaitReplicas(2)
}

// A replica is ready only while the live configuration trusts its certificate.
func TestTrust(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.awaitReady(2)
	roles := cluster.Client().RbacV1().ClusterRoles()
	mayWrite := func(may bool) {
		t.Helper()
		role, err := roles.Get(t.Context(), i.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for n := range role.Rules {
			if rule := &role.Rules[n]; rule.APIGroups[0] == admissionregistrationv1.GroupName {
				rule.Verbs = []string{"get", "list", "watch"}
				if may {
					rule.Verbs = append(rule.Verbs, "patch")
				}
			}
		}
		if _, err := roles.Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mayWrite(false)
	begun := time.Now()
	i.setBundle(makeCA(t, time.Now().Add(time.Hour)).bundle())
	i.awaitReady(0)
	t.Logf("not ready %s after the trust was lost", time.Since(begun).Round(time.Millisecond))
	eventually(t, "the reason", func(ctx context.Context) error {
		events, err := cluster.Client().CoreV1().Events(i.name).List(ctx, metav1.ListOptions{FieldSelector: "reason=Unhealthy"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, "certificate") {
				return nil
			}
		}
		return fmt.Errorf("not among %d Events", len(events.Items))
	})
	i.awaitLogged("cannot keep certificates right", 0, 1)
	if err := i.createPod(t.Context(), false); err == nil {
		t.Error("a pod was admitted by a manager that nobody trusts")
	}
	begun = time.Now()
	mayWrite(true)
	i.awaitReady(2)
	t.Logf("ready %s after the manager was allowed to repair the caBundle", time.Since(begun).Round(time.Millisecond))
	eventually(t, "an admission", func(ctx context.Context) error { return i.createPod(ctx, false) })
}
