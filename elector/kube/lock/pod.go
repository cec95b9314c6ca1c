package lock

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/elector-io/elector/elector"
)

// The variables in which the downward API tells a Pod who it is.
const (
	// PodNameEnv holds the Pod's name; the webhook sets it in app containers too.
	PodNameEnv = "POD_NAME"
	// PodUIDEnv holds the Pod's UID.
	PodUIDEnv = "POD_UID"
)

// ServiceAccountDir is where the kubelet puts a pod's credentials.
const ServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// PodNamespace reads the namespace of the Pod that this process runs in.
func PodNamespace() (string, error) { return namespaceIn(ServiceAccountDir) }

func namespaceIn(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "namespace"))
	if err != nil {
		return "", fmt.Errorf("reading the pod's namespace: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// ErrNotInPod tells that there is no cluster around the process.
var ErrNotInPod = errors.New("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, as they are in a pod")

// InPod returns the API server of the cluster that this Pod runs in, to be asked
// with the Pod's own credentials, which are read anew as they change. Its error is
// ErrNotInPod outside a cluster.
func InPod(userAgent string) (Server, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return Server{}, ErrNotInPod
	}
	own, err := credentialsIn(ServiceAccountDir, host)
	if err != nil {
		return Server{}, fmt.Errorf("using the pod's service account: %w", err)
	}
	own.userAgent = userAgent
	return Server{URL: &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}, Connect: own.connect}, nil
}

// credentials are what the kubelet gives a Pod to know the API server, and to be
// known to it.
type credentials struct {
	tokenFile string
	ca        *authority // nil for the system's
	host      string     // whose certificate the API server has to show
	userAgent string
}

// credentialsIn reads what the kubelet puts into dir. Without a certificate authority
// the API server is known by those of the system, as client-go has it.
func credentialsIn(dir, host string) (credentials, error) {
	c := credentials{tokenFile: filepath.Join(dir, "token"), host: host}
	if _, err := os.ReadFile(c.tokenFile); err != nil {
		return credentials{}, err
	}
	file := filepath.Join(dir, "ca.crt")
	pool, err := authoritiesOf(file)
	if err != nil {
		klog.Background().Error(err, "the API server is trusted by the system's certificate authorities")
		return c, nil
	}
	c.ca = &authority{file: file, last: pool}
	return c, nil
}

// handshakeTimeout and idleTimeout are client-go's.
const handshakeTimeout, idleTimeout = 10 * time.Second, 90 * time.Second

// connect implements Connect.
func (c credentials) connect(dial DialFunc, wrap func(http.RoundTripper) http.RoundTripper) (http.RoundTripper, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, ForceAttemptHTTP2: true, IdleConnTimeout: idleTimeout, TLSHandshakeTimeout: handshakeTimeout,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, //nolint:gosec // verify does it: the authorities of a tls.Config can't be exchanged
			VerifyConnection:   c.verify,
		},
	}
	return &bearer{next: wrap(t), file: c.tokenFile, userAgent: c.userAgent}, nil
}

// verify tells whether the server of a new connection is who it has to be, by the
// authorities that are trusted now. It does what a tls.Config without
// InsecureSkipVerify has done, whose name of the server is empty for an IP address.
func (c credentials) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the API server shows no certificate")
	}
	options := x509.VerifyOptions{DNSName: c.host, Intermediates: x509.NewCertPool()}
	if c.ca != nil {
		options.Roots = c.ca.now()
	}
	for _, intermediate := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(intermediate)
	}
	_, err := state.PeerCertificates[0].Verify(options)
	return err
}

// authority knows the certificate authorities that a file names.
type authority struct {
	file string

	mu     sync.Mutex
	last   *x509.CertPool // those that could be read last
	faulty bool           // whether it was said that they can't be
}

// now returns the authorities that the file names, or the last ones that it did: it
// is of a ConfigMap that somebody may spoil.
func (a *authority) now() *x509.CertPool {
	pool, err := authoritiesOf(a.file)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.last = pool
	} else if !a.faulty {
		klog.Background().Error(err, "trusting the certificate authorities that were there before")
	}
	a.faulty = err != nil
	return a.last
}

func authoritiesOf(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("there is no certificate in %s", file)
	}
	return pool, nil
}

// tokenAge is how long a token is used before its file is read anew. The kubelet
// writes another when a fifth of the token's life is left, which is two minutes at
// least.
const tokenAge = time.Minute

// bearer says in each request who asks.
type bearer struct {
	next            http.RoundTripper
	file, userAgent string

	mu    sync.Mutex
	token string
	since time.Time // when it was read; zero for never
}

// RoundTrip implements http.RoundTripper.
func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := b.read()
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token)
	if b.userAgent != "" {
		req.Header.Set("User-Agent", b.userAgent)
	}
	return b.next.RoundTrip(req)
}

// read returns the token: of the file, or the last one that could be read.
func (b *bearer) read() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.token != "" && time.Since(b.since) < tokenAge {
		return b.token, nil
	}
	text, err := os.ReadFile(b.file)
	token := strings.TrimSpace(string(text))
	if err == nil && token == "" {
		err = fmt.Errorf("there is no token in %s", b.file)
	}
	switch {
	case err == nil:
		b.token, b.since = token, time.Now()
	case b.token == "":
		return "", fmt.Errorf("reading the pod's token: %w", err)
	}
	return b.token, nil
}

// ForPod returns a lock in this Pod's namespace, with this Pod as the candidate,
// for elector.Become and elector.Run; nil without an error outside a cluster. The
// Pod's name comes from PodNameEnv, its UID from PodUIDEnv; without the latter
// the Pod is read, which needs the permission to get pods. settings need the
// lock's name; what else they leave out is elector's default.
func ForPod(ctx context.Context, settings elector.Settings) (elector.Lock, error) {
	server, err := InPod("")
	if errors.Is(err, ErrNotInPod) {
		return nil, nil //nolint:nilnil // what elector.Become takes for "outside a cluster"
	}
	if err != nil {
		return nil, err
	}
	namespace, err := PodNamespace()
	if err != nil {
		return nil, err
	}
	return forPodIn(ctx, server, namespace, settings)
}

// forPodIn returns the lock of the Pod that the environment names.
func forPodIn(ctx context.Context, server Server, namespace string, settings elector.Settings) (_ elector.Lock, err error) {
	name := os.Getenv(PodNameEnv)
	if name == "" {
		return nil, fmt.Errorf("%s is not set: set it to metadata.name by the downward API", PodNameEnv)
	}
	uid := os.Getenv(PodUIDEnv)
	if uid == "" {
		if uid, err = podUID(ctx, server, namespace, name); err != nil {
			return nil, err
		}
	}
	return New(server, Config{Candidate: elector.Description{
		Settings: settings, Namespace: namespace, Identity: elector.Identity(name, uid),
	}})
}

func podUID(ctx context.Context, server Server, namespace, name string) (string, error) {
	pods, err := newAPI(server, "v1", namespace, "pods", nil)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	text, err := pods.ask(ctx, request{method: http.MethodGet, name: name})
	var pod object
	if err == nil {
		err = json.Unmarshal(text, &pod)
	}
	if err != nil {
		return "", fmt.Errorf("reading the pod for its UID (or set %s by the downward API): %w", PodUIDEnv, err)
	}
	return pod.Metadata.UID, nil
}
