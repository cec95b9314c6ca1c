package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		reason string
		change func(t *testing.T, a *api)
		name   string
		clock  Clock
		err    string
	}{
		"trusted": {
			reason: "an API server would get through",
			name:   dnsName,
		},
		"other name": {
			reason: "API servers ask for the Service's name",
			name:   "other.elector-system.svc",
			err:    "not other.elector-system.svc",
		},
		"one bundle is foreign": {
			reason: "each webhook counts",
			name:   dnsName,
			change: func(t *testing.T, a *api) {
				c := a.config()
				c.Webhooks[1].ClientConfig.CABundle = encodeCert(cas(t, "0s")[0].cert)
				must(t, a.client.Update(t.Context(), c))
			},
			err: "webhook workloads.elector.io would not be reached: tls: failed to verify certificate",
		},
		"no bundle": {
			reason: "the API server would use its host's roots",
			name:   dnsName,
			change: func(t *testing.T, a *api) {
				c := a.config()
				c.Webhooks[0].ClientConfig.CABundle = nil
				must(t, a.client.Update(t.Context(), c))
			},
			err: "webhook pods.elector.io would not be reached: its caBundle holds no certificate",
		},
		"no webhooks": {
			reason: "nobody would call",
			name:   dnsName,
			change: func(t *testing.T, a *api) {
				c := a.config()
				c.Webhooks = nil
				must(t, a.client.Update(t.Context(), c))
			},
			err: "webhook configuration elector-webhook holds no webhook",
		},
		"clock ahead": {
			reason: "the API server's clock counts, which says that the certificate is not valid any more",
			name:   dnsName,
			change: func(_ *testing.T, a *api) { a.now = a.now.Add(time.Hour) },
			err:    "has expired",
		},
		"clock behind": {
			reason: "the same, not yet",
			name:   dnsName,
			change: func(_ *testing.T, a *api) { a.now = a.now.Add(-2 * time.Hour) },
			err:    "not yet valid",
		},
		"no clock": {
			reason: "the API server has not told its time yet",
			name:   dnsName,
			clock:  noClock{},
			err:    "cut off",
		},
		"no configuration": {
			reason: "nobody would call",
			name:   dnsName,
			change: func(t *testing.T, a *api) { must(t, a.client.Delete(t.Context(), a.config())) },
			err:    "not found",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			s := a.replica(0)
			must(t, s.sync(quiet(t)))
			if tc.change != nil {
				tc.change(t, a)
			}
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.TLS = &tls.Config{GetCertificate: s.GetCertificate}
			server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes
			server.StartTLS()
			defer server.Close()
			if tc.clock == nil {
				tc.clock = fakeClock{a, 0}
			}
			err := Check(a.client, tc.clock, "elector-webhook", server.Listener.Addr().String(), tc.name)(httptest.NewRequest(http.MethodGet, "/readyz", nil))
			switch {
			case tc.err == "" && err != nil:
				t.Errorf("%s: %v", tc.reason, err)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("%s: got %v, want %s", tc.reason, err, tc.err)
			}
		})
	}
}

// noClock was never told the time.
type noClock struct{}

func (noClock) Ask(context.Context) (time.Time, error) { return time.Time{}, errCut }
func (noClock) Now(context.Context) (time.Time, error) { return time.Time{}, errCut }

// TestPatchTouchesCABundleAlone holds what Helm and GitOps tools rely on.
func TestPatchTouchesCABundleAlone(t *testing.T) {
	a := newAPI(t)
	before := a.config()
	must(t, a.replica(0).sync(quiet(t)))
	after := a.config()
	for i := range after.Webhooks {
		after.Webhooks[i].ClientConfig.CABundle = nil
	}
	after.ResourceVersion = before.ResourceVersion
	old, err := client.MergeFrom(before).Data(after)
	must(t, err)
	if !bytes.Equal(old, []byte("{}")) {
		t.Errorf("changed besides the caBundle: %s", old)
	}
}
