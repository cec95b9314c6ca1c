package cert

import (
	"crypto/tls"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestServedWaits holds that who connects to a process that has just started is
// not turned away, and does not wait forever.
func TestServedWaits(t *testing.T) {
	tests := map[string]struct {
		reason string
		hello  *tls.ClientHelloInfo
		after  time.Duration // when there is a certificate; 0 is never
		want   time.Duration // how long the wait is
		err    error
	}{
		"soon":            {"an API server waits", &tls.ClientHelloInfo{}, time.Second, time.Second, nil},
		"never":           {"connections must not pile up", &tls.ClientHelloInfo{}, 0, firstCertificateWait, errNoCertificate},
		"without a hello": {"nobody connects: a metric asks", nil, time.Second, 0, errNoCertificate},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, leaf := newServed(), &tls.Certificate{}
				if tc.after > 0 {
					time.AfterFunc(tc.after, func() { s.store(leaf) })
				}
				begun := time.Now()
				got, err := s.GetCertificate(tc.hello)
				if !errors.Is(err, tc.err) || (err == nil) != (got == leaf) || time.Since(begun) != tc.want {
					t.Errorf("%s: got %v, %v after %s, want error %v after %s", tc.reason, got, err, time.Since(begun), tc.err, tc.want)
				}
			})
		})
	}
}
