package lock

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/transport"

	"github.com/elector-io/elector/elector"
)

// TestForPodOutside runs where there is no Pod's ServiceAccount.
func TestForPodOutside(t *testing.T) {
	if _, err := os.Stat(ServiceAccountDir); err == nil {
		t.Skip("this is a Pod")
	}
	settings := elector.Settings{Lock: testLock}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if lock, err := ForPod(t.Context(), settings); lock != nil || err != nil {
		t.Errorf("outside a cluster: %v, %v", lock, err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if lock, err := ForPod(t.Context(), settings); lock != nil || err == nil || !strings.Contains(err.Error(), "using the pod's service account") {
		t.Errorf("in a Pod without a ServiceAccount: %v, %v", lock, err)
	}
	if namespace, err := PodNamespace(); namespace != "" || err == nil {
		t.Errorf("the namespace is %q, %v", namespace, err)
	}
}

func TestNamespaceIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "namespace"), []byte("shop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := namespaceIn(dir); got != "shop" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestForPodIn finds out who the Pod is: from its environment, and if need be from the API server.
func TestForPodIn(t *testing.T) {
	const pod = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-0","namespace":"shop","uid":"u7"},"spec":{}}`
	for name, tc := range map[string]struct {
		reason, podName, uid string
		answer               reply
		identity, err        string
		asked                []string
	}{
		"all is told":   {reason: "the API server is not asked", podName: "web-0", uid: "u0", identity: "web-0_u0"},
		"no UID":        {reason: "the Pod is read", podName: "web-0", answer: reply{code: http.StatusOK, body: pod}, identity: "web-0_u7", asked: []string{"GET /api/v1/namespaces/shop/pods/web-0"}},
		"no permission": {reason: "the way out is named", podName: "web-0", answer: failure(http.StatusForbidden, "Forbidden"), err: "(or set POD_UID by the downward API)", asked: []string{"GET /api/v1/namespaces/shop/pods/web-0"}},
		"no name":       {reason: "the way out is named", uid: "u0", err: "POD_NAME is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(PodNameEnv, tc.podName)
			t.Setenv(PodUIDEnv, tc.uid)
			s := &script{answers: []reply{tc.answer}}
			lock, err := forPodIn(t.Context(), serverOf("http://api", s), "shop", elector.Settings{Lock: testLock, Mode: elector.ModeLeaderForLife})
			if diff := cmp.Diff(tc.asked, s.asked); diff != "" {
				t.Errorf("%s; asked (-want +got):\n%s", tc.reason, diff)
			}
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || lock != nil {
					t.Errorf("got %v, %v; want %q", lock, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := elector.Description{Settings: elector.Settings{Lock: testLock, Mode: elector.ModeLeaderForLife}, Namespace: "shop", Identity: tc.identity}.WithDefaults()
			if diff := cmp.Diff(want, lock.Describe()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestPodUIDIsReadInTime holds that reading the Pod does not hang.
func TestPodUIDIsReadInTime(t *testing.T) {
	s := &script{answers: []reply{failure(http.StatusForbidden, "Forbidden")}}
	if uid, err := podUID(t.Context(), serverOf("http://api", s), "shop", "web-0"); uid != "" || err == nil {
		t.Errorf("got %q, %v", uid, err)
	}
	if within := s.within[0]; within <= 0 || within > readTimeout {
		t.Errorf("it might take %v", within)
	}
	if uid, err := podUID(t.Context(), Server{URL: new(url.URL), Connect: clientGo(&transport.Config{TLS: transport.TLSConfig{CAFile: "/none"}})}, "shop", "web-0"); uid != "" || err == nil {
		t.Errorf("without an authority: %q, %v", uid, err)
	}
}

// TestCredentials changes what the kubelet put into the Pod: each connection trusts the authority of its time, and the token is that of the file.
func TestCredentials(t *testing.T) {
	var tokens []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, r.Header.Get("Authorization"))
		if r.UserAgent() != "elector/v1" {
			t.Errorf("it says that it is %q", r.UserAgent())
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes
	dir := t.TempDir()
	put := func(name, content string) { writeFile(t, filepath.Join(dir, name), content) }
	own := certificateOf(server)
	put("ca.crt", own)
	put("token", "t0")
	c, err := credentialsIn(dir, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c.userAgent = "elector/v1"
	at := serverOf(server.URL, nil)
	at.Connect = c.connect
	var pods [3]api // each has a connection of its own
	for i := range pods {
		if pods[i], err = newAPI(at, "v1", "shop", "pods", nil); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(i int) error {
		_, err := pods[i].ask(t.Context(), request{method: http.MethodGet, name: "web-0"})
		return err
	}
	put("token", "t1")
	put("ca.crt", another(t))
	if err := ask(0); err == nil || len(tokens) != 0 {
		t.Errorf("the authority was exchanged before the first connection: %v", err)
	}
	put("ca.crt", own)
	if err := ask(0); err != nil {
		t.Error(err)
	}
	put("ca.crt", another(t))
	if err := ask(0); err != nil {
		t.Errorf("over the connection that there is: %v", err)
	}
	if err := ask(1); err == nil {
		t.Error("a new connection trusts an authority that was exchanged")
	}
	put("ca.crt", own)
	if err := ask(1); err != nil {
		t.Error(err)
	}
	put("ca.crt", "no certificate")
	if err := ask(2); err != nil {
		t.Errorf("the authority was spoilt, the last one counts: %v", err)
	}
	if diff := cmp.Diff([]string{"Bearer t1", "Bearer t1", "Bearer t1", "Bearer t1"}, tokens); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if c, err := credentialsIn(dir, "127.0.0.1"); err != nil || c.ca != nil {
		t.Errorf("a Pod without a certificate: %+v, %v", c, err)
	}
	if err := os.Remove(filepath.Join(dir, "token")); err != nil {
		t.Fatal(err)
	}
	if _, err := credentialsIn(dir, "127.0.0.1"); err == nil {
		t.Error("a Pod without a token is somebody")
	}
}

// TestVerify shows the certificate of the test server, which is for 127.0.0.1, to Pods that look for others.
func TestVerify(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	dir := podDir(t, server)
	shown := tls.ConnectionState{PeerCertificates: []*x509.Certificate{server.Certificate()}}
	for name, tc := range map[string]struct {
		reason, host string
		state        tls.ConnectionState
		trusted      bool
	}{
		"its address":     {"what KUBERNETES_SERVICE_HOST is in a Pod", "127.0.0.1", shown, true},
		"its name":        {"a name will do", "example.com", shown, true},
		"another address": {"somebody with a certificate of the same authority", "127.0.0.2", shown, false},
		"another name":    {"the same", "example.org", shown, false},
		"none":            {"nobody", "127.0.0.1", tls.ConnectionState{}, false},
	} {
		c, err := credentialsIn(dir, tc.host)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.verify(tc.state); (err == nil) != tc.trusted {
			t.Errorf("%s (%s): %v", name, tc.reason, err)
		}
	}
	c, err := credentialsIn(dir, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c.ca = nil
	if err := c.verify(shown); err == nil {
		t.Error("the system trusts a test server")
	}
}

// TestCredentialsThroughProxy exchanges the authority behind a proxy.
func TestCredentialsThroughProxy(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.StartTLS()
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		there, err := new(net.Dialer).DialContext(r.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(there, here)
			_ = there.Close()
		}()
		_, _ = io.Copy(here, there)
		_ = here.Close()
	}))
	defer proxy.Close()
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name, content string) { writeFile(t, filepath.Join(dir, name), content) }
	put("token", "t0")
	put("ca.crt", another(t))
	c, err := credentialsIn(dir, "example.com") // a proxy is not asked for addresses of this machine
	if err != nil {
		t.Fatal(err)
	}
	at := serverOf("https://example.com", nil)
	at.Connect = func(dial DialFunc, wrap func(http.RoundTripper) http.RoundTripper) (http.RoundTripper, error) {
		return c.connect(dial, func(rt http.RoundTripper) http.RoundTripper {
			rt.(*http.Transport).Proxy = http.ProxyURL(through)
			return wrap(rt)
		})
	}
	pods, err := newAPI(at, "v1", "shop", "pods", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		_, err := pods.ask(t.Context(), request{method: http.MethodGet, name: "web-0"})
		return err
	}
	if err := ask(); err == nil {
		t.Error("another's authority is trusted")
	}
	put("ca.crt", certificateOf(server))
	if err := ask(); err != nil {
		t.Errorf("after the authority was exchanged: %v", err)
	}
}

// TestBearer exchanges the token's file while requests are made.
func TestBearer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		put := func(content string) { writeFile(t, file, content) }
		var sent string
		b := &bearer{file: file, next: roundTrip(func(req *http.Request) (*http.Response, error) {
			sent = req.Header.Get("Authorization")
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})}
		body := &closing{Reader: strings.NewReader("{}")}
		ask := func() error {
			req := newRequest(t.Context(), t, http.MethodPut, "http://api/", body)
			res, err := b.RoundTrip(req)
			if err == nil {
				_ = res.Body.Close()
			}
			if len(req.Header) > 0 {
				t.Errorf("the caller's request is changed: %v", req.Header)
			}
			return err
		}
		if err := ask(); !errors.Is(err, fs.ErrNotExist) || !body.closed {
			t.Errorf("without a file: %v; its body is closed: %v", err, body.closed)
		}
		put(" ")
		if err := ask(); err == nil || !strings.Contains(err.Error(), "there is no token in "+file) {
			t.Errorf("an empty file: %v", err)
		}
		for _, step := range []struct {
			reason, file string
			after        time.Duration
			want         string
		}{
			{"it is read when it is needed", "t0\n", 0, "Bearer t0"},
			{"for a minute", "t1", time.Minute - 1, "Bearer t0"},
			{"then anew", "t1", 1, "Bearer t1"},
			{"the last one counts if there is none", "", time.Hour, "Bearer t1"},
			{"until there is", "t2", 0, "Bearer t2"},
		} {
			put(step.file)
			time.Sleep(step.after)
			if err := ask(); err != nil || sent != step.want {
				t.Errorf("%s: sent %q, %v; want %q", step.reason, sent, err, step.want)
			}
		}
	})
}

// podDir is what the kubelet puts into a Pod whose API server is the given one.
func podDir(t *testing.T, server *httptest.Server) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "ca.crt"), certificateOf(server))
	writeFile(t, filepath.Join(dir, "token"), "t0")
	return dir
}

func writeFile(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func certificateOf(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// another returns a certificate authority that nobody's certificate is of.
func another(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
