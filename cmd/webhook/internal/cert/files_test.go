package cert

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// writePair writes a fresh serving certificate into dir and returns its serial
// number.
func writePair(t *testing.T, dir string) string {
	t.Helper()
	now := time.Now()
	ca, err := newAuthority(now, time.Hour)
	must(t, err)
	leaf, err := ca.sign(now, time.Hour, []string{dnsName})
	must(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	must(t, err)
	write(t, dir, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: leaf.Certificate[0]})))
	write(t, dir, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: typeKey, Bytes: key})))
	return leaf.Leaf.SerialNumber.String()
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	f := NewFiles(dir)
	serves := func(want string) {
		t.Helper()
		leaf, err := f.GetCertificate(nil)
		switch {
		case want == "" && err == nil:
			t.Error("serves a certificate, want none")
		case want != "" && err != nil:
			t.Error(err)
		case want != "" && leaf.Leaf.SerialNumber.String() != want:
			t.Error("serves another certificate than the last good one")
		}
	}

	if _, err := f.load(); err == nil {
		t.Error("an empty directory is no error")
	}
	serves("")

	first := writePair(t, dir)
	if changed, err := f.load(); err != nil || !changed {
		t.Errorf("changed %v, %v", changed, err)
	}
	serves(first)
	if changed, err := f.load(); err != nil || changed {
		t.Errorf("unchanged files: changed %v, %v", changed, err)
	}

	write(t, dir, "tls.key", "garbage")
	if _, err := f.load(); err == nil {
		t.Error("garbage is no error")
	}
	serves(first)

	second := writePair(t, dir)
	if changed, err := f.load(); err != nil || !changed {
		t.Errorf("changed %v, %v", changed, err)
	}
	serves(second)
}

// TestExpiry holds that the metric says what is served at the moment.
func TestExpiry(t *testing.T) {
	dir := t.TempDir()
	f := NewFiles(dir)
	registry := prometheus.NewRegistry()
	registry.MustRegister(Expiry(f.GetCertificate))
	value := func() float64 {
		t.Helper()
		families, err := registry.Gather()
		must(t, err)
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}
	if got := value(); got != 0 {
		t.Errorf("%v without a certificate, want 0", got)
	}
	writePair(t, dir)
	if _, err := f.load(); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(time.Unix(int64(value()), 0)); left < 50*time.Minute || left > time.Hour {
		t.Errorf("the certificate of an hour has %s left", left)
	}
}
