package cert

import (
	"bytes"
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
	"slices"
	"time"
)

// backdate is how far in the past certificates begin to be valid, so that an
// API server whose clock is behind accepts them.
const backdate = time.Hour

// maxSettle bounds lifetimes.settle: API servers see a changed configuration
// within a second, ten minutes forgive one that was cut off for a while.
const maxSettle = 10 * time.Minute

// authority is a CA with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// created is when the authority was made, recovered from its certificate so
// that all replicas reckon with the same moment: the whole second that follows.
func (a authority) created() time.Time { return a.cert.NotBefore.Add(backdate) }

// lifetimes holds the durations all decisions about certificates rest on.
type lifetimes struct {
	ca, leaf time.Duration
	// shortest is the life of the CA in use that lives shortest; 0 for none. It was
	// made by replicas with another configuration if it lives shorter than ca.
	shortest time.Duration
}

// with returns the lifetimes with what is known of the CAs in use.
func (l lifetimes) with(authorities []authority) lifetimes {
	l.shortest = 0
	for _, a := range authorities {
		if life := a.cert.NotAfter.Sub(a.created()); l.shortest == 0 || life < l.shortest {
			l.shortest = life
		}
	}
	return l
}

// settle is how long a new CA is published before it signs, so that every API
// server trusts it by then. Beside a CA that ends soon there is less time: a
// third of its life is left when it is replaced.
func (l lifetimes) settle() time.Duration {
	settle := min(maxSettle, l.leaf/10)
	if l.shortest > 0 {
		settle = min(settle, l.shortest/30) // the same, as a CA lives three times as long as what it signs
	}
	return settle
}

// rest is how long nobody has to look at the clock.
func (l lifetimes) rest() time.Duration { return min(maxRest, max(time.Second, l.settle()/2)) }

// settled reports whether an authority is old enough, and has been published for
// long enough, for every API server to trust it by now.
func (l lifetimes) settled(now time.Time, a authority, live published) bool {
	since, trusted := live[string(a.cert.Raw)]
	return trusted && now.Sub(since) >= l.settle() && now.Sub(a.created()) >= l.settle()
}

// published maps the certificates in the live caBundle, in DER, to the time from
// which a process has known them there: the zero time for those that it found.
type published map[string]time.Time

// update returns what is published when the caBundle is the given one at a time.
func (p published) update(bundle []*x509.Certificate, at time.Time) published {
	next := published{}
	for _, c := range bundle {
		since, known := p[string(c.Raw)]
		if !known && p != nil {
			since = at
		}
		next[string(c.Raw)] = since
	}
	return next
}

// overlap is how long a CA is trusted after its successor was made: until the
// successor signs, and then until the last certificate of the old one ended,
// even that of a replica that was cut off from the Secret.
func (l lifetimes) overlap() time.Duration { return l.settle() + l.leaf }

// plan says which authorities are still needed, newest first, and whether a new
// one has to be made.
func (l lifetimes) plan(now time.Time, have []authority) (keep []authority, renew bool) {
	for _, a := range newestFirst(have) {
		expired := !now.Before(a.cert.NotAfter)
		superseded := len(keep) > 0 && now.Sub(keep[0].created()) >= l.overlap()
		if !expired && !superseded {
			keep = append(keep, a)
		}
	}
	if len(keep) == 0 {
		return nil, true
	}
	newest := keep[0].cert
	return keep, pastTwoThirds(now, newest.NotBefore.Add(backdate), newest.NotAfter)
}

// signer picks the authority that signs serving certificates: the newest one
// that has settled; else the oldest that the live configuration trusts; else any
// is better than none. authorities are sorted newest first; there is at least one.
func (l lifetimes) signer(now time.Time, authorities []authority, live published) authority {
	for _, a := range authorities {
		if l.settled(now, a, live) {
			return a
		}
	}
	for _, a := range slices.Backward(authorities) {
		if _, trusted := live[string(a.cert.Raw)]; trusted {
			return a
		}
	}
	return authorities[0]
}

