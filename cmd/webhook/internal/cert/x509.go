package cert

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// backdate is how far in the past certificates begin to be valid, so that an
// API server whose clock is behind accepts them.
const backdate = time.Hour

// authority is a CA with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// created is when the authority was made, recovered from its certificate so
// that all replicas reckon with the same moment: the whole second that follows.
func (a authority) created() time.Time { return made(a.cert) }

// made is when a certificate was made. A hand that makes a short-lived one does
// not backdate it.
func made(c *x509.Certificate) time.Time {
	if at := c.NotBefore.Add(backdate); at.Before(c.NotAfter) {
		return at
	}
	return c.NotBefore
}

func newAuthority(now time.Time, lifetime time.Duration) (authority, error) {
	key, serial, err := newKey()
	if err != nil {
		return authority{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "elector-webhook-ca"},
		NotBefore:             roundUp(now).Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := signed(template, template, key, key)
	if err != nil {
		return authority{}, fmt.Errorf("signing the CA: %w", err)
	}
	return authority{cert: cert, key: key}, nil
}

// roundUp returns the next whole second, which is all that certificates know. A
// time before would have a CA settle sooner than it was made known.
func roundUp(now time.Time) time.Time { return now.Add(time.Second - 1).Truncate(time.Second) }

// sign makes a serving certificate that does not outlive the authority.
func (a authority) sign(now time.Time, lifetime time.Duration, dnsNames []string) (*tls.Certificate, error) {
	until := now.Add(lifetime)
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	return a.issue(now.Add(-backdate), until, dnsNames)
}

func (a authority) issue(from, until time.Time, dnsNames []string) (*tls.Certificate, error) {
	key, serial, err := newKey()
	if err != nil {
		return nil, err
	}
	leaf, err := signed(&x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "elector-webhook"},
		DNSNames:     dnsNames,
		NotBefore:    from,
		NotAfter:     until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing the serving certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// prove returns an error unless an API server that trusts the authority would
// accept what it signs: a certificate says in many ways what it is not for. When
// it is valid does not matter here.
func (a authority) prove(dnsNames []string) error {
	leaf, err := a.issue(a.cert.NotBefore, a.cert.NotAfter, dnsNames)
	if err != nil {
		return err
	}
	return accepts([]*x509.Certificate{a.cert}, leaf.Leaf, a.cert.NotBefore, dnsNames)
}

// accepts returns an error unless an API server that trusts the bundle would
// accept the serving certificate at that time, by the first of its names.
func accepts(bundle []*x509.Certificate, leaf *x509.Certificate, now time.Time, dnsNames []string) error {
	roots := x509.NewCertPool()
	for _, c := range bundle {
		roots.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: dnsNames[0], Roots: roots, CurrentTime: now})
	return err
}

func newKey() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	// 127 bits: RFC 5280 allows 20 octets and asks for a positive number.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("making a serial number: %w", err)
	}
	return key, serial, nil
}

func signed(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// The keys of the Secret: certificates and keys as PEM.
const (
	dataCerts = "ca.crt"
	dataKeys  = "ca.key"
)

const (
	typeCertificate = "CERTIFICATE"
	typeKey         = "PRIVATE KEY"
)

func encode(authorities []authority) (map[string][]byte, error) {
	var certs, keys []byte
	for _, a := range authorities {
		der, err := x509.MarshalPKCS8PrivateKey(a.key)
		if err != nil {
			return nil, fmt.Errorf("encoding the CA key: %w", err)
		}
		certs = append(certs, encodeCert(a.cert)...)
		keys = append(keys, pem.EncodeToMemory(&pem.Block{Type: typeKey, Bytes: der})...)
	}
	return map[string][]byte{dataCerts: certs, dataKeys: keys}, nil
}

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: c.Raw})
}

// maxDecoded bounds the work that a Secret can make: it may be a megabyte.
const maxDecoded = 4 * maxAuthorities

// decode reads what encode wrote. Of anything else it returns the authorities
// that are of use, and an error that says what is wrong with the first that is
// not. Those in known are not proven again.
func decode(data map[string][]byte, known []authority, dnsNames []string) (out []authority, flaw error) {
	certs := parseCerts(data[dataCerts])
	pairs := 0
	for rest := data[dataKeys]; ; pairs++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if pairs == maxDecoded {
			return out, cmp.Or(flaw, fmt.Errorf("%s holds more than %d keys", dataKeys, maxDecoded))
		}
		a, err := pair(block.Bytes, certs)
		if err == nil && !holds(known, a) {
			err = a.prove(dnsNames)
		}
		if err != nil {
			flaw = cmp.Or(flaw, fmt.Errorf("key %d in %s: %w", pairs+1, dataKeys, err))
			continue
		}
		if !holds(out, a) {
			out = append(out, a)
		}
	}
	if len(out) == 0 || len(out) != len(certs) || len(out) != pairs {
		flaw = cmp.Or(flaw, errors.New(dataCerts+" and "+dataKeys+" do not hold the same number of certificates and keys, or none"))
	}
	return out, flaw
}

// pair finds the CA certificate for a key.
func pair(der []byte, certs []*x509.Certificate) (authority, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return authority{}, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return authority{}, fmt.Errorf("it is a %T, not an ECDSA key", parsed)
	}
	for _, c := range certs {
		if c.IsCA && key.PublicKey.Equal(c.PublicKey) {
			return authority{cert: c, key: key}, nil
		}
	}
	return authority{}, fmt.Errorf("it has no CA certificate in %s", dataCerts)
}

// parseCerts returns the certificates in a PEM bundle and passes over the rest.
func parseCerts(bundle []byte) []*x509.Certificate {
	var out []*x509.Certificate
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
