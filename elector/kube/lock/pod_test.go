package lock

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	if uid, err := podUID(t.Context(), Server{URL: new(url.URL), Transport: &transport.Config{TLS: transport.TLSConfig{CAFile: "/none"}}}, "shop", "web-0"); uid != "" || err == nil {
		t.Errorf("without an authority: %q, %v", uid, err)
	}
}