// bundle returns the PEM the configuration should carry: all authorities and,
// while the newest one is younger than the overlap, whatever valid certificate
// is live already: it may have signed what another replica still serves (the
// Secret was lost, or the certificates came from somewhere else before).
func (l lifetimes) bundle(now time.Time, authorities []authority, live []*x509.Certificate) []byte {
	var certs []*x509.Certificate
	for _, a := range authorities {
		certs = append(certs, a.cert)
	}
	if now.Sub(authorities[0].created()) < l.overlap() {
		for _, c := range live {
			if now.Before(c.NotAfter) && !slices.ContainsFunc(certs, c.Equal) {
				certs = append(certs, c)
			}
		}
	}
	slices.SortFunc(certs, byAge)
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: c.Raw})...)
	}
	return out
}

// needsLeaf reports whether the serving certificate must be replaced by one of
// signer's.
func needsLeaf(now time.Time, leaf *tls.Certificate, signer authority) bool {
	return leaf == nil ||
		!bytes.Equal(leaf.Leaf.AuthorityKeyId, signer.cert.SubjectKeyId) ||
		pastTwoThirds(now, leaf.Leaf.NotBefore.Add(backdate), leaf.Leaf.NotAfter)
}

// vouched reports whether the bundle has a valid CA that signed the certificate.
func vouched(now time.Time, leaf *tls.Certificate, bundle []byte) bool {
	return slices.ContainsFunc(parseCerts(bundle), func(c *x509.Certificate) bool {
		return now.Before(c.NotAfter) && leaf.Leaf.CheckSignatureFrom(c) == nil
	})
}

// pastTwoThirds is when certificates are renewed, which leaves a third of their
// life to get over whatever stands in the way.
func pastTwoThirds(now, from, until time.Time) bool {
	return now.Sub(from) >= until.Sub(from)*2/3
}

func newestFirst(in []authority) []authority {
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b authority) int { return byAge(a.cert, b.cert) })
	return out
}

// byAge sorts the newest first, and in the same order in every replica.
func byAge(a, b *x509.Certificate) int {
	return cmp.Or(b.NotBefore.Compare(a.NotBefore), bytes.Compare(a.Raw, b.Raw))
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
		return authority{}, fmt.Errorf("sign CA: %w", err)
	}
	return authority{cert: cert, key: key}, nil
}

// roundUp returns the next whole second, which is all that certificates know. A
// time before would have a CA settle sooner than it was made known.
func roundUp(now time.Time) time.Time { return now.Add(time.Second - 1).Truncate(time.Second) }

// sign makes a serving certificate that does not outlive the authority.
func (a authority) sign(now time.Time, lifetime time.Duration, dnsNames []string) (*tls.Certificate, error) {
	key, serial, err := newKey()
	if err != nil {
		return nil, err
	}
	until := now.Add(lifetime)
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	leaf, err := signed(&x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "elector-webhook"},
		DNSNames:     dnsNames,
		NotBefore:    now.Add(-backdate),
		NotAfter:     until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign serving certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func newKey() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	// 127 bits: RFC 5280 allows 20 octets and asks for a positive number.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("generate serial number: %w", err)
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

// The keys of the Secret: certificates and keys as PEM, in the same order.
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
			return nil, fmt.Errorf("encode CA key: %w", err)
		}
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: a.cert.Raw})...)
		keys = append(keys, pem.EncodeToMemory(&pem.Block{Type: typeKey, Bytes: der})...)
	}
	return map[string][]byte{dataCerts: certs, dataKeys: keys}, nil
}

// decode reads what encode wrote. Anything else is an error: half a Secret is
// not repaired but replaced.
func decode(data map[string][]byte) ([]authority, error) {
	certs := parseCerts(data[dataCerts])
	var out []authority
	for rest := data[dataKeys]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("key %d in %s: %w", len(out)+1, dataKeys, err)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("key %d in %s is a %T, not an ECDSA key", len(out)+1, dataKeys, parsed)
		}
		if len(out) >= len(certs) || !key.PublicKey.Equal(certs[len(out)].PublicKey) || !certs[len(out)].IsCA {
			return nil, fmt.Errorf("key %d in %s has no CA certificate in %s", len(out)+1, dataKeys, dataCerts)
		}
		out = append(out, authority{cert: certs[len(out)], key: key})
	}
	if len(out) == 0 || len(out) != len(certs) {
		return nil, errors.New(dataCerts + " and " + dataKeys + " do not hold the same number of certificates and keys, or none")
	}
	return out, nil
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
