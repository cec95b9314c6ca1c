package cert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// handshakeTimeout bounds the check. The handshake is with this very process, but
// a replica that is merely starved of CPU had better stay in service.
const handshakeTimeout = 5 * time.Second

// Check returns a readiness check that passes when an API server would get
// through: something listens on address and shows a certificate for serverName
// that each caBundle of the live MutatingWebhookConfiguration trusts, at the time
// that the clock tells. reader may be a cache. It does not show that the Service
// leads here.
func Check(reader client.Reader, clock Clock, configuration, address, serverName string) func(*http.Request) error {
	return func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), handshakeTimeout)
		defer cancel()
		var config admissionregistrationv1.MutatingWebhookConfiguration
		if err := reader.Get(ctx, client.ObjectKey{Name: configuration}, &config); err != nil {
			return fmt.Errorf("reading the webhook configuration: %w", err)
		}
		if len(config.Webhooks) == 0 {
			return fmt.Errorf("webhook configuration %s holds no webhook", configuration)
		}
		now, err := clock.Now(ctx)
		if err != nil {
			return err
		}
		checked := map[string]bool{}
		for _, w := range config.Webhooks {
			bundle := w.ClientConfig.CABundle
			if checked[string(bundle)] {
				continue
			}
			checked[string(bundle)] = true
			if err := handshake(ctx, now, address, serverName, bundle); err != nil {
				return fmt.Errorf("webhook %s would not be reached: %w", w.Name, err)
			}
		}
		return nil
	}
}

func handshake(ctx context.Context, now time.Time, address, serverName string, bundle []byte) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("its caBundle holds no certificate")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" {
		host = "localhost"
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: serverName, Time: func() time.Time { return now }}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	return conn.Close()
}
